"""How much image memory a process may hold, and who holds it.

Loading reads ahead, so something must stop it: an image is admitted on a guess, the guess is put right as soon as it is
decoded, and while too much is held no further image is decoded, save the one that everything waits for.

Each shard has a share of its own, or one that reads ahead for later would take the room of the one that is at work.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Reservation:
    """One image's part of a buffer. Released once, by whoever is done with the image."""

    def __init__(self, buffer: "ImageBuffer", share: "Share", amount: int) -> None:
        self._buffer = buffer
        self.share = share
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


class Share:
    """What one shard takes of a buffer."""

    def __init__(self, buffer: "ImageBuffer") -> None:
        self._buffer = buffer
        self.used = 0
        self.taken: list[Reservation] = []

    def reserve(self, amount: int, *, force: bool) -> Reservation | None:
        """Room for `amount` bytes, or None where the shard or all together would hold too much; `force` takes it all
        the same.
        """
        reservation = Reservation(self._buffer, self, amount)
        if not self._buffer._admit(reservation, force):
            return None
        self.taken.append(reservation)
        return reservation


class ImageBuffer:
    """A limit in bytes over all images in one process, in `shares` equal ones. Thread-safe."""

    def __init__(self, limit: int, shares: int = 1) -> None:
        self.limit = limit
        self.used = 0
        self._shares = shares
        self._room = threading.Condition()

    def is_full(self) -> bool:
        """Whether more is held than the limit allows, by images that were urgent or larger than guessed."""
        return self.used > self.limit

    def wait_for_room(self, reservation: Reservation) -> None:
        """Return when less than the limit is held, or at once for an expedited or released reservation."""
        with self._room:
            self._room.wait_for(lambda: self.used <= self.limit or reservation.urgent or not reservation.amount)

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A share for one shard; what it still holds at the end, for whatever reason, is released."""
        share = Share(self)
        try:
            yield share
        finally:
            for reservation in share.taken:
                reservation.release()

    @contextmanager
    def alone(self, amount: int) -> Iterator[Reservation]:
        """Room for one image that everything waits for, whatever else is held."""
        with self.share() as share:
            reservation = share.reserve(amount, force=True)
            assert reservation is not None, "force always succeeds"
            reservation.expedite()
            yield reservation

    def _admit(self, reservation: Reservation, force: bool) -> bool:
        share, amount = reservation.share, reservation.amount
        with self._room:
            fits = self.used + amount <= self.limit and share.used + amount <= self.limit // self._shares
            if fits or force:
                self.used += amount
                share.used += amount
        return fits or force

    def _change(self, reservation: Reservation, amount: int) -> None:
        with self._room:
            if reservation.amount == 0:
                return  # released: an image that nobody waits for any more
            change = amount - reservation.amount
            self.used += change
            reservation.share.used += change
            reservation.amount = amount
            self._room.notify_all()
