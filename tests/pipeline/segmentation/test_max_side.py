"""A working resolution: the model sees smaller images, masks have the images' own size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core import resolve_settings
from fcn_core.labels import decode_mask
from pipeline.actors.placement import Placement
from pipeline.actors.pool_spec import PoolSpec
from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import read_results
from pipeline.outputs.shard import Shard
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec
from pipeline.storage.opening import open_store
from tests.samples import encode, model, photo

BUNDLE = model()
SETTINGS = resolve_settings(device="cpu", precision="float32", threads=1, batch_size=2, engine="torch")


def label(source: Path, output: Path, max_side: int | None) -> dict[str, dict]:
    """The rows of a labelling of everything in `source`, by key."""
    output.mkdir()
    spec = SegmenterSpec(
        source=str(source), output=str(output), run_id="run", recipe=Recipe(BUNDLE.model_id, "params"),
        settings=SETTINGS, max_pixels=1_000_000, codec_workers=1, image_timeout=30.0, image_memory=1 << 30,
    )  # fmt: skip
    worker = Segmenter(replace(spec, max_side=max_side), BUNDLE.to_files())
    try:
        worker.process(Shard(0, tuple(open_store(str(source)).list())))
    finally:
        worker.close()
    return {row["key"]: row for table in read_results(open_store(str(output)), "run") for row in table.to_pylist()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Odd sizes, one picture lying each way, one that is not large."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = Image.fromarray(photo(201 + 10 * orientation, 155, seed=orientation))
        (folder / f"way{orientation}.jpg").write_bytes(encode(pixels, "JPEG", exif=exif))
    (folder / "tall.png").write_bytes(encode(Image.fromarray(photo(97, 331)), "PNG"))
    (folder / "small.jpg").write_bytes(encode(Image.fromarray(photo(93, 71)), "JPEG"))
    return folder


def test_masks_have_the_images_size_and_small_images_are_untouched(source: Path, tmp_path: Path) -> None:
    whole, reduced = label(source, tmp_path / "whole", None), label(source, tmp_path / "reduced", 96)
    assert len(reduced) == 10
    for key, row in reduced.items():
        assert row["status"] == "ok", row["message"]
        mask = decode_mask((tmp_path / "reduced" / row["mask_key"]).read_bytes())
        assert mask.shape == (row["height"], row["width"])
        for name in ("width", "height", "orientation"):
            assert row[name] == whole[key][name]
        counts = np.bincount(mask.ravel())
        assert {area["class_id"]: area["pixels"] for area in row["areas"]} == {
            int(index): int(counts[index]) for index in np.flatnonzero(counts)
        }
    assert reduced["small.jpg"] == whole["small.jpg"]
    assert reduced["tall.png"]["mask_sha256"] != whole["tall.png"]["mask_sha256"]


def test_a_working_resolution_is_identity_and_none_is_as_before() -> None:
    placement = Placement(SETTINGS, PoolSpec(1, 1), 1)
    assert placement.recipe("m") == placement.recipe("m", None)
    assert len({placement.recipe("m", side).params_id for side in (None, 512, 1024)}) == 3
