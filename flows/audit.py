"""The audit flow: what the classes of an output really cover, as a table, and a gate for what comes after it."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import BaseModel, ConfigDict

from flows.artifacts import as_task, link_to, refuse_relative_places
from flows.markdown import code, plain
from pipeline.audit.files import PAGE
from pipeline.audit.gate import check
from pipeline.audit.job import AuditJob, run_audit
from pipeline.audit.results import ClassEstimate, Estimate
from pipeline.logfmt import key_values
from pipeline.numbers import fixed, percent, score


class AuditSummary(BaseModel):
    """What the flow returns; `classes` have shares and intervals as fractions."""

    model_config = ConfigDict(frozen=True)

    audit_id: str
    output: str
    recipe: str
    model_id: str
    images: int
    annotated: int
    pixel_accuracy: float | None
    classes: tuple[ClassEstimate, ...]


@flow(name="audit", validate_parameters=True)
def audit(job: AuditJob) -> AuditSummary:
    """Estimate areas and accuracies of an audit from its annotations. Fails, naming the classes, when the gate of `job`
    does: so what a flow does after it is done only for an output whose areas hold.

    Args:
        job: Which audit, which annotations, and what it takes to pass.
    """
    refuse_relative_places(job)
    found = as_task("estimate", lambda: _estimate(job))
    as_task("publish", lambda: _publish(job, found))
    check(found, job.gate)
    return AuditSummary(
        audit_id=found.audit_id,
        output=found.output,
        recipe=found.recipe,
        model_id=found.model_id,
        images=found.images,
        annotated=found.annotated,
        pixel_accuracy=found.accuracy.value,
        classes=found.classes,
    )


def _estimate(job: AuditJob) -> Estimate:
    log = get_run_logger()
    return run_audit(job, lambda name: log.info("%s", key_values(phase=name)))


def _publish(job: AuditJob, found: Estimate) -> None:
    create_table_artifact(
        [
            {
                "class": plain(each.name),
                "share": percent(each.share, 2),
                "95 % interval": f"{percent(each.low, 2)} to {percent(each.high, 2)}",
                "model said": percent(each.model_share, 2),
                "bias": f"{fixed(100 * each.bias, 2, '+')} %",
                "IoU": "-" if each.iou is None else score(each.iou.value),
            }
            for each in sorted(found.classes, key=lambda each: -each.share)
        ],
        key="audit",
        description=f"Area of each class over {found.images:,} images, from {found.annotated:,} annotated ones",
    )
    lines = [
        f"# Pixel accuracy {score(found.accuracy.value)}",
        "",
        f"- 95 % interval {score(found.accuracy.low)} to {score(found.accuracy.high)}",
        f"- output: {code(found.output)}, recipe {code(found.recipe)}, model {code(found.model_id)}",
        f"- annotated: {found.annotated:,} of {found.drawn:,} images drawn, of {found.images:,}",
        f"- page: {link_to(job.audit, PAGE)}",
        *(f"- {plain(note)}" for note in found.notes),
    ]
    create_markdown_artifact("\n".join(lines), key="audit-summary", description=f"Audit of {plain(found.output)}")
