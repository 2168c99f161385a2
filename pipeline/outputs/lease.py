"""One driver at a time on an output: a lease of create-only numbered files, with a heartbeat.

Whoever creates the highest number owns the output. Numbers are never reused, so a superseded owner sees a higher one
and stops. The lease keeps two drivers from wasting work; it is not what keeps results right: that is the create-only
commit.
"""

import contextlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pipeline.errors import InputError, ObjectExists, ObjectMissing, StorageError
from pipeline.storage.store import Store

HEARTBEAT_SECONDS = 10.0
SILENT_AFTER_SECONDS = 60.0

_RELEASED = b"released"
_LEASE = re.compile(r"lease/(\d{8})\.json")


@dataclass(frozen=True)
class _Owner:
    """Who created a lease. `machine` and `started` tell its process from all others, in containers too."""

    number: int
    host: str
    pid: int
    machine: str
    started: str
    since: str


class Lease:
    """Held from `acquire` to `release`; `lost` turns true when another driver took over."""

    _held: ClassVar[set[str]] = set()  # leases of this process: an owner with our process id that is not here is dead

    def __init__(self, store: Store, number: int) -> None:
        self._store = store
        self._number = number
        self._name = f"{store.uri} {number}"
        self._held.add(self._name)
        self._released = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, store: Store, *, takeover: bool = False) -> "Lease":
        """Become the driver of the output behind `store`.

        Raises InputError, naming the owner, when another driver is alive and `takeover` is false. An owner on another
        machine that seems to have fallen silent is watched for a while first, because clocks differ.
        """
        owner = _newest(store)
        if owner is not None and not takeover and cls._is_alive(store, owner):
            raise InputError(
                f"{store.uri} is being written by another run (host {owner.host}, process {owner.pid}, "
                f"since {owner.since}); wait for it, stop it, or supersede it with --takeover"
            )
        number = owner.number + 1 if owner else 1
        here = _Owner(number, socket.gethostname(), os.getpid(), _machine(), _process_started(os.getpid()), _now())
        try:
            store.create(_lease_key(number), json.dumps(asdict(here)).encode())
        except ObjectExists:
            raise InputError(f"{store.uri} was taken by another run at this very moment; try again") from None
        store.put(_beat_key(number), _now().encode())
        return cls(store, number)

    @property
    def lost(self) -> bool:
        """Whether a higher number has been seen: this driver must stop."""
        return self._lost.is_set()

    def release(self) -> None:
        """Give the output back, so that the next driver need not wait for silence."""
        self._released.set()
        self._thread.join(timeout=HEARTBEAT_SECONDS)
        self._held.discard(self._name)
        if not self.lost:
            # What was done is done; a lease that cannot be given back falls silent by itself.
            with contextlib.suppress(StorageError):
                self._store.put(_beat_key(self._number), _RELEASED)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                if max(_numbers(self._store), default=0) > self._number:
                    self._lost.set()
                    return
                self._store.put(_beat_key(self._number), _now().encode())
            except StorageError:
                continue  # silence is what a failed heartbeat means; the next one may work

    @classmethod
    def _is_alive(cls, store: Store, owner: _Owner) -> bool:
        """Whether `owner` has neither released, nor died on this machine, nor fallen silent on another."""
        beat = _read_beat(store, owner)
        if beat == _RELEASED:
            return False
        if owner.machine == _machine():
            mine = owner.pid == os.getpid() and f"{store.uri} {owner.number}" not in cls._held
            return not mine and _process_started(owner.pid) == owner.started
        try:
            silence = datetime.now(UTC) - datetime.fromisoformat(beat.decode())
        except ValueError:
            return False
        if silence.total_seconds() < SILENT_AFTER_SECONDS:
            return True
        time.sleep(2.5 * HEARTBEAT_SECONDS)
        return _read_beat(store, owner) not in (beat, _RELEASED)


def _newest(store: Store) -> _Owner | None:
    number = max(_numbers(store), default=0)
    if not number:
        return None
    try:
        record = json.loads(store.get(_lease_key(number))) | {"number": number}
        # By name: a newer version may tell more.
        return _Owner(**{each.name: record[each.name] for each in fields(_Owner)})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{store.uri}: {_lease_key(number)} is damaged ({error}); delete it and try again") from error


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
    """The clock tick at which a process started, which no other with its number shares; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _lease_key(number: int) -> str:
    return f"lease/{number:08d}.json"


def _beat_key(number: int) -> str:
    return f"lease/{number:08d}.heartbeat"
