"""The three kinds of job, each where its `Launch` says: called as if they ran here, they tell and return the same."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from pipeline.actors.observer import Observer
from pipeline.errors import InputError, PipelineError, StorageError
from pipeline.evaluation.files import BrokenExample, EvaluationRecord
from pipeline.evaluation.job import BrokenExamples, EvaluationStopped, evaluate
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.launch import Here, Launch, OnKubeRay, OnRayJobs
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.launch.follow import LaunchObserver, follow
from pipeline.launch.kuberay import KubeRayLauncher
from pipeline.launch.launcher import Launcher
from pipeline.launch.ray_jobs import RayJobsLauncher
from pipeline.launch.work import Outcome, Work
from pipeline.outputs import runs
from pipeline.segmentation.job import segment
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from pipeline.training.job import train
from pipeline.training.observer import TrainObserver
from pipeline.training.report import TrainReport
from pipeline.training.store import TrainStore

T = TypeVar("T")


class LaunchStopped(PipelineError):
    """The job was stopped as requested; the same job resumes it."""


def open_launcher(launch: OnRayJobs | OnKubeRay) -> Launcher:
    """The launcher that the options name."""
    return RayJobsLauncher(launch.address) if isinstance(launch, OnRayJobs) else KubeRayLauncher(launch)


def segment_on(
    launch: Launch,
    job: SegmentJob,
    observer: Observer,
    should_stop: Callable[[], bool],
    on_launch: Callable[[str], None] = lambda where: None,
) -> RunReport:
    """`segment`, there. Raises LaunchStopped too, when the job was stopped before it had anything to report.

    Of all three: `on_launch` receives, as Markdown for people, where the job runs if that is elsewhere.
    """
    if isinstance(launch, Here):
        return segment(job, observer, should_stop)
    output = open_store(job.output)
    told: runs.Progress | None = None

    def look() -> None:
        nonlocal told
        newest = next(runs.records(output), None)
        progress = runs.read_progress(output, newest.run_id) if newest else None
        if progress is not None and progress != told:
            told = progress
            observer.progress(progress)

    return _report(_run(launch, job, observer, should_stop, look, on_launch), RunReport)


def evaluate_on(
    launch: Launch,
    job: EvaluateJob,
    observer: Observer,
    should_stop: Callable[[], bool],
    on_launch: Callable[[str], None] = lambda where: None,
) -> EvaluationRecord:
    """`evaluate`, there; its record, which is what it leaves behind."""
    if isinstance(launch, Here):
        return evaluate(job, observer, should_stop).record
    outcome = _run(launch, job, observer, should_stop, lambda: None, on_launch)
    if outcome.state == "interrupted":
        raise EvaluationStopped(outcome.message)
    if outcome.state == "refused" and outcome.report is not None:
        broken = tuple(BrokenExample.model_validate(each) for each in outcome.report["broken"])
        raise BrokenExamples(outcome.message, broken)
    return _report(outcome, EvaluationRecord)


def train_on(
    launch: Launch,
    job: TrainJob,
    observer: TrainObserver,
    should_stop: Callable[[], bool],
    on_launch: Callable[[str], None] = lambda where: None,
) -> TrainReport:
    """`train`, there. Raises LaunchStopped too, when the job was stopped before it had anything to report."""
    if isinstance(launch, Here):
        return train(job, observer, should_stop)
    store = TrainStore(open_store(job.output).at(job.name))

    def look() -> None:
        progress = store.load_progress()
        if progress is not None:
            observer.progress(progress)

    return _report(_run(launch, job, observer, should_stop, look, on_launch), TrainReport)


def _run(
    launch: OnRayJobs | OnKubeRay,
    job: SegmentJob | EvaluateJob | TrainJob,
    listener: LaunchObserver,
    should_stop: Callable[[], bool],
    look: Callable[[], None],
    on_launch: Callable[[str], None],
) -> Outcome:
    def try_to_look() -> None:
        # Numbers are for watching only; storage that is away for a moment delays them.
        with contextlib.suppress(StorageError):
            look()

    return follow(open_launcher(launch), Work.of(job), listener, should_stop, try_to_look, on_launch=on_launch)


def _report(outcome: Outcome, kind: type[T]) -> T:
    """What the job's function would have returned or raised, had it run here."""
    if outcome.state == "refused":
        raise InputError(outcome.message)
    if outcome.state == "failed":
        raise PipelineError(outcome.message)
    if outcome.report is None:
        raise LaunchStopped(outcome.message)
    report: T = TypeAdapter[Any](kind).validate_python(outcome.report)
    return report
