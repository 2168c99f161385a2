"""Outputs with masks of a test's choice, and the images that they are of, as a run would have left them."""

import hashlib
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_core import LabelSet, PredictorSettings
from fcn_core.labels import VOID, Mask, encode_mask
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.results import ClassArea, ResultRow, commit_shard, finish_tables
from pipeline.outputs.runs import RunRecord, write_record
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.samples import photo

LABELS = LabelSet(
    name="hostile",
    names=("sky", 'road "A", #1: {x}', "water, 水"),
    palette=((0, 0, 0), (200, 30, 40), (200, 30, 40)),
)
RECIPE = Recipe("m" * 16, "p" * 16)
SETTINGS = PredictorSettings(
    device="cpu", precision="float32", batch_size=1, tile_pixels=1 << 20, threads=1, deterministic=False
)
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def write_run(
    output: Store,
    masks: Mapping[str, Mask],
    *,
    source: Path | None = None,
    run_id: str = "20260101T000000Z-0001",
    finished: bool = True,
) -> None:
    """A run that has segmented these images, the confidence of each 0.1 more than of the one before. With a `source`,
    they are written there, in the size of their masks."""
    rows = []
    for number, (key, mask) in enumerate(masks.items()):
        etag, size = f"etag of {hashlib.sha256(mask.tobytes()).hexdigest()}", 1
        if source is not None:
            sink = io.BytesIO()
            Image.fromarray(photo(mask.shape[1], mask.shape[0], number)).save(sink, "PNG")
            open_store(str(source)).put(key, sink.getvalue())
            info = open_store(str(source)).head(key)
            etag, size = info.etag, info.size
        png = encode_mask(mask, LABELS)
        place = mask_key(RECIPE, key, etag)
        output.put(place, png)
        counts = np.bincount(mask.reshape(-1), minlength=256)
        areas = tuple(
            ClassArea(int(index), "void" if index == VOID else LABELS.names[index], int(counts[index]), 0.5)
            for index in np.flatnonzero(counts)
        )
        rows.append(
            ResultRow(
                key, etag, size, WHEN, "ok", RECIPE.model_id, RECIPE.params_id, width=mask.shape[1],
                height=mask.shape[0], orientation=1, mask_key=place, mask_sha256=hashlib.sha256(png).hexdigest(),
                areas=areas, confidence=0.1 * (number + 1),
            )
        )  # fmt: skip
    commit_shard(output, run_id, 0, rows)
    if finished:
        finish_tables(output, run_id, LABELS.names, RECIPE.model_id, RECIPE.params_id)
    record = RunRecord(
        run_id=run_id, state="finished" if finished else "interrupted", job={"source": str(source or "nowhere")},
        job_digest="d", model_id=RECIPE.model_id, params_id=RECIPE.params_id, recipe=RECIPE.name, settings=SETTINGS,
        images=len(rows), shards=1, started=WHEN, version="0",
    )  # fmt: skip
    write_record(output, record)


def files_under(folder: Path) -> dict[str, bytes]:
    """All files but those that the export keeps for itself."""
    return {
        name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith("_fcn_export/")
    }
