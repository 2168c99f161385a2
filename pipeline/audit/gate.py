"""Whether an audit lets a flow go on: the model's figures are within what the sample says, and that is exact enough."""

from dataclasses import dataclass

from pipeline.audit.results import Estimate, read_estimate
from pipeline.errors import InputError, PipelineError
from pipeline.numbers import fixed, percent
from pipeline.storage.store import Store


class AuditFailed(PipelineError):
    """An audit's intervals exclude the model's figures, or are too wide."""


@dataclass(frozen=True)
class Gate:
    """`margin`: how far, as a fraction of the pixels, an interval may lie off the model's figure. `width`: how wide an
    interval may be, from end to end. None: any."""

    margin: float | None = None
    width: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("margin", self.margin), ("width", self.width)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"the {option} is {value}, but shares are within 0..1; choose it there")


def failures(estimate: Estimate, gate: Gate) -> list[str]:
    """Why the audit fails, a sentence per class; empty when it does not.

    The model's figure is held against the interval of its bias, so that void pixels do not count.
    """
    found = []
    for each in estimate.classes:
        bias = f"{fixed(100 * each.bias, 2, '+')} % (95 %: {_points(each.bias_low)} to {_points(each.bias_high)})"
        if gate.margin is not None and (each.bias_low > gate.margin or each.bias_high < -gate.margin):
            found.append(f"{each.name}: the model is off by {bias}, more than {percent(gate.margin)}")
        width = each.high - each.low
        if gate.width is not None and width > gate.width:
            more = f"; annotate about {each.more_images:,} more to halve it" if each.more_images else ""
            found.append(f"{each.name}: the interval is {percent(width)} wide, more than {percent(gate.width)}{more}")
    return found


def check(estimate: Estimate, gate: Gate) -> None:
    """Raises AuditFailed, naming the classes, unless `gate` lets the estimate pass."""
    found = failures(estimate, gate)
    if found:
        raise AuditFailed(f"audit {estimate.audit_id} of {estimate.output}: " + "; ".join(found))


def check_model(audit: Store, model_id: str, gate: Gate) -> Estimate:
    """The newest estimate of `audit`, where `gate` lets it pass and it is of the masks of model `model_id`.

    Raises InputError for an audit of another model, AuditFailed, naming the classes, where the gate fails.
    """
    estimate = read_estimate(audit)
    if estimate.model_id != model_id:
        raise InputError(
            f"{audit.uri} audits masks of model {estimate.model_id}, not of {model_id}: label images with this model, "
            "and audit that output"
        )
    check(estimate, gate)
    return estimate


def _points(value: float) -> str:
    return fixed(100 * value, 2, "+")
