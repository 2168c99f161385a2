"""What the fault tests share: one small job, its undisturbed output, and killers that strike once at a drawn moment."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.actors.observer import Observer
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.runs import Progress
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from tests.processes import ours

IMAGES = 48
SHARD_SIZE = 4
SHARDS = IMAGES // SHARD_SIZE
IMAGE_SIZE = (320, 240)

LAST_MOMENT = SHARDS - 5
"""Committed shards after which nobody is killed any more, so that a blow never falls on a run that is over: two actors
have four more at most.
"""

LONGEST_PAUSE = 0.15
"""Seconds that a killer waits after its shard at most: the moment is not always the one just after a commit."""

COMPARED = ("masks", "mask_tars", "results", "class_areas", "class_totals")


def small_job(source: Path, output: Path, model: Path, **changes: Any) -> SegmentJob:
    """The job of all fault tests: a dozen shards on two actors."""
    options = {
        "source": str(source), "output": str(output), "model": str(model), "shard_size": SHARD_SIZE, "actors": 2,
        "cpus_per_actor": 1, "codec_workers": 1, "device": "cpu", "engine": "torch", "batch_size": 1,
        "no_report": True,
    }  # fmt: skip
    return SegmentJob.model_validate(options | changes)


def files_of(output: Path) -> dict[str, bytes]:
    """Masks, results and derived tables by name; the run's id, which no two runs share, is left out of the names.

    As the storage lists them: what a writer that was killed had laid aside is no file of the output.
    """
    store = open_store(str(output))
    keys = [info.key for part in COMPARED for info in store.list(f"{part}/")]
    return {re.sub(r"run_id=[^/.]+", "run_id=RUN", key): store.get(key) for key in keys}


def differences(output: Path, calm: dict[str, bytes]) -> list[str]:
    """Files that are missing, superfluous or other than in the undisturbed output."""
    found = files_of(output)
    return sorted(name for name in found.keys() | calm.keys() if found.get(name) != calm.get(name))


def committed(output: Path) -> int:
    """Shards that are committed."""
    return sum(1 for _ in output.glob("results/run_id=*/shard-*.parquet"))


class Moment:
    """When to strike, drawn from a seed: after some committed shards, 0 to LAST_MOMENT, and a pause.

    Neighbouring seeds lie far apart, so that a few of them are spread over the run, too.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.random = random.Random(f"{kind} {seed}")
        place = (seed * 0.6180339887 + self.random.random() * 0.15) % 1.0
        self.shards = int(place * (LAST_MOMENT + 1))
        self.pause = self.random.random() * LONGEST_PAUSE

    def some_of(self, items: list[Any]) -> list[Any]:
        """At least one of them, at random."""
        return self.random.sample(items, self.random.randint(1, len(items)))


class Striker(Observer):
    """Calls `strike` at its moment, again and again until that has hit something. Remembers how far the run was."""

    def __init__(self, moment: Moment, output: Path, strike: Callable[[Moment], list[Any]]) -> None:
        self._moment = moment
        self._output = output
        self._strike = strike
        self._shards = 0
        self.hit: list[Any] = []
        self.committed_then = SHARDS
        self.last: Progress | None = None

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        self._shards += 1
        self._try()

    def progress(self, progress: Progress) -> None:
        self.last = progress
        self._try()

    def _try(self) -> None:
        if self.hit or self._shards < self._moment.shards:
            return
        time.sleep(self._moment.pause)
        self.hit = self._strike(self._moment)
        self.committed_then = committed(self._output)


def kill_processes(mark: str) -> Callable[[Moment], list[int]]:
    """A strike: SIGKILL to some of this process's descendants whose command line holds `mark`.

    To those that start from now on: what an earlier job left is on its way out, and nobody would miss it.
    """
    leaving = set(ours(mark))

    def strike(moment: Moment) -> list[int]:
        victims = sorted(set(ours(mark)) - leaving)
        victims = moment.some_of(victims) if victims else []
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return victims

    return strike


def run_under_fire(job: SegmentJob, striker: Striker) -> RunReport:
    """The whole job, with the striker looking on. The blow must have fallen while shards were left."""
    report = segment(job, striker)
    assert striker.hit, "there was nothing to kill"
    assert striker.committed_then < SHARDS, "the blow came too late"
    return report


def wait_for(moment: Moment, output: Path, over: Callable[[], bool]) -> None:
    """Return at the moment, as the output's files show it; or when the run is `over` before."""
    while not over() and (committed(output) < moment.shards or not list(output.glob("runs/*/plan/plan.json"))):
        time.sleep(0.01)
    time.sleep(moment.pause)
