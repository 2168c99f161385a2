"""Memory for images: limits, shares, and who may exceed them."""

import threading

import pytest

from pipeline.actors.buffer import ImageBuffer, Reservation, Share


def reserved(share: Share, amount: int, *, force: bool = False) -> Reservation:
    reservation = share.reserve(amount, force=force)
    assert reservation is not None
    return reservation


def test_one_shard_cannot_take_the_room_of_the_other() -> None:
    buffer = ImageBuffer(100, shares=2)
    with buffer.share() as early, buffer.share() as late:
        reserved(late, 40)
        assert late.reserve(20, force=False) is None
        reserved(early, 50)
        assert buffer.used == 90


def test_all_together_keep_to_the_limit_except_by_force() -> None:
    buffer = ImageBuffer(100, shares=2)
    with buffer.share() as one, buffer.share() as other:
        reserved(one, 90, force=True)
        assert other.reserve(20, force=False) is None
        assert not buffer.is_full()
        reserved(other, 20, force=True)
        assert buffer.is_full()


def test_what_a_shard_still_holds_at_its_end_is_released() -> None:
    buffer = ImageBuffer(100, shares=2)
    with buffer.share() as share:
        reserved(share, 10).resize(30)
        reserved(share, 5).release()
        assert (buffer.used, share.used) == (30, 30)
    assert (buffer.used, share.used) == (0, 0)


def test_a_released_reservation_holds_nothing_ever_again() -> None:
    buffer = ImageBuffer(100)
    with buffer.share() as share:
        reservation = reserved(share, 10)
        reservation.release()
        reservation.resize(50)
        reservation.release()
        assert (buffer.used, share.used) == (0, 0)


@pytest.mark.parametrize("how", ["expedite", "release", "another's release"])
def test_who_waits_for_room_is_let_through(how: str) -> None:
    buffer = ImageBuffer(100)
    with buffer.share() as share:
        large, waiting = reserved(share, 150, force=True), reserved(share, 10, force=True)
        through = threading.Event()

        def wait() -> None:
            buffer.wait_for_room(waiting)
            through.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not through.wait(0.05)
        {"expedite": waiting.expedite, "release": waiting.release, "another's release": large.release}[how]()
        assert through.wait(10)
        thread.join()
