"""Room for pixels: how many masks are open at once depends on their sizes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelRoom:
    """So many pixels may be in memory at once; an image of more gets all of the room for itself."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits for room for an image, and holds it."""
        needed = min(pixels, self._pixels)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= needed)
            self._free -= needed
        try:
            yield
        finally:
            with self._changed:
                self._free += needed
                self._changed.notify_all()
