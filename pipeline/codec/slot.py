"""Room for one codec worker: its process, what is said to it and what it answers."""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from fcn_core.text.json_text import parse_json
from fcn_core.text.printable import printable
from pipeline.codec.sandbox.confinement import Confinement
from pipeline.codec.taken_at import TakenAt
from pipeline.codec.worker_main import ARENA_KEEP_BYTES, DECODE, OK, READY, REPLY, REQUEST, VERSION, WORN_OUT
from pipeline.errors import ImageError, PipelineError

WORKER = "pipeline.codec.worker_main"
"""The module that a worker runs."""

# A machine short of memory kills workers while they start, too; that is tried this often before it counts as
# broken.
_START_TRIES = 5
_START_SECONDS = 120.0
# No limit of the kernel's counts one process's threads: the parent does, this often.
_MOST_THREADS, _LOOK_SECONDS = 8, 0.05
# More than a worker has to say. One that is taken over may announce gigabytes.
_MOST_TEXT = 1 << 16
_REASON = re.compile("[a-z0-9_]{1,64}")
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


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    seconds: float
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Reply:
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


class FaultError(Exception):
    """The worker is unusable. `blame` is what its image gets if this happens to it again, or the run if it is no
    ImageError.
    """

    def __init__(self, blame: PipelineError) -> None:
        super().__init__(blame)
        self.blame = blame


def _no_sense() -> FaultError:
    return FaultError(ImageError("decoder_crashed", "The decoder's answer makes no sense."))


class _DiedError(Exception):
    """The worker's end of the pipe is closed."""


class Slot:
    """Room for one worker, started when first needed and again after each fault. Used by one thread at a time.

    Its workers may start no threads until `read_heif` is called.
    """

    def __init__(self, limits: Limits, closing: threading.Event) -> None:
        self._limits = limits
        self._closing = closing
        self._process: subprocess.Popen[bytes] | None = None
        # What confines the worker, from when it is ready.
        self.confinement: Confinement | None = None
        self._heif = False
        # Shared with the worker: images on their way in and out, and what it says on stderr.
        self._arena = os.memfd_create("fcn-codec-arena")
        self._stderr = os.memfd_create("fcn-codec-stderr")
        fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)

    @property
    def ready_pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and self.confinement else None

    def ask(
        self,
        operation: int,
        content: bytes | memoryview,
        shape: tuple[int, ...] = (0, 0),
        text: bytes = b"",
        max_side: int = 0,
    ) -> Reply:
        """Send a request and wait for its answer. Raises FaultError, or the ImageError in the answer."""
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
            if text_length > _MOST_TEXT:
                raise ValueError("the answer is too long")
            told = parse_json(self._receive(process, text_length, deadline)) if text_length else {}
            if not isinstance(told, dict):
                raise ValueError("the answer is no object")
        except ValueError:
            raise _no_sense() from None
        except TimeoutError:
            blame = ImageError("timed_out", f"{doing} took longer than {self._limits.seconds:g} seconds.")
            raise FaultError(blame) from None
        except (_DiedError, BrokenPipeError):
            blame = ImageError("decoder_crashed", f"{doing} made its process die ({self._cause_of_death(process)}).")
            raise FaultError(blame) from None
        if status == OK:
            most = self._limits.max_pixels
            full_height, full_width = full_size
            if length > os.fstat(self._arena).st_size or (
                operation == DECODE
                and not (
                    length == height * width * 3
                    and 0 < height * width <= most
                    and full_height * full_width <= most
                    and 1 <= orientation <= 8
                )
            ):
                raise _no_sense()
            full = (full_height, full_width) if full_height and full_width else None
            return Reply(length, height, width, orientation, full, _taken_at(told))
        if "reason" not in told:
            # A fault of the program, or of a worker that an earlier image took over: a fresh one is asked, too.
            cause = printable(str(told.get("error")))
            if operation == DECODE:
                raise FaultError(ImageError("decoder_crashed", f"{doing} failed: {cause}."))
            raise FaultError(PipelineError(f"{doing} failed: {cause}."))
        reason, message = told["reason"], told.get("message")
        if not (isinstance(reason, str) and _REASON.fullmatch(reason) and isinstance(message, str)):
            raise _no_sense()
        error = ImageError(reason, message)
        raise FaultError(error) if status == WORN_OUT else error

    def take(self, reply: Reply, buffer: memoryview) -> None:
        """Fill `buffer` with the content that `reply` announced."""
        done = 0
        while done < reply.length:
            count = os.preadv(self._arena, [buffer[done:]], done)
            if count == 0:
                raise _no_sense()
            done += count
        self._trim()

    def read_heif(self) -> None:
        """Have a worker from now on that reads HEIC, too."""
        if not self._heif:
            self.discard()
            self._heif = True

    def kill(self) -> None:
        """End the worker from any thread; whoever waits for it gets a FaultError."""
        process = self._process
        if process is not None:
            process.kill()

    def discard(self) -> None:
        """End and forget the worker; the next request starts another."""
        process, self._process, self.confinement = self._process, None, None
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
                deadline = time.monotonic() + _START_SECONDS
                version, length = READY.unpack(self._receive(process, READY.size, deadline))
                if version == VERSION:
                    self.confinement = Confinement(**json.loads(self._receive(process, length, deadline)))
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
        numbers = (self._arena, os.getpid(), *limits, int(self._heif))
        return subprocess.Popen(
            # -P: the working directory is not to be imported from.
            [sys.executable, "-P", "-m", WORKER, *map(str, numbers)],
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
            self._wait(process, waiter, deadline)
            part = os.read(pipe, length - len(data))
            if not part:
                raise _DiedError
            data += part
        return data

    def _wait(self, process: subprocess.Popen[bytes], waiter: select.poll, deadline: float) -> None:
        """Until the worker has said something. Raises TimeoutError, and FaultError for one of too many threads."""
        while True:
            left = max(0.0, deadline - time.monotonic())
            if waiter.poll(min(left, _LOOK_SECONDS if self._heif else left) * 1000):
                return
            if time.monotonic() >= deadline:
                raise TimeoutError
            if self._heif and _threads_of(process.pid) > _MOST_THREADS:
                process.kill()
                raise FaultError(ImageError("decoder_crashed", "The decoder started too many threads."))

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


def _threads_of(pid: int) -> int:
    """How many threads a process has; 0 where that cannot be seen."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2  # a folder per thread
    except OSError:
        return 0


def _fd(pipe: IO[bytes] | None) -> int:
    if pipe is None:
        raise AssertionError("workers are started with both pipes")
    return pipe.fileno()
