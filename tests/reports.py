"""Outputs of labelling runs as a run leaves them, made without one: quick, and with whatever keys and masks a test
wants.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet, PredictorSettings
from fcn_core.labels import VOID, encode_mask
from pipeline.models.origin import ModelOrigin
from pipeline.outputs.areas import class_areas, count_areas
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.results import ResultRow, commit_shard, finish_tables
from pipeline.outputs.runs import Counts, RunRecord, write_record
from pipeline.storage.store import Store

SETTINGS = PredictorSettings(
    device="cpu", precision="float32", batch_size=1, tile_pixels=4_194_304, threads=2, deterministic=False
)

Outcome = npt.NDArray[np.uint8] | tuple[str, str]
"""A mask, or the reason and message of an error."""


def labelled_run(
    output: Store,
    source: Store,
    outcomes: Mapping[str, Outcome],
    labels: LabelSet,
    *,
    run_id: str = "20261122T101500Z-ab12",
    model_id: str = "0123456789abcdef",
    params_id: str = "fedcba9876543210",
    model: str = "model",
    shard_size: int = 4,
    job: Mapping[str, Any] | None = None,
    confidence: float | None = None,
) -> RunRecord:
    """Write masks, results, tables and record of a finished run over the keys of `outcomes`; `source` may hold them."""
    recipe = Recipe(model_id, params_id)
    infos = {info.key: info for info in source.list()}
    rows = []
    for index, (key, outcome) in enumerate(outcomes.items()):
        info = infos.get(key)
        identity: dict[str, Any] = {
            "key": key,
            "etag": info.etag if info else f"etag{index}",
            "size": info.size if info else 1000,
            "last_modified": info.last_modified if info else datetime(2026, 11, 1, tzinfo=UTC),
            "model_id": model_id,
            "params_id": params_id,
        }
        if isinstance(outcome, tuple):
            rows.append(ResultRow(**identity, status="error", error=outcome[0], message=outcome[1]))
            continue
        png = encode_mask(outcome, labels)
        place = mask_key(recipe, key, identity["etag"])
        output.put(place, png)
        rows.append(
            ResultRow(
                **identity,
                status="ok",
                width=outcome.shape[1],
                height=outcome.shape[0],
                orientation=1,
                mask_key=place,
                mask_sha256=hashlib.sha256(png).hexdigest(),
                areas=class_areas(count_areas(outcome, labels), labels, int((outcome == VOID).sum())),
                confidence=confidence or 0.5 + 0.5 * ((index * 7919) % 101) / 101,
            )
        )
    started = datetime.now(UTC)
    for number, first in enumerate(range(0, len(rows), shard_size)):
        commit_shard(output, run_id, number, rows[first : first + shard_size])
    totals = finish_tables(output, run_id, labels.names, model_id, params_id)
    record = RunRecord(
        run_id=run_id,
        state="finished",
        job={"source": source.uri, "output": output.uri, "model": model, **(job or {})},
        job_digest="0" * 16,
        model=ModelOrigin(asked=model, uri=model, model_id=model_id),
        model_id=model_id,
        params_id=params_id,
        recipe=recipe.name,
        settings=SETTINGS,
        images=len(rows),
        shards=-(-len(rows) // shard_size),
        started=started,
        finished=datetime.now(UTC),
        counts=Counts(images=len(rows), ok=totals.ok, errors=totals.errors),
        seconds=max(0.01, (datetime.now(UTC) - started).total_seconds()),
        version="0.2.0",
    )
    write_record(output, record)
    return record
