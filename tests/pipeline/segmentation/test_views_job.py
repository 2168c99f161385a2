"""A job with --flip and --scales: a variant of its own, whose masks are the Predictor's with these views."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core import Predictor, resolve_settings
from fcn_core.labels import decode_mask
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.report.rerun import segment_command
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.samples import fill

FIXED = {"device": "cpu", "precision": "float32", "actors": 1, "cpus_per_actor": 1, "engine": "torch", "batch_size": 2}


@pytest.mark.parametrize("max_side", [None, 64])
def test_masks_are_the_predictors_of_all_views(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_side: int | None
) -> None:
    fill(tmp_path / "photos", 3)
    places = {"source": str(tmp_path / "photos"), "output": str(tmp_path / "labels"), "model": str(model_dir)}
    plain = SegmentJob.model_validate({**places, **FIXED, "max_side": max_side, "no_report": True})
    job = plain.model_copy(update={"flip": True, "scales": (0.5, 1.0)})
    segment_in_process(monkeypatch)
    (first,), (run,) = segment(plain).runs, segment(job).runs
    assert first.recipe != run.recipe
    assert run.counts.ok == 3, "every image is segmented anew"

    settings = resolve_settings("cpu", "float32", threads=1, engine="torch", flip=True, scales=(0.5, 1.0))
    predictor, output = Predictor(model_dir, settings), open_store(job.output)
    for row in read_current(output, variant=run.recipe).to_pylist():
        with Image.open(tmp_path / "photos" / row["key"]) as image:
            size = image.size
            if max_side is not None:
                image.thumbnail((max_side, max_side), Image.Resampling.BOX)
            expected = predictor.predict([np.asarray(image)], sizes=[size[::-1]])[0].mask
        mask = decode_mask(output.get(row["mask_key"]))
        assert mask.shape == expected.shape
        # Shrunk by the pipeline and by Pillow they are nearly, and not quite, one picture.
        assert (mask == expected).mean() > (0.9 if max_side else 0.999)


def test_the_command_that_would_run_it_again_has_the_views() -> None:
    job = SegmentJob.model_validate({"source": "/a", "output": "/b", "model": "/m", "flip": True, "scales": [1, 1.5]})
    command = " ".join(segment_command(job.model_dump(mode="json")))
    assert "--flip" in command
    assert "--scales 1.0 --scales 1.5" in command
