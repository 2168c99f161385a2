"""Whether the driver of a run is alive, as its lease and its progress tell anybody who can read the output.

A killed driver writes nothing, so its record says "running" for ever. What it wrote last is all there is to go by: a
heartbeat every ten seconds from its start to its end, and progress while shards are at work.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.errors import AccessDenied
from pipeline.numbers import duration
from pipeline.outputs.lease import SILENT_AFTER_SECONDS, Holder, Lease
from pipeline.outputs.runs import Progress, RunRecord
from pipeline.storage.store import Store

State = Literal["running", "silent", "gone"]
"""Heard of within the last minute; not, and nobody knows why; or known to be at work no more."""


@dataclass(frozen=True)
class Pulse:
    """What is known of the driver of a run that its record calls running. `quiet` is since when, in seconds."""

    state: State
    quiet: float
    driver: str
    """Its host and process, for a person; "" where that is not known."""

    def __str__(self) -> str:
        """ "running (last heard 4 s ago)", "silent for 3 min: killed? the same command resumes"."""
        match self.state:
            case "running":
                return f"running (last heard {duration(round(self.quiet))} ago)"
            case "silent":
                return f"silent for {duration(self.quiet)}: killed? the same command resumes"
            case "gone":
                return f"gone for {duration(self.quiet)}: its driver{self.driver} ended; the same command resumes"


def holder_of(store: Store) -> Holder | None:
    """`Lease.holder`; None as well where leases may not be read, so that runs are told by their progress alone."""
    try:
        return Lease.holder(store)
    except AccessDenied:
        return None


class Listener:
    """Listens for the driver of one run, once or again and again.

    Of what changes between two looks its own clock says how long ago that was; of the rest, the storage's.
    """

    def __init__(self) -> None:
        self._heard: datetime | None = None
        self._changed: float | None = None
        self._began = time.monotonic()

    def hear(self, record: RunRecord, progress: Progress | None, holder: Holder | None) -> Pulse | None:
        """How the driver of that run is. None where its record says that the run has ended.

        `progress` is that of its newest attempt, `holder` is `holder_of` its output.
        """
        if record.state != "running":
            return None
        began = record.attempts[-1].started if record.attempts else record.started
        heard = max(began, progress.updated) if progress else began
        if holder is None:
            return self._judge(heard, "")
        lease = record.attempts[-1].lease if record.attempts else None
        superseded = holder.since > began if lease is None else holder.number > lease
        if superseded:  # what is known of the holder is not about this run's driver
            return Pulse("gone", _ago(heard), "")
        heard = max(heard, holder.heard)
        if holder.released or holder.gone:
            return Pulse("gone", _ago(heard), _named(holder))
        return self._judge(heard, _named(holder))

    def _judge(self, heard: datetime, driver: str) -> Pulse:
        now = time.monotonic()
        if self._heard is not None and heard != self._heard:
            self._changed = now
        self._heard = heard
        quiet = max(_ago(heard), now - self._began) if self._changed is None else now - self._changed
        return Pulse("silent" if quiet >= SILENT_AFTER_SECONDS else "running", quiet, driver)


def before_a_run(holder: Holder | None) -> str | None:
    """What a driver does that has begun no run yet, for a person; None where there is none."""
    if holder is None or holder.released or holder.gone:
        return None
    quiet = _ago(holder.heard)
    doing = "it checks, lists or plans" if quiet < SILENT_AFTER_SECONDS else "killed? the same command begins anew"
    return f"a driver{_named(holder)}, last heard {duration(round(quiet))} ago, has no run at work yet: {doing}"


def _ago(moment: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _named(holder: Holder) -> str:
    return f" (host {holder.host}, process {holder.pid})"
