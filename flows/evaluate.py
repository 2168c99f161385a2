"""The evaluation flow: score a model on labelled images, and show what came out. One task for the whole run."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled
from pydantic import BaseModel, ConfigDict

from fcn_core.metrics import Scores
from flows.artifacts import CancelWatch, JobObserver, as_task, fraction, refuse_relative_places, show_launch
from flows.form import EvaluateForm
from flows.markdown import code, plain
from pipeline.evaluation.files import BrokenExample, EvaluationRecord
from pipeline.evaluation.job import BrokenExamples, EvaluationStopped
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.launch import HERE, Launch
from pipeline.launch.jobs import evaluate_on

BROKEN_LISTED = 1000


class EvaluateSummary(BaseModel):
    """What the flow returns: which model is how good on what, and where the rest is, if it was to be kept."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    dataset: str
    split: str
    examples: int
    errors: int
    scores: Scores
    output: str | None


@flow(name="evaluate", validate_parameters=True)
def evaluate(job: EvaluateForm, launch: Launch = HERE) -> EvaluateSummary:
    """Score `job.model` on a split of `job.dataset`, here or where `launch` says. Fails, and names them, when examples
    are broken.

    Args:
        job: Which model is scored, and on what.
        launch: Where the job runs.
    """
    refuse_relative_places(job)
    try:
        record = as_task("score", lambda: _score(job, launch))
    except EvaluationStopped as stopped:
        return Cancelled(message=str(stopped))  # type: ignore[return-value]
    return as_task("publish", lambda: _publish(job, record))


def _score(job: EvaluateJob, launch: Launch) -> EvaluationRecord:
    observer = JobObserver()
    try:
        record = evaluate_on(launch, job, observer, CancelWatch(), show_launch)
    except BrokenExamples as broken:
        _list_broken(broken.errors)
        raise
    observer.finish()
    return record


def _publish(job: EvaluateJob, record: EvaluationRecord) -> EvaluateSummary:
    scores = record.scores
    create_table_artifact(
        [
            {"class": plain(name), "IoU": fraction(iou), "accuracy": fraction(accuracy)}
            for name, iou, accuracy in zip(record.classes, scores.per_class_iou, scores.per_class_accuracy, strict=True)
        ],
        key="scores",
        description=f"Scores of each class on split {plain(record.split)}",
    )
    if record.errors:
        _list_broken(record.errors)
    create_markdown_artifact(_summary_text(job, record), key="summary", description=f"Scoring {plain(job.model)}")
    return EvaluateSummary(
        model_id=record.model_id,
        dataset=record.dataset,
        split=record.split,
        examples=record.examples,
        errors=len(record.errors),
        scores=scores,
        output=job.output,
    )


def _list_broken(errors: tuple[BrokenExample, ...]) -> None:
    create_table_artifact(
        [
            {"example": plain(each.name), "reason": plain(each.error), "message": plain(each.message)}
            for each in errors[:BROKEN_LISTED]
        ],
        key="errors",
        description=f"Examples that could not be scored: {len(errors)}",
    )
    get_run_logger().warning("%d examples could not be scored", len(errors))


def _summary_text(job: EvaluateJob, record: EvaluationRecord) -> str:
    scores = record.scores
    lines = [
        f"# Mean IoU {fraction(scores.mean_iou)}",
        "",
        f"- pixel accuracy {fraction(scores.pixel_accuracy)}, mean accuracy {fraction(scores.mean_accuracy)}, "
        f"frequency-weighted IoU {fraction(scores.frequency_weighted_iou)}",
        f"- model: {plain(record.model)}",
        f"- {record.examples} examples, {scores.pixels:,} pixels: split {code(record.split)} of {code(record.dataset)}",
    ]
    if record.errors:
        lines.append(f"- left out, because they are broken: {len(record.errors)}")
    if job.output:
        lines.append(f"- a row per image, the confusion matrix and a page with the worst images: {code(job.output)}")
    return "\n".join(lines)
