"""The main job as its user runs it, on a bucket and on a folder: once, again, changed, and with another model."""

import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from PIL import Image

from fcn_core import preset
from pipeline.cli.app import run as fcn
from pipeline.errors import PipelineError
from pipeline.outputs import lease as leases
from pipeline.outputs.results import read_current
from pipeline.outputs.runs import Progress, records
from pipeline.segmentation.job import segment as run_job
from pipeline.segmentation.observer import Observer
from pipeline.segmentation.options import SegmentJob
from pipeline.storage.store import Store, open_store
from tests.processes import ours
from tests.samples import encode, fill, jpeg, model

pytestmark = pytest.mark.usefixtures("ray_cluster")


def label(source: str, output: str, bundle: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """Run `fcn segment --json` and return its JSON, with the exit code."""
    capsys.readouterr()
    options = ["--model", str(bundle), "--cpus-per-actor", "1", "--actors", "2", "--json", "--device", "cpu"]
    code = fcn(["segment", source, output, *options, *more])
    return json.loads(capsys.readouterr().out) | {"code": code}


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


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes URIs of source and output, in a folder and on a real S3 server."""
    if request.param == "folder":
        return lambda name: str(tmp_path / name)
    bucket = request.getfixturevalue("bucket")
    return lambda name: f"s3://{bucket}/{name}"


def upload(store: Store, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        store.put(f"cam/{index:03d}.jpg", jpeg(90 + index % 3, 70, seed=index))


def test_a_bucket_is_labelled_once_and_then_only_what_is_new_or_changed(
    place: Callable[[str], str], model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = place("photos"), place("labels")
    photos, labels = open_store(source), open_store(output)
    upload(photos, 20)
    first = label(source, output, model_dir, capsys, "--shard-size", "6")
    assert (first["code"], first["images"], first["ok"], first["errors"]) == (0, 20, 20, {})
    recount(labels)
    before = {info.key: labels.get(info.key) for info in labels.list("masks/")}
    assert len(before) == 20

    again = label(source, output, model_dir, capsys)
    assert (again["code"], again["images"], again["already_done"], again["runs"]) == (0, 0, 20, [])

    time.sleep(0.01)  # a local etag is made of the modification time
    photos.put("cam/004.jpg", jpeg(64, 64, seed=99))
    upload(photos, 2, start=20)
    third = label(source, output, model_dir, capsys)
    assert (third["code"], third["images"], third["already_done"]) == (0, 3, 19)
    assert {key: labels.get(key) for key in before} == before, "masks of the old photo stay as they were"

    other = tmp_path / "other-model"
    model(seed=1).save(other)
    fourth = label(source, output, other, capsys)
    assert (fourth["code"], fourth["images"]) == (0, 22)
    assert {key: labels.get(key) for key in before} == before
    recount(labels)
    current = read_current(labels)
    assert len(current) == 44, "one row a key and recipe"
    assert len({(row["key"], row["model_id"]) for row in current.to_pylist()}) == 44


def test_images_of_every_size_and_kind_come_out_right(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    sizes = {"dot": (1, 1), "line": (500, 1), "column": (1, 500), "odd": (31, 33), "large": (4000, 3000)}
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


def test_too_many_errors_is_exit_code_3_with_everything_else_done(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    fill(source, 3)
    (source / "bad.jpg").write_bytes(b"no")
    report = label(str(source), str(tmp_path / "labels"), model_dir, capsys, "--max-error-rate", "0.2")
    assert (report["code"], report["ok"], report["state"]) == (3, 3, "finished")
    report = label(str(source), str(tmp_path / "labels2"), model_dir, capsys, "--max-error-rate", "0.25")
    assert report["code"] == 0


def test_errors_are_redone_when_asked(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    fill(source, 3)
    (source / "bad.jpg").write_bytes(b"no")
    label(str(source), str(output), model_dir, capsys)
    assert label(str(source), str(output), model_dir, capsys)["images"] == 0
    assert label(str(source), str(output), model_dir, capsys, "--retry-errors")["images"] == 1


def test_one_explicit_option_does_not_change_what_was_settled_before(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    fill(source, 4)
    label(str(source), str(output), model_dir, capsys)
    assert label(str(source), str(output), model_dir, capsys, "--batch-size", "3", "--limit", "1")["images"] == 1
    assert label(str(source), str(output), model_dir, capsys)["images"] == 0


def test_other_settings_label_anew_and_say_so(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    fill(source, 2)
    options = [
        "segment",
        str(source),
        str(output),
        "--model",
        str(model_dir),
        "--device",
        "cpu",
        "--cpus-per-actor",
        "1",
    ]
    assert fcn([*options, "--precision", "float32", "--batch-size", "1"]) == 0
    capsys.readouterr()
    assert fcn([*options, "--precision", "float32", "--batch-size", "2"]) == 0
    assert "every image is labelled anew" in capsys.readouterr().err
    assert len(list(open_store(str(output)).list("masks/"))) == 4


def test_a_limit_holds_over_a_stop_and_its_resumption(model_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    fill(source, 30)
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=3, actors=1,
        cpus_per_actor=1, device="cpu", limit=12,
    )  # fmt: skip
    stop: list[bool] = []

    class StopsSoon(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            stop.append(True)

    assert run_job(job, StopsSoon(), lambda: bool(stop)).state == "interrupted"
    assert run_job(job).state == "finished"
    assert len(list(open_store(job.output).list("masks/"))) == 12
    assert run_job(job).counts.images == 12, "the next call takes the next twelve"


def test_a_stopped_retry_is_not_retried_twice(model_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for index in range(9):
        (source / f"{index}.jpg").write_bytes(b"not an image")
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=3, actors=1,
        cpus_per_actor=1, device="cpu",
    )  # fmt: skip
    run_job(job)
    again = job.model_copy(update={"retry_errors": True})
    stop: list[bool] = []

    class StopsSoon(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            stop.append(True)

    run_job(again, StopsSoon(), lambda: bool(stop))
    report = run_job(again)
    assert len(report.runs) <= 1
    assert report.counts.images in (0, 9), "nine were there to be retried, and not twice"


def test_a_superseded_driver_stops_with_a_reason_and_leaves_the_run_to_its_successor(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_SECONDS", 0.1)
    source = tmp_path / "photos"
    fill(source, 60, size=(320, 240))
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=2, actors=1,
        cpus_per_actor=1, device="cpu",
    )  # fmt: skip
    successor: list[leases.Lease] = []

    class TakesOver(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            if not successor:
                successor.append(leases.Lease.acquire(open_store(job.output), takeover=True))

    with pytest.raises(PipelineError, match="another run took over"):
        run_job(job, TakesOver())
    (record,) = list(records(open_store(job.output)))
    assert record.state == "running", "the record is the successor's to close"
    successor[0].release()
    assert run_job(job).counts.ok == 60


class KillsAnActor(Observer):
    """SIGKILLs the first actor process it learns of, once, when a shard has been committed."""

    def __init__(self) -> None:
        self.killed: int | None = None
        self.restarts = 0

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        if self.killed is None:
            for pid in ours("ray::_ShardWorker"):
                os.kill(pid, signal.SIGKILL)
                self.killed = pid
                return

    def progress(self, progress: Progress) -> None:
        self.restarts = progress.restarts


def files_of(folder: Path) -> dict[str, bytes]:
    """Masks and results by name, without the run id."""
    kept = [
        path for part in ("masks", "results", "class_areas") for path in (folder / part).rglob("*") if path.is_file()
    ]
    return {str(path.relative_to(folder)).split("run_id=")[-1].split("/", 1)[-1]: path.read_bytes() for path in kept}


def test_an_actor_killed_in_mid_run_changes_nothing(model_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    fill(source, 60)
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "calm"), model=str(model_dir), shard_size=4, actors=2,
        cpus_per_actor=1, device="cpu",
    )  # fmt: skip
    run_job(job)
    killer = KillsAnActor()
    report = run_job(job.model_copy(update={"output": str(tmp_path / "stormy")}), killer)
    assert killer.killed is not None
    assert killer.restarts >= 1
    assert report.counts.ok == 60
    assert files_of(tmp_path / "stormy") == files_of(tmp_path / "calm")


def test_a_stopped_run_is_continued_by_the_same_call(model_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    fill(source, 40)
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=4, actors=1,
        cpus_per_actor=1, device="cpu",
    )  # fmt: skip
    stop: list[bool] = []

    class StopsSoon(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            stop.append(True)

    stopped = run_job(job, StopsSoon(), lambda: bool(stop))
    assert stopped.state == "interrupted"
    (record,) = list(records(open_store(job.output)))
    assert record.state == "interrupted"
    fill(source, 3, start=40)
    resumed = run_job(job)
    assert resumed.state == "finished"
    assert resumed.runs[0].run_id == record.run_id
    assert [run.counts.images for run in resumed.runs] == [40, 3]
    masks = list(open_store(job.output).list("masks/"))
    assert len(masks) == 43

    calm = job.model_copy(update={"output": str(tmp_path / "calm")})
    for key in ("0040.jpg", "0041.jpg", "0042.jpg"):
        (source / key).unlink()
    run_job(calm)
    disturbed, undisturbed = files_of(tmp_path / "labels"), files_of(tmp_path / "calm")
    assert {name: disturbed[name] for name in undisturbed if name.startswith("masks")} == {
        name: data for name, data in undisturbed.items() if name.startswith("masks")
    }


def test_fresh_plans_anew_and_leaves_what_is_done(model_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    fill(source, 20)
    job = SegmentJob(
        source=str(source), output=str(tmp_path / "labels"), model=str(model_dir), shard_size=4, actors=1,
        cpus_per_actor=1, device="cpu",
    )  # fmt: skip
    seen: list[int] = []

    class StopsSoon(Observer):
        def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
            seen.append(outcome.images)

    run_job(job, StopsSoon(), lambda: bool(seen))
    report = run_job(job.model_copy(update={"fresh": True}))
    assert len(report.runs) == 1, "the unfinished run is left alone"
    assert report.selection.done >= sum(seen), "a shard may commit while the stop is on its way"
    assert report.counts.images == 20 - report.selection.done


def test_fractional_gpus_without_a_gpu_fall_back_to_the_cpu_and_say_so(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "photos"
    fill(source, 8)
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


HOSTILE = [
    "a//b.jpg",
    "./x.jpg",
    "../x.jpg",
    "dir/",
    "line\nbreak.jpg",
    "emoji😀.jpg",
    "k" * 1000 + ".jpg",
    "name#1?.jpg",
]


def test_no_key_is_lost_whatever_it_looks_like(
    bucket: str, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("s3")
    keys = []
    for index, key in enumerate(HOSTILE):
        try:
            client.put_object(Bucket=bucket, Key=f"photos/{key}", Body=jpeg(40, 30, seed=index))
            keys.append(key)
        except ClientError:
            assert "\n" in key, "moto's server cannot store a newline; everything else it can"
    source = f"s3://{bucket}/photos?endpoint_url={os.environ['AWS_ENDPOINT_URL']}"
    report = label(source, str(tmp_path / "labels"), model_dir, capsys, "--include", "*")
    assert (report["code"], report["listed"], report["ok"]) == (0, len(keys), len(keys)), report["errors"]
    store = open_store(str(tmp_path / "labels"))
    assert {row["key"] for row in read_current(store).to_pylist()} == set(keys)
    recount(store)
