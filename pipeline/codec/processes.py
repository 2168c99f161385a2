"""Decoding and encoding in worker processes: nothing that an image does to its decoder reaches anything else.

A worker holds one image at a time, with a limit on its memory and its time. What goes wrong in there, a
segfault or a stall included, is that image's ImageError; the worker is replaced and no other image notices.
So that being killed for somebody else's memory, or a machine that stood still, is never blamed on an image, a
fault is blamed only when it happens again in a fresh worker.

Workers are plain subprocesses of this interpreter, not `multiprocessing` (inside a Ray actor that would
import the driver's main module again), and the bytes go through an anonymous file shared with each (`memfd`):
one copy in, one out.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import numpy as np

from fcn_core.labels import LabelSet
from pipeline.codec.images import Decoded, Pixels
from pipeline.codec.taken_at import TakenAt
from pipeline.codec.worker_main import ARENA_KEEP_BYTES, DECODE, ENCODE, OK, READY, REPLY, REQUEST, WORN_OUT
from pipeline.errors import ImageError, PipelineError

# Faults that may not be the image's own doing, see above.
_TRIES = 2
# A machine short of memory kills workers while they start, too; that is tried this often before it counts as
# broken.
_START_TRIES = 5
_START_SECONDS = 120.0
# All that a worker gets of our environment. Above all no credentials: it handles bytes that anybody may have
# made.
_ENVIRONMENT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TZ",
)
_SOURCE = str(Path(__file__).resolve().parents[2])
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class DatedImage(Decoded):
    """A decoded image, and when it was taken where its EXIF says so."""

    taken_at: TakenAt | None = None


class CodecPool:
    """`workers` processes, each decoding or encoding one image at a time.

    memory_limit_bytes: what a worker may map beyond its own code and libraries; about 12 bytes a pixel are
    needed for ordinary images. timeout_seconds: wall-clock for one image. max_pixels: larger images are
    refused from their header.

    Whoever calls gets the result, an ImageError, or, when the workers themselves cannot be had, a PipelineError.
    `decode_now` and `encode_now` wait for a free worker and talk to it from the caller's own thread: of two threads
    that hand an image on, one is saved. `decode` and `encode` return at once with a Future of the same; nothing bounds
    their queue, so whoever submits should wait for results now and then. Thread-safe.
    """

    def __init__(
        self,
        workers: int,
        memory_limit_bytes: int = 2 << 30,
        timeout_seconds: float = 60.0,
        max_pixels: int = 150_000_000,
    ) -> None:
        if workers < 1:
            raise ValueError(f"a codec pool needs at least one worker, not {workers}")
        self._limits = _Limits(memory_limit_bytes, timeout_seconds, max_pixels)
        # Workers start in these threads, which live as long as the pool: the kernel counts the thread that
        # forked as the parent whose death a worker follows.
        self._starters = ThreadPoolExecutor(workers, thread_name_prefix="codec-starter")
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="codec")
        self._closing = threading.Event()
        self._slots = [_Slot(self._limits, self._closing) for _ in range(workers)]
        self._idle = list(self._slots)
        self._changed = threading.Condition()

    def decode_now(self, data: bytes, max_side: int | None = None) -> DatedImage:
        """Image bytes to RGB pixels; see `pipeline.codec.images.decode` for the rules and the reasons.

        More reasons from here: `timed_out`, `decoder_crashed`.
        """

        def job(slot: _Slot) -> DatedImage:
            reply = slot.ask(DECODE, data, max_side=max_side or 0)
            pixels = np.empty((reply.height, reply.width, 3), np.uint8)
            slot.take(reply, pixels.reshape(-1).data)
            return DatedImage(pixels, reply.orientation, reply.full_size, reply.taken_at)

        return self._run(job)

    def encode_now(self, mask: Pixels, labels: LabelSet) -> bytes:
        """A mask, uint8 [H, W], to palette PNG bytes; see `fcn_core.labels.encode_mask`.

        A mask that does not fit the labels is a PipelineError: no image is to blame for it.
        """
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"a mask must be uint8 [H, W], not {mask.dtype} {list(mask.shape)}")
        text = labels.model_dump_json().encode()

        def job(slot: _Slot) -> bytes:
            reply = slot.ask(ENCODE, np.ascontiguousarray(mask).reshape(-1).data, mask.shape, text)
            png = bytearray(reply.length)
            slot.take(reply, memoryview(png))
            return bytes(png)

        return self._run(job)

    def decode(self, data: bytes) -> Future[Decoded]:
        """`decode_now` in a thread of the pool's."""
        self._check_open()
        return self._threads.submit(self.decode_now, data)

    def encode(self, mask: Pixels, labels: LabelSet) -> Future[bytes]:
        """`encode_now` in a thread of the pool's."""
        self._check_open()
        return self._threads.submit(self.encode_now, mask, labels)

    def warm_up(self) -> None:
        """Begin to start a first worker, where nobody waits for it yet. What goes wrong shows when one is needed."""
        self._check_open()
        self._threads.submit(self._run, lambda slot: None)

    def worker_pids(self) -> list[int]:
        """The processes that are up and ready."""
        return [pid for slot in self._slots if (pid := slot.ready_pid) is not None]

    def close(self) -> None:
        """End the workers at once. What is not done is cancelled or fails."""
        if self._closing.is_set():
            return
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        for slot in self._slots:
            slot.kill()
        # Their files may only be closed once nobody writes there any more.
        with self._changed:
            self._changed.wait_for(lambda: len(self._idle) == len(self._slots))
        for threads in (self._threads, self._starters):
            threads.shutdown(wait=True, cancel_futures=True)
        for slot in self._slots:
            slot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, job: Callable[["_Slot"], Result]) -> Result:
        """What `job` makes with a free worker, in this thread."""
        slot = self._claim()
        try:
            for attempt in range(_TRIES):
                try:
                    if slot.ready_pid is None:
                        self._starters.submit(slot.start).result()
                    return job(slot)
                except _FaultError as fault:
                    slot.discard()
                    if self._closing.is_set():
                        raise PipelineError("The codec pool was closed.") from None
                    if attempt == _TRIES - 1:
                        raise fault.blame from None
            raise AssertionError("the last try returns or raises")
        finally:
            with self._changed:
                self._idle.append(slot)
                self._changed.notify_all() if self._closing.is_set() else self._changed.notify()

    def _claim(self) -> "_Slot":
        """A worker's slot for this thread alone, as soon as there is one; the last used comes first."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._closing.is_set())
            self._check_open()
            return self._idle.pop()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise PipelineError("The codec pool is closed.")


@dataclass(frozen=True, slots=True)
class _Limits:
    memory_bytes: int
    seconds: float
    max_pixels: int


@dataclass(frozen=True, slots=True)
class _Reply:
    """A worker's answer: the arena's content and what it is."""

    length: int
    height: int
    width: int
    orientation: int
    full_size: tuple[int, int] | None
    taken_at: TakenAt | None = None


def _taken_at(told: Any) -> TakenAt | None:
    """A worker's word for when an image was taken; the worker may have been taken over by a hostile one."""
    try:
        time, offset = datetime.fromisoformat(told["taken_at"]), told["offset"]
        return TakenAt(time.replace(tzinfo=None), offset if isinstance(offset, int) and abs(offset) < 1440 else None)
    except (KeyError, TypeError, ValueError):
        return None


class _FaultError(Exception):
    """The worker is unusable. `blame` is what its image gets if this happens to it again."""

    def __init__(self, blame: ImageError) -> None:
        super().__init__(blame)
        self.blame = blame


class _DiedError(Exception):
    """The worker's end of the pipe is closed."""


class _Slot:
    """Room for one worker, started when first needed and again after each fault. Used by one thread at a
    time.
    """

    def __init__(self, limits: _Limits, closing: threading.Event) -> None:
        self._limits = limits
        self._closing = closing
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        # Shared with the worker: images on their way in and out, and what it says on stderr.
        self._arena = os.memfd_create("fcn-codec-arena")
        self._stderr = os.memfd_create("fcn-codec-stderr")
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)

    @property
    def ready_pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and self._ready else None

    def ask(
        self,
        operation: int,
        content: bytes | memoryview,
        shape: tuple[int, ...] = (0, 0),
        text: bytes = b"",
        max_side: int = 0,
    ) -> _Reply:
        """Send a request and wait for its answer. Raises _FaultError, or the ImageError or PipelineError in
        the answer.
        """
        process = self._process
        if process is None:
            raise AssertionError("a slot is started before it is asked")
        doing = "Decoding" if operation == DECODE else "Encoding"
        view = memoryview(content)
        self._trim()
        done = 0
        while done < len(view):
            done += os.pwrite(self._arena, view[done:], done)
        deadline = time.monotonic() + self._limits.seconds
        try:
            os.write(_fd(process.stdin), REQUEST.pack(operation, len(text), len(view), *shape, max_side) + text)
            header = REPLY.unpack(self._receive(process, REPLY.size, deadline))
            status, text_length, length, height, width, orientation, *full_size = header
            told = json.loads(self._receive(process, text_length, deadline)) if text_length else {}
        except TimeoutError:
            blame = ImageError("timed_out", f"{doing} took longer than {self._limits.seconds:g} seconds.")
            raise _FaultError(blame) from None
        except (_DiedError, BrokenPipeError, ValueError):
            blame = ImageError("decoder_crashed", f"{doing} made its process die ({self._cause_of_death(process)}).")
            raise _FaultError(blame) from None
        if status == OK:
            most = self._limits.max_pixels
            full_height, full_width = full_size
            if operation == DECODE and (
                length != height * width * 3 or height * width > most or full_height * full_width > most
            ):
                raise _FaultError(ImageError("decoder_crashed", "The decoder's answer makes no sense."))
            full = (full_height, full_width) if full_height and full_width else None
            return _Reply(length, height, width, orientation, full, _taken_at(told))
        if "reason" not in told:
            raise PipelineError(f"{doing} failed: {told.get('error')}.")
        error = ImageError(str(told["reason"]), str(told["message"]))
        raise _FaultError(error) if status == WORN_OUT else error

    def take(self, reply: _Reply, buffer: memoryview) -> None:
        """Fill `buffer` with the content that `reply` announced."""
        done = 0
        while done < reply.length:
            count = os.preadv(self._arena, [buffer[done:]], done)
            if count == 0:
                raise _FaultError(ImageError("decoder_crashed", "The decoder's answer makes no sense."))
            done += count
        self._trim()

    def kill(self) -> None:
        """End the worker from any thread; whoever waits for it gets a _FaultError."""
        process = self._process
        if process is not None:
            process.kill()

    def discard(self) -> None:
        """End and forget the worker; the next request starts another."""
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def close(self) -> None:
        self.discard()
        os.close(self._arena)
        os.close(self._stderr)

    def start(self) -> None:
        """Have a worker, in a thread that outlives it. Raises PipelineError when there is none to be had."""
        for _ in range(_START_TRIES):
            self.discard()
            process = self._process = self._spawn()
            # close() sets the flag and then kills what it sees: it saw this process, or we see the flag.
            if self._closing.is_set():
                self.discard()
                raise PipelineError("The codec pool was closed.")
            try:
                if self._receive(process, len(READY), time.monotonic() + _START_SECONDS) == READY:
                    self._ready = True
                    return
                cause = "it speaks another version of the protocol"
            except TimeoutError:
                cause = f"no sign of life for {_START_SECONDS:g} s"
            except _DiedError:
                cause = self._cause_of_death(process)
                if process.returncode is not None and process.returncode >= 0:
                    break  # it ended by itself and would do so again
        self.discard()
        raise PipelineError(f"A codec worker does not start: {cause}.")

    def _spawn(self) -> subprocess.Popen[bytes]:
        os.ftruncate(self._stderr, 0)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment |= dict.fromkeys(_ONE_THREAD, "1")
        # The same packages as here, wherever they came from (Ray puts a job's code on the path at run time).
        environment["PYTHONPATH"] = os.pathsep.join([_SOURCE, *(path for path in sys.path if path)])
        limits = (self._limits.memory_bytes, self._limits.max_pixels)
        numbers = (self._arena, os.getpid(), *limits)
        return subprocess.Popen(
            # -P: the working directory is not to be imported from.
            [sys.executable, "-P", "-m", "pipeline.codec.worker_main", *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            pass_fds=(self._arena,),
            env=environment,
            bufsize=0,
        )

    def _receive(self, process: subprocess.Popen[bytes], length: int, deadline: float) -> bytes:
        """Exactly `length` bytes. Raises TimeoutError at the deadline (of time.monotonic), _DiedError at the
        pipe's end.
        """
        pipe = _fd(process.stdout)
        waiter = select.poll()
        waiter.register(pipe, select.POLLIN)
        data = b""
        while len(data) < length:
            if not waiter.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(pipe, length - len(data))
            if not part:
                raise _DiedError
            data += part
        return data

    def _cause_of_death(self, process: subprocess.Popen[bytes]) -> str:
        process.kill()
        code = process.wait()
        if code == -signal.SIGKILL:
            return "killed, perhaps for lack of memory"
        if code < 0:
            return signal.Signals(-code).name
        size = os.fstat(self._stderr).st_size
        lines = os.pread(self._stderr, 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"exit code {code}"

    def _trim(self) -> None:
        if os.fstat(self._arena).st_size > ARENA_KEEP_BYTES:
            os.ftruncate(self._arena, 0)


def _fd(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise AssertionError("workers are started with both pipes")
    return pipe.fileno()
