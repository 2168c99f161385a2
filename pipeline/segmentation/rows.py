"""An image's row of results, once its mask is there."""

import hashlib
from typing import Any

from fcn_core import LabelSet, Segmentation
from pipeline.codec.taken_at import TakenAt
from pipeline.outputs.areas import class_areas
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.base import PredictedMask
from pipeline.outputs.results import ResultRow
from pipeline.storage.store import ObjectInfo


def segmented(
    entry: ObjectInfo,
    recipe: Recipe,
    orientation: int,
    taken: TakenAt | None,
    result: Segmentation,
    png: bytes,
    labels: LabelSet,
) -> PredictedMask:
    """The row of an image that was segmented: `png` holds the mask of `result`."""
    height, width = result.mask.shape
    row = ResultRow(
        **identity_columns(entry, recipe),
        status="ok",
        width=width,
        height=height,
        orientation=orientation,
        mask_sha256=hashlib.sha256(png).hexdigest(),
        areas=class_areas(result.areas, labels, result.void),
        confidence=result.confidence,
        taken_at=taken.time if taken else None,
        taken_at_offset=taken.offset if taken else None,
    )
    return PredictedMask(row, png)


def identity_columns(entry: ObjectInfo, recipe: Recipe) -> dict[str, Any]:
    """What a row says of an image before any work."""
    return {
        "key": entry.key,
        "etag": entry.etag,
        "size": entry.size,
        "last_modified": entry.last_modified,
        "model_id": recipe.model_id,
        "params_id": recipe.params_id,
    }
