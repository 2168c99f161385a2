"""One driver at a time on an output: a lease of create-only numbered files, with a heartbeat.

Whoever creates the highest number owns the output. Numbers are never reused, so a superseded owner sees a higher one
and stops; its actors look before each commit. The lease keeps two drivers from wasting work; it is not what keeps
results right: that is the create-only commit.
"""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from fcn_core.text.json_text import parse_json
from pipeline.errors import InputError, ObjectMissing, PipelineError, StorageError, TakenOver
from pipeline.storage.store import Store, create_own

HEARTBEAT_SECONDS = 10.0
SILENT_AFTER_SECONDS = 60.0

_RELEASED = b"released"
_LEASE = re.compile(r"lease/(\d{8})\.json")


@dataclass(frozen=True)
class _Owner:
    """Who created a lease. `machine` and `started` tell its process from all others, in containers too, and `nonce` its
    lease from all others of the process; 0.1 wrote none.
    """

    number: int
    host: str
    pid: int
    machine: str
    started: str
    since: str
    nonce: str = ""


class WatchStopped(PipelineError):
    """`should_stop` turned true while a silent owner was watched; nothing was begun."""


@dataclass(frozen=True)
class Holder:
    """Whoever took the newest lease of an output, and when it was last heard of, by the storage's clock."""

    number: int
    host: str
    pid: int
    since: datetime
    heard: datetime
    released: bool
    gone: bool
    """Its process ran on this machine, and is there no more."""


class Lease:
    """Held from `acquire` to `release`; `lost` turns true when another driver took over."""

    _held: ClassVar[set[str]] = set()  # this process's, by nonce: an owner with our process id that is not here is dead

    def __init__(self, store: Store, number: int, nonce: str) -> None:
        self.number = number
        self._store = store
        self._nonce = nonce
        self._held.add(nonce)
        self._released = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(
        cls,
        store: Store,
        *,
        takeover: bool = False,
        on_note: Callable[[str], None] = lambda text: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> "Lease":
        """Become the driver of the output behind `store`.

        Raises InputError, naming the owner, when another driver is alive and `takeover` is false. An owner on another
        machine that seems to have fallen silent is watched for SILENT_AFTER_SECONDS first, because clocks differ;
        `on_note` receives a note. Raises WatchStopped when `should_stop` turns true meanwhile.
        """
        newest, owner = _newest(store)
        if newest and owner is None and not takeover:
            raise InputError(
                f"{store.uri}: {_lease_key(newest)} is damaged, so nobody can tell whether another run is at work; "
                "make sure that none is, then supersede it with --takeover"
            )
        if owner is not None and not takeover and cls._is_alive(store, owner, on_note, should_stop):
            raise InputError(
                f"{store.uri} is being written by another run (host {owner.host}, process {owner.pid}, "
                f"since {owner.since}); wait for it, stop it, or supersede it with --takeover"
            )
        number = newest + 1
        pid, nonce = os.getpid(), secrets.token_hex(8)
        here = _Owner(number, socket.gethostname(), pid, _machine(), _process_started(pid), _now(), nonce)
        if not create_own(store, _lease_key(number), json.dumps(asdict(here)).encode()):
            raise InputError(f"{store.uri} was taken by another run at this very moment; try again")
        store.put(_beat_key(number), _now().encode())
        return cls(store, number, nonce)

    @property
    def lost(self) -> bool:
        """Whether a higher number has been seen: this driver must stop."""
        return self._lost.is_set()

    def check(self) -> None:
        """Look now whether this driver has the output still. Raises TakenOver, and what the storage raises."""
        if self.lost or is_superseded(self._store, self.number):
            self._lost.set()
            raise TakenOver(self._store.uri)

    def is_held(self) -> bool:
        """Look now whether this driver has the output still, as far as the storage answers."""
        with contextlib.suppress(TakenOver, StorageError):
            self.check()
        return not self.lost

    def release(self) -> None:
        """Give the output back, so that the next driver need not wait for silence."""
        self._released.set()
        self._thread.join(timeout=HEARTBEAT_SECONDS)
        self._held.discard(self._nonce)
        if not self.lost:
            # What was done is done; a lease that cannot be given back falls silent by itself.
            with contextlib.suppress(StorageError):
                self._store.put(_beat_key(self.number), _RELEASED)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                if is_superseded(self._store, self.number):
                    self._lost.set()
                    return
                self._store.put(_beat_key(self.number), _now().encode())
            except StorageError:
                continue  # silence is what a failed heartbeat means; the next one may work

    @classmethod
    def holder(cls, store: Store) -> Holder | None:
        """The newest lease's holder, be it alive or not. None where there is no lease, or its record is damaged."""
        number, owner = _newest(store)
        if not number or owner is None:
            return None
        try:
            since = datetime.fromisoformat(owner.since)
        except ValueError:
            return None
        since = since if since.tzinfo else since.replace(tzinfo=UTC)
        try:
            beat, heard = store.get(_beat_key(number)), store.head(_beat_key(number)).last_modified
        except ObjectMissing:  # it is, or died, between its lease and its first heartbeat
            beat, heard = b"", since
        return Holder(number, owner.host, owner.pid, since, heard, beat == _RELEASED, cls._has_ended(owner))

    @classmethod
    def _has_ended(cls, owner: _Owner) -> bool:
        """Whether `owner` ran on this machine and does not any more, or lives on without its lease."""
        if owner.machine != _machine():
            return False
        return owner.nonce not in cls._held if owner.pid == os.getpid() else not _is_running(owner)

    @classmethod
    def _is_alive(
        cls, store: Store, owner: _Owner, on_note: Callable[[str], None], should_stop: Callable[[], bool]
    ) -> bool:
        """Whether `owner` has neither released, nor died on this machine, nor fallen silent.

        The owner's clock is believed where it says that the owner lives. That it is dead is for our own clock to say,
        which knows nothing of what was before we looked: it is watched for as long as an owner may be silent.
        """
        beat = _read_beat(store, owner)
        if beat == _RELEASED:
            return False
        if cls._has_ended(owner):
            return False
        try:
            silence = datetime.now(UTC) - datetime.fromisoformat(beat.decode())
        except ValueError:
            return False
        if 0 <= silence.total_seconds() < SILENT_AFTER_SECONDS:
            return True
        on_note(
            f"host {owner.host} seems to have died while it wrote {store.uri}; making sure that it is silent for "
            f"{SILENT_AFTER_SECONDS:.0f} s"
        )
        since = time.monotonic()
        while True:
            time.sleep(HEARTBEAT_SECONDS / 10)
            if should_stop():
                raise WatchStopped(f"stopped while it was watched whether {owner.host} still writes {store.uri}")
            # Taken before asking: whoever freezes after an answer has not heard that the owner is silent still.
            asked = time.monotonic()
            heard = _read_beat(store, owner)
            if heard != beat:
                return heard != _RELEASED
            if asked - since >= SILENT_AFTER_SECONDS:
                return False


def is_superseded(store: Store, number: int) -> bool:
    """Whether another driver has taken over from the one whose lease has this number."""
    return max(_numbers(store), default=0) > number


def _newest(store: Store) -> tuple[int, _Owner | None]:
    """The newest lease's number, 0 where there is none, and its owner; None where its record is damaged."""
    number = max(_numbers(store), default=0)
    if not number:
        return 0, None
    try:
        record = parse_json(store.get(_lease_key(number))) | {"number": number}
        # By name: a newer version may tell more, and an older one less.
        return number, _Owner(**{each.name: record[each.name] for each in fields(_Owner) if each.name in record})
    except (ValueError, TypeError):
        return number, None


def _numbers(store: Store) -> list[int]:
    return [int(match[1]) for info in store.list("lease/") if (match := _LEASE.fullmatch(info.key))]


def _read_beat(store: Store, owner: _Owner) -> bytes:
    try:
        return store.get(_beat_key(owner.number))
    except ObjectMissing:
        return owner.since.encode()  # it died, or is, between its lease and its first heartbeat


def _machine() -> str:
    """One boot of one machine, and the namespace that process ids count in: a container's are its own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _process_started(pid: int) -> str:
    """The clock tick at which a process started, which no other with its number shares.

    "" when it is gone, or has ended and nobody has asked for its status yet, or may not be looked at (hidepid).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    values = stat.rpartition(")")[2].split()
    return "" if values[0] in "ZX" else values[19]


def _is_running(owner: _Owner) -> bool:
    """Whether the process of an owner on this machine is there, as far as that can be seen."""
    started = _process_started(owner.pid)
    if started or Path(f"/proc/{owner.pid}").exists():
        return started == owner.started
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True  # /proc hides other users' processes here


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _lease_key(number: int) -> str:
    return f"lease/{number:08d}.json"


def _beat_key(number: int) -> str:
    return f"lease/{number:08d}.heartbeat"
