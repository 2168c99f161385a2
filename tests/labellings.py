"""Outputs made by hand: real files in the real formats, with masks as the test wants them and no model."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet, PredictorSettings, preset
from fcn_core.labels import VOID, encode_mask
from pipeline.outputs.areas import class_areas, count_areas
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.results import ResultRow, commit_shard, finish_tables
from pipeline.outputs.runs import Counts, RunRecord, write_record
from pipeline.storage.store import Store

CAMVID = preset("camvid")
SKY, BUILDING, ROAD, CAR, CYCLIST = (CAMVID.names.index(name) for name in ("sky", "building", "road", "car", "cyclist"))
RECIPE = Recipe("1111111111111111", "2222222222222222")
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SETTINGS = PredictorSettings(
    device="cpu", precision="float32", batch_size=1, tile_pixels=1 << 22, threads=1, deterministic=False
)

Mask = npt.NDArray[np.uint8]


def striped(*classes: int, height: int = 8, width: int = 10) -> Mask:
    """A mask of equal columns of `classes`, uint8 [height, width]."""
    columns = np.array(classes, np.uint8)[np.arange(width) * len(classes) // width]
    return np.tile(columns, (height, 1))


def rows_of(
    store: Store,
    masks: Mapping[str, Mask | str],
    recipe: Recipe = RECIPE,
    *,
    labels: LabelSet = CAMVID,
    confidence: Mapping[str, float] | None = None,
    etags: Mapping[str, str] | None = None,
    when: Mapping[str, datetime] | None = None,
) -> list[ResultRow]:
    """The rows of `masks`, which are written to `store`; where the value is a reason instead of a mask, an error."""
    rows = []
    for key, mask in masks.items():
        etag = (etags or {}).get(key, "e")
        common = (key, etag, 1000, (when or {}).get(key, WHEN))
        if isinstance(mask, str):
            rows.append(ResultRow(*common, "error", *_ids(recipe), error=mask, message=f"the file is {mask}"))
            continue
        png = encode_mask(mask, labels)
        place = mask_key(recipe, key, etag)
        store.put(place, png)
        areas = class_areas(count_areas(mask, labels), labels, int((mask == VOID).sum()))
        rows.append(
            ResultRow(
                *common, "ok", *_ids(recipe), width=mask.shape[1], height=mask.shape[0], orientation=1,
                mask_key=place, mask_sha256=hashlib.sha256(png).hexdigest(), areas=areas,
                confidence=(confidence or {}).get(key, 0.5),
            )
        )  # fmt: skip
    return rows


def write_run(
    store: Store,
    run_id: str,
    masks: Mapping[str, Mask | str],
    *,
    model: str = "1111111111111111",
    params: str = "2222222222222222",
    labels: LabelSet = CAMVID,
    confidence: Mapping[str, float] | None = None,
    etags: Mapping[str, str] | None = None,
    when: Mapping[str, datetime] | None = None,
    source: str = "/nowhere",
    shard_size: int = 4,
) -> str:
    """A finished run over the keys of `masks`; where the value is a reason instead of a mask, the row is an error.

    Returns the recipe's name. Confidence is 0.5, and the etag is "e", where they are not given.
    """
    recipe = Recipe(model, params)
    rows = rows_of(store, masks, recipe, labels=labels, confidence=confidence, etags=etags, when=when)
    shards = [rows[start : start + shard_size] for start in range(0, len(rows), shard_size)]
    for number, shard in enumerate(shards):
        commit_shard(store, run_id, number, shard)
    totals = finish_tables(store, run_id, labels.names, *_ids(recipe))
    record = RunRecord(
        run_id=run_id, state="finished", job={"source": source, "output": store.uri, "model": "m"}, job_digest="0",
        model_id=recipe.model_id, params_id=recipe.params_id, recipe=recipe.name, settings=SETTINGS, images=len(rows),
        shards=len(shards), started=WHEN, finished=WHEN, seconds=1.0, version="0",
        counts=Counts(images=len(rows), ok=totals.ok, errors=totals.errors),
    )  # fmt: skip
    write_record(store, record)
    return recipe.name


def _ids(recipe: Recipe) -> tuple[str, str]:
    return recipe.model_id, recipe.params_id
