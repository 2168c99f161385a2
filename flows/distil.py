"""The distillation flow: `pipeline.distillation.job` step by step, each a task, with its scores as artifacts.

Running the flow again is safe at any point: every step finds what it did before. A run that fails or is cancelled
publishes nothing.
"""

from functools import partial

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled
from pydantic import BaseModel, ConfigDict

from flows.artifacts import CancelWatch, ProgressArtifact, as_task, fraction, refuse_relative_places, show_launch
from flows.form import DistilForm
from flows.markdown import code, plain
from flows.retrain import jobs_on
from pipeline.distillation.job import DistilReport, DistilStopped
from pipeline.distillation.job import distil as distil_job
from pipeline.jobs.launch import HERE, Launch
from pipeline.launch.jobs import LaunchStopped, segment_on
from pipeline.logfmt import key_values
from pipeline.retraining.observer import RetrainObserver


class DistilSummary(BaseModel):
    """What the flow returns. `versions`: of the student, and of its int8 form, in the registry; scores are 0..1."""

    model_config = ConfigDict(frozen=True)

    run: str
    registry_name: str
    versions: tuple[str, ...]
    segmented: int
    agreement: float | None
    mean_iou: float | None
    teacher_mean_iou: float | None


@flow(name="distil", validate_parameters=True)
def distil(job: DistilForm, launch: Launch = HERE) -> DistilSummary:
    """Train a small network on a large one's predictions for a sample, score it and publish it. Segmenting, training
    and scoring run here, or where `launch` says.

    Fails, with the reason in its first line, when anything goes wrong. Nothing is promoted.

    Args:
        job: Which teacher, which images, and which student.
        launch: Where segmenting, training and scoring run.
    """
    refuse_relative_places(job)
    observer = _FlowObserver()
    segment = partial(segment_on, launch, on_launch=show_launch)
    try:
        report = distil_job(job, observer, CancelWatch(), as_task, jobs_on(launch), segment)
    except (DistilStopped, LaunchStopped) as stopped:
        return Cancelled(message=str(stopped))  # type: ignore[return-value]
    as_task("publish scores", lambda: _publish_scores(report))
    observer.finish()
    return DistilSummary(
        run=report.uri,
        registry_name=report.registry_name,
        versions=report.versions,
        segmented=report.predictions.segmented,
        agreement=report.mean_iou("student", "teacher"),
        mean_iou=report.mean_iou("student", "truth"),
        teacher_mean_iou=report.mean_iou("teacher", "truth"),
    )


class _FlowObserver(RetrainObserver):
    """Notes to the run's log, progress to an artifact."""

    def __init__(self) -> None:
        self._log = get_run_logger()
        self._progress = ProgressArtifact()

    def note(self, text: str) -> None:
        self._log.info("%s", key_values(note=text))

    def progress(self, share: float | None, text: str) -> None:
        if share is None:
            self._log.info("%s", key_values(phase=text))
        self._progress.update(share or 0.0, text)

    def finish(self) -> None:
        self._progress.finish("done")


def _publish_scores(report: DistilReport) -> None:
    create_table_artifact(
        [
            {
                "model": each.model,
                "against": each.against,
                "images": each.record.examples,
                "mean IoU": fraction(each.record.scores.mean_iou),
                "pixel accuracy": fraction(each.record.scores.pixel_accuracy),
            }
            for each in report.scores
        ],
        key="scores",
        description=f"Distillation {plain(report.name)}: against the teacher's predictions, and against the truth",
    )
    lines = [
        f"# {plain(report.name)} is published",
        "",
        *(f"- `registry:{report.registry_name}@{version}`" for version in report.versions),
        f"- learned from {plain(report.teacher)}",
        f"- trained on {code(report.predictions.dataset)}: {report.predictions.segmented:,} images",
        f"- training and scores: {code(report.uri)}",
    ]
    create_markdown_artifact("\n".join(lines), key="student", description=f"Student {plain(report.registry_name)}")
