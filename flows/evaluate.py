"""The evaluation flow: score a model on labelled images, and show what came out. One task for the whole run."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.states import Cancelled
from pydantic import BaseModel, ConfigDict

from fcn_core.metrics import Scores
from flows.artifacts import CancelWatch, JobObserver, as_task, fraction
from pipeline.evaluation.files import BrokenExample
from pipeline.evaluation.job import BrokenExamples, EvaluateReport, EvaluationStopped
from pipeline.evaluation.job import evaluate as run_job
from pipeline.evaluation.options import EvaluateJob

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
def evaluate(job: EvaluateJob) -> EvaluateSummary:
    """Score `job.model` on a split of `job.dataset`. Fails, and names them, when examples are broken."""
    try:
        report = as_task("score", lambda: _score(job))
    except EvaluationStopped as stopped:
        return Cancelled(message=str(stopped))  # type: ignore[return-value]
    return as_task("publish", lambda: _publish(job, report))


def _score(job: EvaluateJob) -> EvaluateReport:
    observer = JobObserver()
    try:
        report = run_job(job, observer, CancelWatch())
    except BrokenExamples as broken:
        _list_broken(broken.errors)
        raise
    observer.finish()
    return report


def _publish(job: EvaluateJob, report: EvaluateReport) -> EvaluateSummary:
    record = report.record
    scores = record.scores
    create_table_artifact(
        [
            {"class": name, "IU": fraction(iu), "accuracy": fraction(accuracy)}
            for name, iu, accuracy in zip(record.classes, scores.per_class_iu, scores.per_class_accuracy, strict=True)
        ],
        key="scores",
        description=f"Scores of each class on split {record.split}",
    )
    if report.errors:
        _list_broken(report.errors)
    create_markdown_artifact(_summary_text(job, report), key="summary", description=f"Scoring {job.model}")
    return EvaluateSummary(
        model_id=record.model_id,
        dataset=record.dataset,
        split=record.split,
        examples=record.examples,
        errors=len(report.errors),
        scores=scores,
        output=job.output,
    )


def _list_broken(errors: tuple[BrokenExample, ...]) -> None:
    create_table_artifact(
        [{"example": each.name, "reason": each.error, "message": each.message} for each in errors[:BROKEN_LISTED]],
        key="errors",
        description=f"Examples that could not be scored: {len(errors)}",
    )
    get_run_logger().warning("%d examples could not be scored", len(errors))


def _summary_text(job: EvaluateJob, report: EvaluateReport) -> str:
    record, scores = report.record, report.scores
    lines = [
        f"# Mean IU {fraction(scores.mean_iu)}",
        "",
        f"- pixel accuracy {fraction(scores.pixel_accuracy)}, mean accuracy {fraction(scores.mean_accuracy)}, "
        f"frequency-weighted IU {fraction(scores.frequency_weighted_iu)}",
        f"- model: {record.model}",
        f"- {record.examples} examples, {scores.pixels:,} pixels: split `{record.split}` of `{record.dataset}`",
    ]
    if report.errors:
        lines.append(f"- left out, because they are broken: {len(report.errors)}")
    if job.output:
        lines.append(f"- a row an image, the confusion matrix and the worst images: `{job.output}`")
    return "\n".join(lines)
