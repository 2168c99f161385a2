"""Images loaded in threads ahead of whoever works on them, handed over in their order, within a memory limit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipeline.actors.buffer import ImageBuffer, Reservation, Share
from pipeline.errors import ImageError, StorageError, StorageUnavailable

EXPANSION = 16
"""Decoded bytes per stored byte, guessed before an image is opened: what JPEG usually reaches."""

SHARDS_IN_FLIGHT = 2
"""Shards an actor works on at once: the next one loads while the last one is being written."""

Item = TypeVar("Item")
Value = TypeVar("Value")


class ReadAhead:
    """`threads` that load, and the buffer that bounds what is loaded. All shards of an actor share one."""

    def __init__(self, threads: int, buffer_bytes: int) -> None:
        self.buffer = ImageBuffer(buffer_bytes, shares=SHARDS_IN_FLIGHT)
        self._width = threads
        self._threads = ThreadPoolExecutor(threads, "load")

    def in_order(
        self,
        items: Iterable[Item],
        guess: Callable[[Item], int],
        load: Callable[[Item, Reservation], Value],
        share: Share,
    ) -> Iterator[tuple[Item, Reservation, Value | ImageError | StorageError]]:
        """Each item with what `load` made of it, or with the ImageError or StorageError that it raised.

        `guess` says how many bytes an item may take, `load` corrects its reservation; the taker releases it, or its
        `share` does at the end. Raises StorageUnavailable, and whatever else `load` raises.
        """
        pending = deque(items)
        window: deque[tuple[Item, Reservation, Future[Value]]] = deque()
        try:
            while pending or window:
                while pending and len(window) < self._width:
                    # With nothing in flight the image is taken whatever it costs, else a large one would wait for ever.
                    reservation = share.reserve(guess(pending[0]), force=not window)
                    if reservation is None:
                        break
                    item = pending.popleft()
                    window.append((item, reservation, self._threads.submit(load, item, reservation)))
                item, reservation, job = window.popleft()
                reservation.expedite()
                result: Value | ImageError | StorageError
                try:
                    result = job.result()
                except StorageUnavailable:
                    raise
                except (ImageError, StorageError) as error:
                    result = error
                yield item, reservation, result
                del job, result  # its pixels, while the next one is awaited
        finally:
            for _, reservation, job in window:
                job.cancel()
                reservation.release()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
