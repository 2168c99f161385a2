"""How fast a run was over time, from when its shards were committed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from pipeline.report.summary import Commit

BINS = 48
PAUSE_SECONDS = 600.0
CLOCK_SLACK = timedelta(minutes=10)
"""How far the storage's clock may be from ours."""


@dataclass(frozen=True)
class Throughput:
    """Images a second in equal steps of working time; pauses (a stopped run that was resumed) are left out.

    `rates[i]` is the mean from i * step to (i + 1) * step seconds after the start. `paused` are the pauses: after how
    many seconds of work, and how long.
    """

    step: float
    rates: tuple[float, ...]
    paused: tuple[tuple[float, float], ...]


def throughput(commits: Sequence[Commit], started: datetime, finished: datetime | None) -> Throughput | str:
    """Throughput over time from commits in order of time, or a sentence that says why there is none."""
    if not commits:
        return "No shard has been committed."
    if commits[0].at < started - CLOCK_SLACK or (finished and commits[-1].at > finished + CLOCK_SLACK):
        return "The dates of the results files are not those of the run: they were copied since."
    times = np.array([max(0.0, (commit.at - started).total_seconds()) for commit in commits])
    moments, of_moment = np.unique(times, return_inverse=True)
    if len(moments) < 2:
        return "All results were written at one moment."
    images = np.bincount(of_moment, weights=[commit.images for commit in commits])
    gaps = np.diff(moments, prepend=0.0)
    usual = float(np.median(gaps))
    idle = gaps > max(PAUSE_SECONDS, 20 * usual)
    work = np.where(idle, usual, gaps)
    clock = np.concatenate([[0.0], np.cumsum(work)])
    done = np.concatenate([[0.0], np.cumsum(images)])
    bins = max(2, min(BINS, len(moments) // 2))
    edges = np.linspace(0.0, clock[-1], bins + 1)
    step = float(edges[1])
    rates = np.diff(np.interp(edges, clock, done)) / step
    paused = tuple((float(clock[index]), float(gaps[index])) for index in np.flatnonzero(idle))
    return Throughput(step, tuple(rates.tolist()), paused)
