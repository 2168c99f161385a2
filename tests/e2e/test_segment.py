"""The main job as its user runs it, on a bucket and on a folder: once, again, changed, and with another model."""

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fcn_core import preset
from pipeline.cli.app import run as fcn
from pipeline.outputs.current import read_current
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.in_process import segment_in_process
from tests.samples import encode, fill, jpeg, model

pytestmark = pytest.mark.usefixtures("ray_cluster")


def label(
    source: str, output: str, bundle: Path, capsys: pytest.CaptureFixture[str], *more: str, actors: int = 1
) -> dict[str, Any]:
    """Run `fcn segment --json` and return its JSON, with the exit code and what it said besides."""
    capsys.readouterr()
    options = ["--model", str(bundle), "--actors", str(actors), "--cpus-per-actor", "1", "--device", "cpu", "--json"]
    code = fcn(["segment", source, output, *options, *more])
    captured = capsys.readouterr()
    return json.loads(captured.out) | {"code": code, "said": captured.err}


def recount(store: Store) -> None:
    """Check masks, results and both derived tables against each other, from the files alone."""
    palette = preset("camvid").flat_palette()
    classes = preset("camvid").names
    totals: dict[str, list[int]] = {}
    long: dict[tuple[str, str, str], int] = {}
    for info in store.list("results/"):
        run_id = info.key.split("run_id=")[1].split("/")[0]
        areas = pq.read_table(io.BytesIO(store.get(info.key.replace("results/", "class_areas/", 1))))
        long |= {(run_id, row["key"], row["class_name"]): row["pixels"] for row in areas.to_pylist()}
        for row in pq.read_table(io.BytesIO(store.get(info.key))).to_pylist():
            if row["status"] != "ok":
                continue
            image = Image.open(io.BytesIO(store.get(row["mask_key"])))
            assert image.mode == "P"
            assert bytes(image.getpalette() or ()) == palette
            assert image.size == (row["width"], row["height"])
            counts = np.bincount(np.asarray(image).ravel(), minlength=len(classes))
            assert counts.sum() == row["width"] * row["height"]
            expected = {classes[index]: int(counts[index]) for index in np.flatnonzero(counts)}
            assert {area["class_name"]: area["pixels"] for area in row["areas"]} == expected
            for name, pixels in expected.items():
                assert long.pop((run_id, row["key"], name)) == pixels
                total = totals.setdefault(run_id, [0] * len(classes))
                total[classes.index(name)] += pixels
    assert long == {}, "class_areas has rows that no mask explains"
    for run_id, total in totals.items():
        table = pq.read_table(io.BytesIO(store.get(f"class_totals/run_id={run_id}.parquet")))
        assert table.column("pixels").to_pylist() == total


def test_a_bucket_is_labelled_once_and_then_only_what_is_new_or_changed(
    bucket: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = f"s3://{bucket}/photos", f"s3://{bucket}/labels"
    photos, labels = open_store(source), open_store(output)

    def upload(*numbers: int) -> None:
        for number in numbers:
            photos.put(f"cam/{number:03d}.jpg", jpeg(90 + number % 3, 70, seed=number))

    upload(*range(8))
    first = label(source, output, model_dir, capsys, "--shard-size", "3", actors=2)
    assert (first["code"], first["images"], first["ok"], first["errors"]) == (0, 8, 8, {})
    recount(labels)
    before = {info.key: labels.get(info.key) for info in labels.list("masks/")}
    assert len(before) == 8

    segment_in_process(monkeypatch)  # which images are left is not up to the actors
    again = label(source, output, model_dir, capsys)
    assert (again["code"], again["images"], again["already_done"], again["runs"]) == (0, 0, 8, [])

    photos.put("cam/004.jpg", jpeg(64, 64, seed=99))
    upload(8, 9)
    third = label(source, output, model_dir, capsys)
    assert (third["code"], third["images"], third["already_done"]) == (0, 3, 7)
    assert {key: labels.get(key) for key in before} == before, "masks of the old photo stay as they were"

    other = tmp_path / "other-model"
    model(seed=1).save(other)
    fourth = label(source, output, other, capsys)
    assert (fourth["code"], fourth["images"]) == (0, 10)
    assert {key: labels.get(key) for key in before} == before
    recount(labels)
    assert len(read_current(labels)) == 10, "the newest model's"
    current = read_current(labels, variant="all")
    assert len(current) == 20, "one row per key and model"
    assert len({(row["key"], row["model_id"]) for row in current.to_pylist()}) == 20


def test_images_of_every_size_and_kind_come_out_right(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment_in_process(monkeypatch)
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    sizes = {"dot": (1, 1), "line": (500, 1), "column": (1, 500), "odd": (31, 33), "tiled": (2500, 1800)}
    for name, size in sizes.items():
        (source / f"{name}.jpg").write_bytes(jpeg(*size))
    turned = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    (source / "turned.jpg").write_bytes(encode(turned, "JPEG", exif=exif))
    rgb = Image.open(io.BytesIO(jpeg(60, 40)))
    for name, image, format in [
        ("gray.png", rgb.convert("L"), "PNG"),
        ("alpha.png", rgb.convert("RGBA"), "PNG"),
        ("cmyk.jpg", rgb.convert("CMYK"), "JPEG"),
        ("palette.gif", rgb.convert("P"), "GIF"),
        ("deep.png", Image.fromarray(np.full((40, 60), 40_000, np.uint16)), "PNG"),
        ("one-bit.tif", rgb.convert("1"), "TIFF"),
    ]:
        (source / name).write_bytes(encode(image, format))
    (source / "moving.gif").write_bytes(
        encode(rgb.convert("P"), "GIF", save_all=True, append_images=[rgb.rotate(90).convert("P")])
    )
    (source / "notes.jpg").write_bytes(b"these are only words")
    (source / "empty.png").write_bytes(b"")
    (source / "ends-early.jpg").write_bytes(jpeg(60, 40)[:-200])
    (source / "readme.txt").write_bytes(b"left out by name")

    report = label(str(source), str(output), model_dir, capsys)
    assert report["code"] == 0
    assert report["left_out"] == 1
    (page,) = (output / "reports").glob("*/index.html")
    assert f"report: {page}" in report["said"]
    assert report["ok"] == len(sizes) + 8
    assert sum(report["errors"].values()) == 3
    recount(open_store(str(output)))
    rows = {row["key"]: row for row in read_current(open_store(str(output))).to_pylist()}
    for name, (width, height) in sizes.items():
        assert (rows[f"{name}.jpg"]["width"], rows[f"{name}.jpg"]["height"]) == (width, height)
    assert (rows["turned.jpg"]["width"], rows["turned.jpg"]["height"]) == (40, 60), "as displayed, not as stored"
    assert rows["turned.jpg"]["orientation"] == 6
    for key in ("notes.jpg", "empty.png", "ends-early.jpg"):
        assert rows[key]["error"]
        assert len(rows[key]["message"]) > 10


def test_a_folder_with_an_error_fails_the_gate_and_is_done_again_only_where_it_changed_or_when_asked(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment_in_process(monkeypatch)
    source, output = tmp_path / "photos", tmp_path / "labels"
    fill(source, 3)
    (source / "bad.jpg").write_bytes(b"no")
    strict = label(str(source), str(output), model_dir, capsys, "--max-error-rate", "0.2")
    assert (strict["code"], strict["ok"], strict["state"]) == (3, 3, "finished"), "the rest is done all the same"
    assert label(str(source), str(output), model_dir, capsys)["images"] == 0

    time.sleep(0.01)  # a local etag is made of the modification time
    (source / "0001.jpg").write_bytes(jpeg(64, 64, seed=99))
    retried = label(str(source), str(output), model_dir, capsys, "--retry-errors", "--max-error-rate", "0.5")
    assert (retried["code"], retried["images"], retried["ok"]) == (0, 2, 1), "the error and the changed photo"


def test_fractional_gpus_without_a_gpu_fall_back_to_the_cpu_and_say_so(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    fill(source, 1)
    code = fcn(
        ["segment", str(source), str(tmp_path / "labels"), "--model", str(model_dir), "--gpus-per-actor", "0.5",
         "--cpus-per-actor", "1"]
    )  # fmt: skip
    captured = capsys.readouterr().err
    assert code == 0
    assert "each actor holds 0.5 GPU of Ray's, but PyTorch sees no CUDA device there" in captured
    assert "4 actor(s) of 1 CPU and 0.5 GPU" in captured


def test_a_cuda_that_is_not_there_is_bad_input(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "photos", 1)
    code = fcn(
        [
            "segment",
            str(tmp_path / "photos"),
            str(tmp_path / "labels"),
            "--model",
            str(model_dir),
            "--device",
            "cuda",
        ]
    )
    assert code == 2
    assert "PyTorch sees no CUDA device" in capsys.readouterr().err
