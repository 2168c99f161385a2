"""Jobs over images in tars and Parquet files: as over loose objects, and webdataset joins image and mask."""

import csv
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import webdataset

from pipeline.cli.app import run as fcn
from pipeline.outputs.current import read_current
from pipeline.outputs.masks import read_mask
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.containers import parquet_of, tar_of, write_webdataset
from tests.in_process import evaluate_in_process, segment_in_process
from tests.labelled import write_labelled
from tests.samples import fill, jpeg

PLAIN = ("--device", "cpu", "--actors", "1", "--cpus-per-actor", "1", "--engine", "torch", "--json")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    segment_in_process(monkeypatch)
    evaluate_in_process(monkeypatch)


def segment(capsys: pytest.CaptureFixture[str], source: Path | str, output: Path | str, model: Path, *more: str) -> Any:
    capsys.readouterr()
    assert fcn(["segment", str(source), str(output), "--model", str(model), *PLAIN, *more]) == 0
    return json.loads(capsys.readouterr().out)


def rows_of(output: Path | str) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_current(open_store(str(output))).to_pylist()}


def test_tars_and_loose_images_give_the_masks_that_loose_images_give(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed, loose = tmp_path / "mixed", tmp_path / "loose"
    images = {f"a/{part}.tar/{name}": data for part in (0, 1) for name, data in
              write_webdataset(mixed / f"a/{part}.tar", 5, start=5 * part).items()}  # fmt: skip
    fill(mixed, 2)
    images |= {path.name: path.read_bytes() for path in mixed.glob("*.jpg")}
    for key, data in images.items():
        (loose / key).parent.mkdir(parents=True, exist_ok=True)
        (loose / key).write_bytes(data)

    foreseen = segment(capsys, mixed, tmp_path / "out", model_dir, "--dry-run")
    assert foreseen["images"] == 12
    summary = segment(capsys, mixed, tmp_path / "out", model_dir)
    assert (summary["images"], summary["ok"]) == (12, 12)
    segment(capsys, loose, tmp_path / "expected", model_dir, "--no-report")
    rows, expected = rows_of(tmp_path / "out"), rows_of(tmp_path / "expected")
    assert rows.keys() == expected.keys() == images.keys()
    for key, row in rows.items():
        for name in ("status", "size", "width", "height", "mask_sha256", "areas", "confidence"):
            assert row[name] == expected[key][name]
    report = next((tmp_path / "out/reports").glob("*/index.html")).read_text()
    assert "image/jpeg" in report, "photos are in it, and not the masks alone"
    assert fcn(["rank", str(tmp_path / "out"), "--top", "3", "--copy-to", str(tmp_path / "project")]) == 0
    copied = [path.read_bytes() for path in (tmp_path / "project").rglob("*.jpg")]
    assert len(copied) == 3
    assert set(copied) <= set(images.values())
    assert fcn(["verify", str(tmp_path / "out")]) == 0


def test_a_job_goes_on_at_member_grain(tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    write_webdataset(photos / "0.tar", 6)
    assert segment(capsys, photos, out, model_dir, "--limit", "4", "--no-report")["images"] == 4
    again = segment(capsys, photos, out, model_dir, "--no-report")
    assert (again["images"], again["already_done"]) == (2, 4)
    write_webdataset(photos / "1.tar", 3)
    assert segment(capsys, photos, out, model_dir, "--no-report")["images"] == 3
    write_webdataset(photos / "1.tar", 4)
    assert segment(capsys, photos, out, model_dir, "--no-report")["images"] == 4, "another container is other images"
    assert len(rows_of(out)) == 10


def test_globs_choose_containers_and_members(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    write_webdataset(photos / "0.tar", 2)
    write_webdataset(photos / "1.TAR", 2)
    fill(photos, 1)

    def chosen(*options: str) -> list[str]:
        output = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        segment(capsys, photos, output, model_dir, "--no-report", *options)
        return sorted(rows_of(output))

    assert chosen("--include", "*.tar") == ["0.tar/000000000.jpg", "0.tar/000000001.jpg"]
    assert chosen("--include", "*.tar/*1.jpg") == ["0.tar/000000001.jpg"]
    assert chosen("--exclude", "0.tar", "--exclude", "*0.jpg") == ["1.TAR/000000001.jpg"]
    assert chosen("--include", "*.jpg") == ["0000.jpg"], "no container is opened for a glob of images"
    (tmp_path / "keys.txt").write_text("1.TAR\n0.tar/000000001.jpg\n")
    listed = ["0.tar/000000001.jpg", "1.TAR/000000000.jpg", "1.TAR/000000001.jpg"]
    assert chosen("--key-list", str(tmp_path / "keys.txt")) == listed


def test_a_damaged_tar_gives_what_can_be_read_and_one_row(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    images = write_webdataset(photos / "0.tar", 3)
    whole = (photos / "0.tar").read_bytes()
    (photos / "0.tar").write_bytes(whole[: whole.index(images["000000002.jpg"]) + 512])
    (photos / "1.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    (photos / "2.tar").write_bytes(tar_of([("empty.jpg", b""), ("../up.jpg", jpeg(32, 32))]))
    summary = segment(capsys, photos, out, model_dir)
    assert summary["errors"] == {"damaged_container": 2, "empty_file": 1}
    rows = rows_of(out)
    assert sorted(key for key, row in rows.items() if row["status"] == "ok") == [
        "0.tar/000000000.jpg", "0.tar/000000001.jpg", "2.tar/../up.jpg",
    ]  # fmt: skip
    assert rows["0.tar"]["message"].startswith("0.tar: the file ends in the middle of a member")
    assert "compressed" in rows["1.tar"]["message"]
    assert not (tmp_path / "up.png").exists()
    assert not list(tmp_path.glob("out/masks/*/up*"))
    assert segment(capsys, photos, out, model_dir)["images"] == 0, "a damaged container is done"


def test_webdataset_joins_images_with_their_packed_masks(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for part in range(2):
        write_webdataset(photos / f"{part}.tar", 4)  # the same names in both
    segment(capsys, photos, out, model_dir, "--masks", "tar", "--no-report")
    masks = {
        sample["__key__"]: sample["png"]
        for path in out.glob("mask_tars/*/*.tar")
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    }
    joined = 0
    for path in photos.glob("*.tar"):
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            key = f"{path.name}/{sample['__key__']}"
            assert masks.pop(key) == read_mask(open_store(str(out)), rows_of(out)[f"{key}.jpg"]["mask_key"])
            joined += 1
    assert (joined, masks) == (8, {})


def test_s3_has_tars_too_and_preview_and_evaluate_take_members(
    tmp_path: Path, model_dir: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_webdataset(tmp_path / "0.tar", 3)
    store = open_store(f"s3://{bucket}/data")
    store.put("0.tar", (tmp_path / "0.tar").read_bytes())
    summary = segment(capsys, f"s3://{bucket}/data", f"s3://{bucket}/out", model_dir, "--masks", "tar")
    assert (summary["images"], summary["ok"]) == (3, 3)
    member = f"s3://{bucket}/data/0.tar/000000001.jpg"
    assert fcn(["preview", member, "--model", str(model_dir), "--output", str(tmp_path / "seen.png")]) == 0
    assert fcn(["preview", member.replace("1.jpg", "9.jpg"), "--model", str(model_dir)]) == 2

    write_labelled(tmp_path / "set", 3)
    with tarfile.open(tmp_path / "pairs.tar", "w") as tar:
        for index in range(3):
            tar.add(tmp_path / f"set/JPEGImages/{index:03d}.jpg", f"{index:03d}.jpg")
            tar.add(tmp_path / f"set/SegmentationClass/{index:03d}.png", f"{index:03d}.png")
    store.put("pairs.tar", (tmp_path / "pairs.tar").read_bytes())
    shutil.rmtree(tmp_path / "set/JPEGImages")
    manifest = tmp_path / "set/pairs.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "mask", "split"])
        for index in range(3):
            rows.writerow([f"s3://{bucket}/data/pairs.tar/{index:03d}.{end}" for end in ("jpg", "png")] + ["val"])
    capsys.readouterr()
    command = ["evaluate", str(model_dir), str(manifest), "--labels", "camvid", "--device", "cpu", "--actors", "1"]
    assert fcn([*command, "--cpus-per-actor", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 3


def test_parquet_files_give_the_masks_that_loose_images_give(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, loose = tmp_path / "photos", tmp_path / "loose"
    photos.mkdir()
    images = [jpeg(96, 72, seed=index) for index in range(6)]
    struct = pa.array([{"bytes": data, "path": f"{index}.jpg"} for index, data in enumerate(images[:4])])
    (photos / "train-00000-of-00001.parquet").write_bytes(parquet_of({"image": struct, "label": [1] * 4}, rows=3))
    table = {"url": ["u", "v", "w"], "key": ["000", "001", "002"], "jpg": [*images[4:], b"broken"]}
    (photos / "00000.parquet").write_bytes(parquet_of(table))
    (photos / "metadata.parquet").write_bytes(parquet_of({"url": ["u"]}))
    keys = [f"train-00000-of-00001.parquet/{index}.jpg" for index in range(4)]
    keys += ["00000.parquet/000", "00000.parquet/001"]
    for key, data in zip(keys, images, strict=True):
        (loose / key).parent.mkdir(parents=True, exist_ok=True)
        (loose / key).write_bytes(data)
    out = tmp_path / "out"
    assert segment(capsys, photos, out, model_dir, "--dry-run")["images"] == 7
    summary = segment(capsys, photos, out, model_dir, "--limit", "5")
    assert segment(capsys, photos, out, model_dir, "--masks", "tar")["already_done"] == 5
    segment(capsys, loose, tmp_path / "expected", model_dir, "--include", "*", "--no-report")
    rows, expected = rows_of(out), rows_of(tmp_path / "expected")
    broken = rows.pop("00000.parquet/002")
    assert (summary["images"], broken["error"], broken["size"]) == (5, "not_an_image", len(b"broken"))
    assert rows.keys() == expected.keys()
    for key, row in rows.items():
        for name in ("status", "size", "mask_sha256", "confidence"):
            assert row[name] == expected[key][name]
    seen = tmp_path / "seen.png"
    assert fcn(["preview", f"{photos}/00000.parquet/001", "--model", str(model_dir), "--output", str(seen)]) == 0


def test_what_was_meant_is_asked_for_and_nothing_is_written(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "x.parquet").write_bytes(parquet_of({"url": ["u"], "picture": [b"x"]}))
    (photos / "y.parquet").write_bytes(parquet_of({"jpg": [b"x"], "png": [b"x"]}))
    told = refused(capsys, "segment", photos / "x.parquet", out, "--model", model_dir)
    assert f"give the folder that it is in, {photos}, and --include 'x.parquet'" in told
    assert "--image-column" in refused(capsys, "segment", photos, out, "--model", model_dir, "--include", "y*")
    (photos / "y.parquet").unlink()
    assert "--image-column" in refused(capsys, "segment", photos, out, "--model", model_dir)
    assert not list(out.glob("runs/*/run.json"))
