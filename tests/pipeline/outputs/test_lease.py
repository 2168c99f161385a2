"""One driver at a time: the living are respected, the dead are not waited for, the superseded stop."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.outputs import lease as leases
from pipeline.outputs.lease import Lease, WatchStopped
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

LONG_AGO = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_a_second_driver_is_told_who_holds_the_output(store: Store) -> None:
    with Lease.acquire(store), pytest.raises(InputError, match=rf"process {os.getpid()}.*--takeover"):
        Lease.acquire(store)


def test_a_released_lease_can_be_taken_at_once(store: Store) -> None:
    Lease.acquire(store).release()
    Lease.acquire(store).release()
    assert [info.key for info in store.list("lease/") if info.key.endswith(".json")] == [
        "lease/00000001.json",
        "lease/00000002.json",
    ]


def test_a_killed_driver_is_not_waited_for(store: Store, tmp_path: Path) -> None:
    code = (
        "import os, signal; from pipeline.outputs.lease import Lease; from pipeline.storage.opening import open_store;"
        f"Lease.acquire(open_store({str(tmp_path)!r})); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert store.head("lease/00000001.json")
    Lease.acquire(store).release()


def test_takeover_supersedes_and_the_old_owner_notices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.05)
    old = Lease.acquire(store)
    new = Lease.acquire(store, takeover=True)
    deadline = time.monotonic() + 10
    while not old.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert old.lost
    assert not new.lost
    old.release()
    with pytest.raises(InputError):
        Lease.acquire(store)  # the old owner's release must not free what is not its own
    new.release()


class Clock:
    """Time that passes only where somebody sleeps; `at` says what happens on the way."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.at: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for due in [when for when in self.at if 1000.0 + when <= self.now]:
            self.at.pop(due)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


def owner_elsewhere(store: Store, beat: str) -> None:
    record = {"host": "another-machine", "pid": 7, "machine": "m", "started": "x", "since": beat, "number": 1}
    store.put("lease/00000001.json", json.dumps(record).encode())
    store.put("lease/00000001.heartbeat", beat.encode())


def test_an_owner_elsewhere_is_alive_while_it_beats(store: Store) -> None:
    owner_elsewhere(store, leases._now())
    with pytest.raises(InputError, match="host another-machine, process 7"):
        Lease.acquire(store)


def test_an_owner_elsewhere_that_fell_silent_is_superseded(store: Store, clock: Clock) -> None:
    notes: list[str] = []
    owner_elsewhere(store, LONG_AGO)
    Lease.acquire(store, on_note=notes.append).release()
    assert leases.SILENT_AFTER_SECONDS <= clock.now - 1000.0 < leases.SILENT_AFTER_SECONDS + 5
    assert [note for note in notes if "another-machine seems to have died" in note and "60 s" in note] == notes != []


def test_whoever_watches_a_silent_owner_can_be_stopped(store: Store, clock: Clock) -> None:
    owner_elsewhere(store, LONG_AGO)
    with pytest.raises(WatchStopped):
        Lease.acquire(store, should_stop=lambda: clock.now > 1003)
    assert clock.now < 1010
    assert not [info for info in store.list("lease/") if "00000002" in info.key]


def test_a_lease_that_was_given_back_elsewhere_is_not_waited_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(leases, "_machine", lambda: "another machine")
        Lease.acquire(store).release()
    Lease.acquire(store).release()


@pytest.mark.parametrize("beats_after", [5.0, 26.0, leases.SILENT_AFTER_SECONDS - 1])
@pytest.mark.parametrize("hours", [-5, 2])
def test_an_owner_whose_clock_is_wrong_is_alive_however_late_its_heartbeat(
    store: Store, clock: Clock, hours: int, beats_after: float
) -> None:
    """25 s of silence were enough to take it for dead."""
    its_time = datetime.now(UTC) + timedelta(hours=hours)
    owner_elsewhere(store, its_time.isoformat())
    next_beat = (its_time + timedelta(seconds=40)).isoformat().encode()
    clock.at[beats_after] = lambda: store.put("lease/00000001.heartbeat", next_beat)
    with pytest.raises(InputError, match="another-machine"):
        Lease.acquire(store)


def test_a_watcher_that_freezes_does_not_take_its_own_silence_for_the_owners(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner_elsewhere(store, LONG_AGO)
    read, asked = store.get, []

    def get(key: str) -> bytes:
        answer = read(key)
        if key.endswith(".heartbeat"):
            asked.append(key)
            if len(asked) == 3:  # right after the answer, which was no news, for long enough
                clock.now += 10 * leases.SILENT_AFTER_SECONDS
                store.put("lease/00000001.heartbeat", b"2026-01-01T00:00:10+00:00")
        return answer

    monkeypatch.setattr(store, "get", get)
    with pytest.raises(InputError, match="another-machine"):
        Lease.acquire(store)


def test_a_lease_that_could_not_be_given_back_does_not_lock_its_own_process_out(store: Store) -> None:
    lease = Lease.acquire(store)
    lease._store = open_store("/proc/no-such-place")  # every write there fails
    lease.release()
    Lease.acquire(store).release()


def test_a_damaged_lease_is_superseded_only_when_asked_and_its_number_is_not_given_twice(store: Store) -> None:
    store.put("lease/00000001.json", b"{")
    with pytest.raises(InputError, match=r"lease/00000001\.json is damaged.*--takeover"):
        Lease.acquire(store)
    Lease.acquire(store, takeover=True).release()
    assert store.head("lease/00000002.json")
    assert store.get("lease/00000001.json") == b"{"


def test_a_driver_is_not_refused_by_its_own_lease_whose_answer_was_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create

    def late_500(key: str, data: bytes) -> None:
        create(key, data)
        create(key, data)  # as a client does that heard an error of a write that had worked

    monkeypatch.setattr(store, "create", late_500)
    Lease.acquire(store).release()
    assert list(store.list("lease/00000002")) == []


def test_an_owner_that_ended_and_whom_nobody_has_reaped_is_dead(store: Store, tmp_path: Path) -> None:
    code = (
        "import os; from pipeline.outputs.lease import Lease; from pipeline.storage.opening import open_store;"
        f"Lease.acquire(open_store({str(tmp_path)!r})); os._exit(0)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        Lease.acquire(store).release()
    finally:
        child.wait(timeout=60)


def test_a_dead_owner_whose_clock_ran_ahead_is_not_waited_for_until_then(store: Store, clock: Clock) -> None:
    owner_elsewhere(store, (datetime.now(UTC) + timedelta(hours=2)).isoformat())
    Lease.acquire(store).release()


def test_a_folder_held_by_this_process_is_held_under_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "link").symlink_to("output")
    with Lease.acquire(open_store(str(tmp_path / "output"))), pytest.raises(InputError, match="--takeover"):
        Lease.acquire(open_store(str(tmp_path / "link")))


@pytest.fixture
def neighbour(store: Store) -> Iterator[Callable[[str], None]]:
    """Notes a lease of another process of this machine that lives, last heard of at the given time."""
    process = subprocess.Popen(["sleep", "1000"])

    def holds(beat: str) -> None:
        started = leases._process_started(process.pid)
        record = {"host": "here", "pid": process.pid, "machine": leases._machine(), "started": started}
        store.put("lease/00000001.json", json.dumps(record | {"since": beat, "number": 1}).encode())
        store.put("lease/00000001.heartbeat", beat.encode())

    try:
        yield holds
    finally:
        process.kill()
        process.wait()


def test_a_process_that_lives_on_without_its_lease_is_superseded(
    store: Store, neighbour: Callable[[str], None], clock: Clock
) -> None:
    """It could not write that it had given the lease back."""
    neighbour(LONG_AGO)
    Lease.acquire(store).release()


def test_an_owner_that_proc_hides_is_alive(
    store: Store, neighbour: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour(leases._now())
    real = Path.exists
    monkeypatch.setattr(leases, "_process_started", lambda pid: "")
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc/") and real(path))
    with pytest.raises(InputError, match="--takeover"):
        Lease.acquire(store)
