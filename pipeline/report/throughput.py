"""How fast a run was over time, from when its shards were committed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from pipeline.outputs.runs import Attempt, RunRecord
from pipeline.report.summary import Commit

BINS = 48
PAUSE_SECONDS = 600.0
CLOCK_SLACK = timedelta(minutes=10)
"""How far the storage's clock may be from ours."""


@dataclass(frozen=True)
class Throughput:
    """Images per second in equal steps of working time; the time between attempts is left out.

    `rates[i]` is the mean from i * step to (i + 1) * step seconds after the start. `paused` are the pauses: after how
    many seconds of work, and how long.
    """

    step: float
    rates: tuple[float, ...]
    paused: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class _Clock:
    """Seconds of work at each commit, all seconds of work, and the pauses as in Throughput."""

    times: npt.NDArray[np.float64]
    total: float
    paused: tuple[tuple[float, float], ...]


def throughput(commits: Sequence[Commit], record: RunRecord) -> Throughput | str:
    """Throughput over time from a run's commits in order of time, or a sentence that says why there is none."""
    if not commits:
        return "No shard has been committed."
    last = record.attempts[-1].finished if record.attempts else record.finished
    ended = last if record.state == "finished" else None
    if commits[0].at < record.started - CLOCK_SLACK or (ended and commits[-1].at > ended + CLOCK_SLACK):
        return "The dates of the results files are not those of the run: they were copied since."
    if len({commit.at for commit in commits}) < 2:
        return "All results were written at one moment."
    clock = _of_attempts(commits, record.attempts) if record.attempts else _of_gaps(commits, record.started)
    if not clock.total:
        return "The time of the work is not known."
    # A storage whose clock is behind tells of commits before the start; they count from the start on.
    moments, of_moment = np.unique(np.maximum(clock.times, 1e-6 * clock.total), return_inverse=True)
    images = np.bincount(of_moment, weights=[commit.images for commit in commits])
    at, done = np.concatenate([[0.0], moments]), np.concatenate([[0.0], np.cumsum(images)])
    bins = max(2, min(BINS, len(moments) // 2))
    edges = np.linspace(0.0, clock.total, bins + 1)
    step = float(edges[1])
    rates = np.diff(np.interp(edges, at, done)) / step
    return Throughput(step, tuple(rates.tolist()), clock.paused)


def _of_attempts(commits: Sequence[Commit], attempts: Sequence[Attempt]) -> _Clock:
    """Each attempt has its own start and end; what a lost actor committed between two belongs to the first."""
    starts = np.array([attempt.started.timestamp() for attempt in attempts])
    seconds = np.array([attempt.seconds for attempt in attempts])
    before = np.concatenate([[0.0], np.cumsum(seconds)])
    moments = np.array([commit.at.timestamp() for commit in commits])
    which = np.maximum(0, np.searchsorted(starts, moments, side="right") - 1)
    times = before[which] + np.clip(moments - starts[which], 0.0, seconds[which])
    gaps = starts[1:] - (starts + seconds)[:-1]
    paused = tuple((float(at), float(gap)) for at, gap in zip(before[1:-1], gaps, strict=True) if gap > 0)
    return _Clock(times, float(before[-1]), paused)


def _of_gaps(commits: Sequence[Commit], started: datetime) -> _Clock:
    """Records of 0.1 have no attempts: a long time without a commit is taken for a pause."""
    times = np.array([max(0.0, (commit.at - started).total_seconds()) for commit in commits])
    moments, of_moment = np.unique(times, return_inverse=True)
    gaps = np.diff(moments, prepend=0.0)
    usual = float(np.median(gaps))
    idle = gaps > max(PAUSE_SECONDS, 20 * usual)
    clock = np.cumsum(np.where(idle, usual, gaps))
    paused = tuple((float(clock[index] - usual), float(gaps[index])) for index in np.flatnonzero(idle))
    return _Clock(clock[of_moment], float(clock[-1]), paused)
