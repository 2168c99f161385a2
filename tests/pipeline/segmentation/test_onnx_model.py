"""A job takes an imported ONNX graph like any model, from the registry too; and so does what works on its output."""

from pathlib import Path

import numpy as np
import pytest

from fcn_core import LabelSet, Predictor, resolve_settings
from fcn_core.labels import decode_mask
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from pipeline.errors import InputError
from pipeline.insight.compare import compare
from pipeline.insight.rank import rank
from pipeline.jobs.segment import SegmentJob
from pipeline.models.load import load_bundle
from pipeline.models.registry import open_registry
from pipeline.outputs.current import read_current
from pipeline.report.make import make_report
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.onnx_nets import small_onnx, written
from tests.requires import requires
from tests.samples import encode, photo

requires("onnx", install="'fcn-pipeline[onnx]'")
requires("onnxruntime", install="'fcn-pipeline[onnx]'")

LABELS = LabelSet(name="five", names=tuple("abcde"), palette=tuple((40 * index, 0, 0) for index in range(5)))


def test_an_imported_graph_is_published_and_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    segment_in_process(monkeypatch)
    bundle = import_onnx(written(small_onnx(), tmp_path / "net.onnx"), LABELS, IMAGENET).bundle
    registry = str(tmp_path / "registry")
    version = open_registry(registry).publish("theirs", bundle)
    model = f"registry:theirs@{version}"
    assert load_bundle(model, registry).model_id == bundle.model_id
    (tmp_path / "photos").mkdir()
    pixels = [photo(90 + number, 70, number) for number in range(3)]
    for number, each in enumerate(pixels):
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode(Image.fromarray(each), "PNG"))
    output = open_store(str(tmp_path / "labels"))
    job = SegmentJob(
        source=str(tmp_path / "photos"), output=output.uri, model=model, registry=registry, device="cpu",
        engine="onnxruntime", actors=1, cpus_per_actor=1, codec_workers=1, no_report=True,
    )  # fmt: skip
    first = segment(job)
    predictor = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", threads=1, kind="onnx"))
    rows = read_current(output, ["key", "mask_key", "model_id"]).to_pylist()
    assert [row["model_id"] for row in rows] == [bundle.model_id] * 3
    for row, each in zip(sorted(rows, key=lambda row: str(row["key"])), pixels, strict=True):
        assert np.array_equal(decode_mask(output.get(row["mask_key"])), predictor.predict([each])[0].mask)
    with pytest.raises(InputError, match="the model is an imported ONNX graph: --engine is openvino or onnxruntime"):
        segment(job.model_copy(update={"engine": "torch"}))

    other = import_onnx(written(small_onnx(seed=1), tmp_path / "net.onnx"), LABELS, IMAGENET).bundle
    other.save(tmp_path / "other")
    second = segment(job.model_copy(update={"model": str(tmp_path / "other")}))
    found = compare(output, first.runs[0].run_id, second.runs[0].run_id)
    assert (found.same.images, found.same.compared, {each.class_name for each in found.classes}) == (3, 3, {*"abcde"})
    assert found.same.pixels is not None
    assert found.same.pixels < 1
    for by in ("confidence", "rare", "disagreement"):
        ranking = rank(output, by)  # type: ignore[arg-type]
        assert [each.run_id for each in ranking.ranked] == [second.runs[0].run_id] * 3
    page = make_report(output, second.runs[0].run_id)
    assert other.model_id in page
    assert "an ONNX graph" in page
