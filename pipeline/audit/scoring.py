"""Annotated images held against the masks that are audited, pixel by pixel."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fcn_core.errors import LabelError
from fcn_core.labels import Mask, decode_mask
from pipeline.audit.annotations import AnnotatedMask, Annotations
from pipeline.audit.arrays import Array
from pipeline.audit.files import AuditRecord, Wave
from pipeline.audit.results import NotUsed
from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.numbers import percent
from pipeline.outputs.masks import read_mask
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store

READS_AT_ONCE = 8


@dataclass(frozen=True)
class Scored:
    """One annotated image: its pixels that have no class in the annotation, and the confusion [classes, classes] of the
    others, rows true and columns predicted."""

    void: int
    confusion: Array


def read_scores(
    record: AuditRecord,
    output: Store,
    waves: Sequence[tuple[Wave, pa.Table]],
    found: Annotations,
    most_void: float,
) -> tuple[dict[str, Scored], list[NotUsed]]:
    """What can be scored by key, and why the rest cannot."""
    scored: dict[str, Scored] = {}
    not_used: list[NotUsed] = []

    def read(row: Mapping[str, object]) -> Scored | str:
        if row["left_out"] is not None:
            return f"it was drawn, and there was no task for it: {row['left_out']}"
        mask = found.masks.get(str(row["key"]))
        if mask is None:
            return "it was drawn and is not annotated"
        return _score(record, output, row, mask, most_void)

    columns = ["key", "left_out", "width", "height", "mask_key", "mask_sha256"]
    rows = [row for _, sample in waves for row in sample.select(columns).to_pylist()]
    outcomes = in_parallel(read, rows, threads=READS_AT_ONCE, name="audit")
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, str):
            not_used.append(NotUsed(key=row["key"], reason=outcome))
        else:
            scored[row["key"]] = outcome
    return scored, not_used


def _score(
    record: AuditRecord, output: Store, row: Mapping[str, object], annotated: AnnotatedMask, most_void: float
) -> Scored | str:
    labels, width, height = record.labels, int(str(row["width"])), int(str(row["height"]))
    try:
        truth = annotated.read(width, height)
    except LabelError as error:
        return f"its annotation cannot be used: {error}"
    try:
        png = read_mask(output, str(row["mask_key"]))
    except ObjectMissing as error:
        raise InputError(
            f"the mask that was audited is gone: {error}; an estimate needs the masks of the images drawn"
        ) from error
    if hashlib.sha256(png).hexdigest() != row["mask_sha256"]:
        raise StorageError(f"{row['mask_key']} is not the mask that was committed; see `fcn verify`")
    void = int((truth == labels.ignore_index).sum())
    if void > most_void * truth.size:
        return f"it is annotated only partly: {percent(void / truth.size)} of its pixels are void"
    return Scored(void, confusion(truth, decode_mask(png), labels.num_classes))


def confusion(truth: Mask, model: Mask, classes: int) -> Array:
    """Pixels by true and predicted class, float64 [classes, classes]; those that are void do not count."""
    labelled = truth < classes
    pairs = truth[labelled].astype(np.int64) * classes + model[labelled]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.float64)
