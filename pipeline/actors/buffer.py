"""How much image memory a process may hold, and who holds it.

Loading reads ahead, so something must stop it: an image is admitted on a guess, the guess is put right as soon as it is
decoded, and while too much is held no further image is decoded, save the one that everything waits for.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Reservation:
    """One image's share of a buffer. Released once, by whoever is done with the image."""

    def __init__(self, buffer: "ImageBuffer", amount: int) -> None:
        self._buffer = buffer
        self.amount = amount
        self.urgent = False

    def resize(self, amount: int) -> None:
        """Hold `amount` bytes from now on; may exceed the limit, for the bytes are there already."""
        self._buffer._change(self, amount)

    def release(self) -> None:
        """Hold nothing. Once more is no error."""
        self._buffer._change(self, 0)

    def expedite(self) -> None:
        """Let this image be decoded whatever is held: others can only be finished after it."""
        with self._buffer._room:
            self.urgent = True
            self._buffer._room.notify_all()


class ImageBuffer:
    """A limit in bytes over all images in one process. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._room = threading.Condition()

    def reserve(self, amount: int, *, force: bool) -> Reservation | None:
        """A share of `amount` bytes, or None when it does not fit; `force` takes it all the same."""
        with self._room:
            if not force and self.used + amount > self.limit:
                return None
            self.used += amount
        return Reservation(self, amount)

    def wait_for_room(self, reservation: Reservation) -> None:
        """Return when less than the limit is held, or at once for an expedited or released reservation."""
        with self._room:
            self._room.wait_for(lambda: self.used <= self.limit or reservation.urgent or not reservation.amount)

    @contextmanager
    def scope(self) -> Iterator[list[Reservation]]:
        """A list to note reservations in; what is still held at the end, for whatever reason, is released."""
        taken: list[Reservation] = []
        try:
            yield taken
        finally:
            for reservation in taken:
                reservation.release()

    def _change(self, reservation: Reservation, amount: int) -> None:
        with self._room:
            if reservation.amount == 0:
                return  # released: an image that nobody waits for any more
            self.used += amount - reservation.amount
            reservation.amount = amount
            self._room.notify_all()
