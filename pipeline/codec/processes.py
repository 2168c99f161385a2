"""Decoding and encoding in worker processes: nothing that an image does to its decoder reaches anything else.

A worker holds one image at a time, with a limit on its memory and its time. What goes wrong in there, a segfault or a
stall included, is that image's ImageError; the worker is replaced and no other image notices. An image that takes its
worker over finds it confined (see `pipeline.codec.sandbox`). So that being killed for somebody else's memory, or a
machine that stood still, is never blamed on an image, a fault is blamed only when it happens again in a fresh worker.

Workers are plain subprocesses of this interpreter, not `multiprocessing` (inside a Ray actor that would
import the driver's main module again), and the bytes go through an anonymous file shared with each (`memfd`):
one copy in, one out.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np

from fcn_core.decoding.heif import is_heif, is_installed
from fcn_core.errors import DecodeError
from fcn_core.labels import LabelSet
from pipeline.closing import Closing
from pipeline.codec.images import Decoded, Pixels
from pipeline.codec.sandbox.confinement import Confinement
from pipeline.codec.slot import FaultError, Limits, Slot
from pipeline.codec.taken_at import TakenAt
from pipeline.codec.worker_main import DECODE, ENCODE
from pipeline.errors import ImageError, PipelineError

# Faults that may not be the image's own doing, see above.
_TRIES = 2

_NO_THREADS = (
    "HEIC and HEIF files are not read on this machine: their decoder starts threads, and without seccomp, which is "
    "missing here, it could as well start processes; convert them to JPEG."
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class DatedImage(Decoded):
    """A decoded image, and when it was taken where its EXIF says so."""

    taken_at: TakenAt | None = None


class CodecPool(Closing):
    """`workers` processes, each decoding or encoding one image at a time.

    memory_limit_bytes: what a worker may map beyond its own code and libraries; about 12 bytes per pixel are
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
        self._limits = Limits(memory_limit_bytes, timeout_seconds, max_pixels)
        # Workers start in these threads, which live as long as the pool: the kernel counts the thread that
        # forked as the parent whose death a worker follows.
        self._starters = ThreadPoolExecutor(workers, thread_name_prefix="codec-starter")
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="codec")
        self._closing = threading.Event()
        self._slots = [Slot(self._limits, self._closing) for _ in range(workers)]
        self._idle = list(self._slots)
        self._changed = threading.Condition()

    def decode_now(self, data: bytes, max_side: int | None = None) -> DatedImage:
        """Image bytes to RGB pixels; see `pipeline.codec.images.decode` for the rules and the reasons.

        More reasons from here: `timed_out`, `decoder_crashed`.
        """
        heif = is_heif(data) and is_installed()

        def job(slot: Slot) -> DatedImage:
            if heif and slot.confinement is not None and not slot.confinement.seccomp:
                raise ImageError("unsupported_format", _NO_THREADS)
            reply = slot.ask(DECODE, data, max_side=max_side or 0)
            pixels = np.empty((reply.height, reply.width, 3), np.uint8)
            slot.take(reply, pixels.reshape(-1).data)
            return DatedImage(pixels, reply.orientation, reply.full_size, reply.taken_at)

        return self._run(job, heif=heif)

    def decode_for_core(self, data: bytes) -> Decoded:
        """`decode_now` for readers of fcn_core's, to which a refusal is a DecodeError."""
        try:
            return self.decode_now(data)
        except ImageError as error:
            raise DecodeError(error.reason, error.message) from error

    def encode_now(self, mask: Pixels, labels: LabelSet) -> bytes:
        """A mask, uint8 [H, W], to palette PNG bytes; see `fcn_core.labels.encode_mask`.

        A mask that does not fit the labels is a PipelineError: no image is to blame for it.
        """
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"a mask must be uint8 [H, W], not {mask.dtype} {list(mask.shape)}")
        style = asdict(labels.mask_style())
        text = json.dumps({**style, "palette": style["palette"].hex()}).encode()

        def job(slot: Slot) -> bytes:
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

    def confinement(self) -> Confinement:
        """What holds a worker on this machine; one is started for it where none is there."""

        def job(slot: Slot) -> Confinement:
            if slot.confinement is None:
                raise AssertionError("a worker that is ready has said what confines it")
            return slot.confinement

        return self._run(job)

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

    def _run(self, job: Callable[[Slot], Result], *, heif: bool = False) -> Result:
        """What `job` makes with a free worker, in this thread; with `heif`, one that reads HEIC."""
        slot = self._claim()
        try:
            if heif:
                slot.read_heif()
            for attempt in range(_TRIES):
                try:
                    if slot.ready_pid is None:
                        self._starters.submit(slot.start).result()
                    return job(slot)
                except FaultError as fault:
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

    def _claim(self) -> "Slot":
        """A worker's slot for this thread alone, as soon as there is one; the last used comes first."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or self._closing.is_set())
            self._check_open()
            return self._idle.pop()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise PipelineError("The codec pool is closed.")
