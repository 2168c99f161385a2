"""How committed shards and the pool's reports become the progress of a run, and its metrics."""

import time
from collections import deque
from datetime import UTC, datetime

from pipeline.actors import metrics
from pipeline.actors.metrics import JobKind, Recorder
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.actors.pool_progress import PoolProgress
from pipeline.outputs.runs import Counts, Progress

RATE_WINDOW_SECONDS = 60.0

RECORD_SECONDS = 1.0
"""How often the gauges are set."""

COUNTERS = (
    metrics.IMAGES,
    metrics.ERRORS,
    metrics.PIXELS,
    metrics.READ_BYTES,
    metrics.WRITTEN_BYTES,
    metrics.STAGE_SECONDS,
    metrics.SHARDS,
)


class Meter:
    """Turns committed shards and the pool's reports into the progress of a run over `images` in `shards`."""

    def __init__(self, run_id: str, images: int, shards: int, observer: Observer, kind: JobKind = "segment") -> None:
        self._run_id = run_id
        self._images = images
        self._shards = shards
        self._observer = observer
        self._shards_done = 0
        self._before = Counts()
        self._marks: deque[tuple[float, int]] = deque()
        self._recorder = Recorder(kind)
        self._recorded_at = float("-inf")
        self._begun = False
        self.here = Counts()
        """The shards committed by this attempt."""
        self.stage_seconds: dict[str, float] = {}
        """Where their time went: seconds in each stage, summed over threads."""

    @property
    def counts(self) -> Counts:
        """All committed shards of the run."""
        return self._before + self.here

    def start(self, committed: Counts, shards: int) -> None:
        """Shards committed by earlier attempts count as done, but not towards the speed of this one."""
        self._shards_done = shards
        self._before = committed

    def shard_done(self, outcome: ShardOutcome) -> None:
        self._shards_done += 1
        self.here += Counts(images=outcome.images, ok=outcome.ok, errors=dict(outcome.errors))
        for stage, seconds in outcome.stage_seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        self._count(outcome)
        self._observer.shard(self._run_id, outcome, self.counts.images, self._images)

    def update(self, pool: PoolProgress) -> Progress:
        now = time.monotonic()
        here = self.here.images + pool.images_in_flight
        done = self._before.images + here
        # The clock starts with the first actor: waiting for machines says nothing about their speed.
        if pool.ready and (not self._marks or now - self._marks[-1][0] >= 1.0):
            self._marks.append((now, here))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_WINDOW_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0] if self._marks else (now, here)
        rate = max(0.0, here - before) / (now - since) if now > since else 0.0
        progress = Progress(
            run_id=self._run_id,
            images=self._images,
            done=done,
            counts=self.counts,
            shards=self._shards,
            shards_done=self._shards_done,
            actors=pool.ready,
            images_per_second=rate,
            eta_seconds=(self._images - done) / rate if rate else None,
            restarts=pool.restarts,
            retries=pool.retries,
            updated=datetime.now(UTC),
        )
        if now - self._recorded_at >= RECORD_SECONDS or self._shards_done == self._shards:
            self._recorded_at = now
            self._record(progress, pool)
        self._observer.progress(progress)
        return progress

    def _count(self, outcome: ShardOutcome) -> None:
        recorder = self._recorder
        recorder.add(metrics.IMAGES, outcome.ok, status="ok")
        recorder.add(metrics.IMAGES, outcome.images - outcome.ok, status="error")
        for reason, count in outcome.errors.items():
            recorder.add(metrics.ERRORS, count, reason=reason)
        recorder.add(metrics.PIXELS, outcome.pixels)
        recorder.add(metrics.READ_BYTES, outcome.read_bytes)
        recorder.add(metrics.WRITTEN_BYTES, outcome.written_bytes)
        for stage, seconds in outcome.stage_seconds.items():
            recorder.add(metrics.STAGE_SECONDS, seconds, stage=stage)
        recorder.add(metrics.SHARDS, 1)

    def _record(self, progress: Progress, pool: PoolProgress) -> None:
        recorder = self._recorder
        if not self._begun:
            self._begun = True
            recorder.begin(COUNTERS)
        recorder.set(metrics.ACTORS_READY, pool.ready)
        recorder.set(metrics.ACTORS_WANTED, pool.wanted)
        recorder.set(metrics.SHARDS_IN_FLIGHT, pool.shards_in_flight)
        recorder.set(metrics.RUN_SHARDS, progress.shards)
        recorder.set(metrics.RUN_SHARDS_DONE, progress.shards_done)
        recorder.set(metrics.RUN_IMAGES, progress.images)
        recorder.set(metrics.RUN_IMAGES_DONE, progress.done)
        recorder.set(metrics.RUN_IMAGES_PER_SECOND, progress.images_per_second)
        recorder.set(metrics.RUN_SECONDS_LEFT, progress.eta_seconds)
