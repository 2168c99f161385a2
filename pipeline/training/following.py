"""A driver follows its group of training workers: reports what is new, and gives up what finds no place."""

import time
from collections.abc import Callable

from ray.exceptions import RayError

from pipeline.actors import metrics
from pipeline.actors.deaths import Deaths
from pipeline.actors.metrics import Recorder
from pipeline.errors import PipelineError
from pipeline.training.group import Group
from pipeline.training.group_spec import GroupResult, GroupSpec, GroupStatus
from pipeline.training.observer import TrainObserver
from pipeline.training.placement import missing_resources

POLL_SECONDS = 0.5
STOP_SECONDS = 120.0
"""How long workers may take to end their step and save, once they are asked to stop."""


class GroupFollower:
    """Follows the groups of a training, one after another; to be made once Ray is connected.

    `failures`: how often workers have failed so far. Workers are asked to stop when `should_stop` turns true.
    """

    def __init__(self, observer: TrainObserver, should_stop: Callable[[], bool], placement_timeout: float) -> None:
        self.failures = 0
        self._observer = observer
        self._should_stop = should_stop
        self._placement_timeout = placement_timeout
        self._recorder = Recorder("train")
        self._deaths = Deaths()

    def follow(self, group: Group, spec: GroupSpec, phase: str) -> GroupResult | None:
        """Watch a group until it is done. None when it did not stop in time after it was asked to."""
        last: GroupStatus | None = None
        waiting_since = time.monotonic()
        stop_by: float | None = None
        self._recorder.begin((metrics.TRAIN_FAILURES,))
        while (result := group.wait(POLL_SECONDS)) is None:
            if stop_by is not None and time.monotonic() > stop_by:
                return None
            status = group.status()
            if status is None:
                continue
            if status.waiting and (last is None or not last.waiting or status.failures > last.failures):
                waiting_since = time.monotonic()
            self._notify(status, last, spec, phase)
            self._record(status, last)
            last = status
            if stop_by is None and (self._should_stop()):
                self._observer.phase("stopping")
                group.stop()
                stop_by = time.monotonic() + (0 if status.waiting else STOP_SECONDS)
            elif stop_by is None and status.waiting:
                self._check_placement(spec, time.monotonic() - waiting_since)
        self.failures += last.failures if last else 0
        return result

    def _notify(self, status: GroupStatus, last: GroupStatus | None, spec: GroupSpec, phase: str) -> None:
        """Report to the observer what is new since the last call."""
        failures = last.failures if last else 0
        if status.failures > failures:
            lacked = self.lacked()
            self._observer.note(
                f"{status.reason}{lacked}; going on from the newest checkpoint (failure {status.failures})"
            )
        if status.waiting and (last is None or not last.waiting):
            self._observer.phase(f"{phase}: waiting for {spec}")
        if not status.waiting and (last is None or last.waiting):
            self._observer.phase(phase)
        if status.progress and not status.waiting and (last is None or status.progress != last.progress):
            before = last.progress.workers if last and last.progress else status.progress.workers
            if status.progress.workers != before:
                self._observer.note(f"{status.progress.workers} worker(s) now, {before} before")
            self._observer.progress(status.progress)

    def lacked(self) -> str:
        """What this machine ran out of since the last call, in words; "" for nothing, or where Ray is elsewhere."""
        cause = self._deaths.cause(None, RayError())
        return f": {cause.text}" if cause is not None else ""

    def _record(self, status: GroupStatus, last: GroupStatus | None) -> None:
        """The same for Prometheus, at every look: a gauge that is not set again is forgotten."""
        recorder, progress = self._recorder, status.progress
        recorder.add(metrics.TRAIN_FAILURES, status.failures - (last.failures if last else 0))
        if progress is None:
            return
        recorder.set(metrics.TRAIN_WORKERS, 0 if status.waiting else progress.workers, arch=progress.stage)
        recorder.set(metrics.TRAIN_STEP, progress.step, arch=progress.stage)
        recorder.set(metrics.TRAIN_STEPS, progress.steps, arch=progress.stage)
        recorder.set(metrics.TRAIN_LOSS, progress.loss, arch=progress.stage)
        recorder.set(metrics.TRAIN_MEAN_IOU, progress.val_mean_iou, arch=progress.stage)
        recorder.set(metrics.TRAIN_IMAGES_PER_SECOND, progress.images_per_second, arch=progress.stage)
        recorder.set(metrics.TRAIN_SECONDS_LEFT, progress.eta_seconds, arch=progress.stage)

    def _check_placement(self, spec: GroupSpec, waited: float) -> None:
        if waited > self._placement_timeout:
            raise PipelineError(
                f"workers could not be placed within {self._placement_timeout:.0f} s: "
                f"{missing_resources(spec)}; the same command resumes"
            )
