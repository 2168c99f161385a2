"""One driver at a time on an output: a lease of create-only numbered files, with a heartbeat.

Whoever creates the highest number owns the output. Numbers are never reused, so a superseded owner sees a higher one
and stops. The lease keeps two drivers from wasting work; it is not what keeps results right: that is the create-only
commit.
"""

import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import InputError, ObjectExists, ObjectMissing, StorageError
from pipeline.storage import Store

HEARTBEAT_SECONDS = 10.0
SILENT_AFTER_SECONDS = 60.0

_LEASE = re.compile(r"lease/(\d{8})\.json")


@dataclass(frozen=True)
class _Owner:
    number: int
    host: str
    pid: int
    process_started: str
    since: str


class Lease:
    """Held from `acquire` to `release`; `lost` turns true when another driver took over."""

    def __init__(self, store: Store, number: int) -> None:
        self._store = store
        self._number = number
        self._released = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, store: Store, *, takeover: bool = False) -> "Lease":
        """Become the driver of the output behind `store`.

        Raises InputError, naming the owner, when another driver is alive and `takeover` is false.
        """
        owner = _newest(store)
        if owner is not None and not takeover and _is_alive(store, owner):
            raise InputError(
                f"{store.uri} is being written by another run (host {owner.host}, process {owner.pid}, "
                f"since {owner.since}); wait for it, stop it, or supersede it with --takeover"
            )
        number = owner.number + 1 if owner else 1
        record = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": _process_started(os.getpid()),
            "since": _now(),
        }
        try:
            store.create(_lease_key(number), json.dumps(record).encode())
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
        if not self.lost:
            self._store.put(_beat_key(self._number), b"released")

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            try:
                newest = _newest(self._store)
                if newest is not None and newest.number > self._number:
                    self._lost.set()
                    return
                self._store.put(_beat_key(self._number), _now().encode())
            except StorageError:
                continue  # silence is what a failed heartbeat means; the next one may work


def _newest(store: Store) -> _Owner | None:
    numbers = [int(match[1]) for info in store.list("lease/") if (match := _LEASE.fullmatch(info.key))]
    if not numbers:
        return None
    record = json.loads(store.get(_lease_key(max(numbers))))
    return _Owner(max(numbers), record["host"], record["pid"], record["process_started"], record["since"])


def _is_alive(store: Store, owner: _Owner) -> bool:
    """Whether `owner` has neither released, nor died on this host, nor been silent for long."""
    try:
        beat = store.get(_beat_key(owner.number)).decode()
    except ObjectMissing:
        beat = owner.since
    if beat == "released":
        return False
    if owner.host == socket.gethostname():
        return _process_started(owner.pid) == owner.process_started
    return (datetime.now(UTC) - datetime.fromisoformat(beat)).total_seconds() < SILENT_AFTER_SECONDS


def _process_started(pid: int) -> str:
    """Boot id and start tick of a process, which no other process with its number shares; "" when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _lease_key(number: int) -> str:
    return f"lease/{number:08d}.json"


def _beat_key(number: int) -> str:
    return f"lease/{number:08d}.heartbeat"
