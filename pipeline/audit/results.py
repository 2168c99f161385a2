"""What an audit finds, as people and programs read it: JSON, and a table beside the results of the output."""

from datetime import datetime
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.audit.files import ESTIMATE
from pipeline.errors import InputError, ObjectMissing
from pipeline.outputs.audits import AUDITS_SCHEMA, audit_table_key
from pipeline.outputs.seal import to_json, to_parquet
from pipeline.storage.store import Store


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ratio(_Frozen):
    """A score 0..1 with its 95 % interval, and the bootstrap's beside it; None where nothing was there to be scored."""

    value: float | None
    low: float | None
    high: float | None
    boot_low: float | None
    boot_high: float | None


class ClassEstimate(_Frozen):
    """What one class covers: `share` of the labelled pixels with its interval `low` to `high`, the model's
    `model_share` of all pixels, and its bias on the labelled ones, all as fractions.

    `more_images` would have to be annotated to halve the interval; None where nothing is to be gained. `widened` says
    that no image of the sample shows an error, so that the width is what so many images cannot have missed.
    """

    class_id: int
    name: str
    share: float
    low: float
    high: float
    model_share: float
    bias: float
    bias_low: float
    bias_high: float
    more_images: int | None
    design_effect: float
    widened: bool
    iou: Ratio | None = None
    precision: Ratio | None = None
    recall: Ratio | None = None


class DomainEstimate(_Frozen):
    """A part of the population; without `classes` where too few of its images were annotated."""

    name: str
    images: int
    annotated: int
    classes: tuple[ClassEstimate, ...]


class ConfidenceBin(_Frozen):
    """Annotated images of like confidence: their mean confidence and the pixel accuracy that they stand for."""

    images: int
    confidence: float
    accuracy: float


class NotUsed(_Frozen):
    """An image of the sample that has no annotation to go by."""

    key: str
    reason: str


class Estimate(_Frozen):
    """estimate.json: what an audit finds. `images` are of the population, `drawn` of the samples.

    `estimator` is how the model's areas were used; `cluster` what intervals follow from instead of single images.
    `response` is the share of the images drawn that were annotated, `void` the estimated share of the population's
    pixels without a class.
    """

    audit_id: str
    output: str
    model: str
    model_id: str
    recipe: str
    where: str | None
    by: str | None
    created: datetime
    images: int
    without_mask: int
    drawn: int
    annotated: int
    response: float
    estimator: Literal["regression", "difference", "sample"]
    cluster: str | None
    void: float
    accuracy: Ratio
    mean_iou: Ratio
    classes: tuple[ClassEstimate, ...]
    domains: tuple[DomainEstimate, ...]
    calibration: tuple[ConfidenceBin, ...]
    not_used: tuple[NotUsed, ...]
    not_sampled: tuple[str, ...]
    notes: tuple[str, ...]


def audits_table(estimate: Estimate) -> pa.Table:
    """An estimate as a table of AUDITS_SCHEMA."""
    parts: list[tuple[str | None, int, int, tuple[ClassEstimate, ...]]] = [
        (None, estimate.images, estimate.annotated, estimate.classes),
        *((each.name, each.images, each.annotated, each.classes) for each in estimate.domains),
    ]
    rows = [
        {
            "audit_id": estimate.audit_id,
            "recipe": estimate.recipe,
            "domain": domain,
            "class_id": each.class_id,
            "class_name": each.name,
            "images": images,
            "annotated": annotated,
            **each.model_dump(
                include={"share", "low", "high", "model_share", "bias", "bias_low", "bias_high"},
            ),
            **{
                name: ratio.value if (ratio := getattr(each, name)) is not None else None
                for name in ("iou", "precision", "recall")
            },
        }
        for domain, images, annotated, classes in parts
        for each in classes
    ]
    return pa.Table.from_pylist(rows, schema=AUDITS_SCHEMA)


def write_estimate(audit: Store, output: Store, estimate: Estimate) -> None:
    """Write the estimate under AUDIT, and beside the results of OUTPUT for `fcn query`, in place of the one before."""
    audit.put(ESTIMATE, to_json(estimate.model_dump_json(indent=2)))
    output.put(audit_table_key(estimate.audit_id), to_parquet(audits_table(estimate)))


def read_estimate(audit: Store) -> Estimate:
    """The newest estimate of an audit. Raises InputError when there is none."""
    try:
        return Estimate.model_validate_json(audit.get(ESTIMATE))
    except ObjectMissing as error:
        raise InputError(f"{audit.uri} has no estimate yet; run `fcn audit estimate`") from error
