"""Reads one object from front to end in large ranges, for whoever looks for small things all over it."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.storage.store import ObjectInfo, Store

WINDOW_BYTES = 1 << 24
"""Bytes per request. A thousand images of 60 kB are four of these; less than a second on a good network."""

GLANCE_BYTES = 1 << 16
"""Bytes per request after a jump over more than a window: where members are so large, only their headers are read."""


_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


class ScanStopped(Exception):
    """Nobody waits for what is being read any more."""


class RangeScanner:
    """One window of the object `info` in memory, moved forward as needed.

    Every window is proven to be of the version that was listed. `on_request` is called before each request.
    """

    def __init__(
        self,
        store: Store,
        info: ObjectInfo,
        on_request: Callable[[], None] = lambda: None,
        stopped: threading.Event | None = None,
    ) -> None:
        self._store = store
        self._info = info
        self._on_request = on_request
        self._stopped = stopped
        self._start = 0
        self._data = b""

    @classmethod
    def of(cls, store: Store, key: str, etag: str, size: int) -> "RangeScanner":
        """Of an object of which no more is known."""
        return cls(store, ObjectInfo(key, etag, size, _UNKNOWN))

    @property
    def key(self) -> str:
        return self._info.key

    @property
    def size(self) -> int:
        return self._info.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the object ends.

        Raises StorageError as `Store.get_range` does, and ScanStopped.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        end = self._start + len(self._data)
        if offset < self._start or offset + length > end:
            ahead = GLANCE_BYTES if offset - end > WINDOW_BYTES else WINDOW_BYTES
            self._fetch(offset, max(length, ahead))
        begin = offset - self._start
        return self._data[begin : begin + length]

    def _fetch(self, offset: int, length: int) -> None:
        if self._stopped is not None and self._stopped.is_set():
            raise ScanStopped
        self._on_request()
        self._data = b""  # not two windows at once
        length = min(length, self.size - offset)
        self._data = self._store.get_range(self._info.key, offset, length, etag=self._info.etag)
        self._start = offset
