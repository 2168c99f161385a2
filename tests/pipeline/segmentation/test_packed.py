"""`--masks tar`: the same masks and results as without, but for where the masks lie; and everything reads them."""

import io
import tarfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fcn_core import resolve_settings
from pipeline.cli.app import run as fcn
from pipeline.errors import ObjectMissing
from pipeline.insight.agreement import ComparedPair, agreements
from pipeline.insight.rank import rank
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.gc import collect
from pipeline.outputs.identity import Recipe
from pipeline.outputs.labels import read_labels
from pipeline.outputs.mask_formats import packed as packing
from pipeline.outputs.mask_formats.tar import TarMasks
from pipeline.outputs.masks import find_mask, mask_file, read_mask
from pipeline.outputs.results import read_results
from pipeline.outputs.runs import records
from pipeline.outputs.shard import Shard
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.faulty_s3 import FaultyS3
from tests.in_process import segment_in_process
from tests.samples import fill, jpeg, model

BUNDLE = model()
KEPT = ("masks/", "mask_tars/", "results/", "class_areas/")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, two of one stem, one that cannot be read, one of another shape."""
    folder = tmp_path_factory.mktemp("packed") / "photos"
    fill(folder, 5)
    (folder / "0000.png.jpg").write_bytes(jpeg(101, 37))
    (folder / "broken.jpg").write_bytes(jpeg(96, 72)[:500])
    return folder


def spec_for(source: Path, output: str, **changes: Any) -> SegmenterSpec:
    spec = SegmenterSpec(
        source=str(source), output=output, run_id="run", recipe=Recipe(BUNDLE.model_id, "params"),
        settings=resolve_settings(device="cpu", precision="float32", threads=1, batch_size=2),
        max_pixels=1_000_000, codec_workers=1, image_timeout=60.0, image_memory=1 << 30, masks="tar",
    )  # fmt: skip
    return replace(spec, **changes)


def run(source: Path, output: str, **changes: Any) -> Store:
    """The images of `source` as one shard; returns the output."""
    store = open_store(output)
    store.put("begun", b"")
    worker = Segmenter(spec_for(source, output, **changes), BUNDLE.to_files())
    try:
        worker.process(Shard(0, tuple(open_store(str(source)).list())))
    finally:
        worker.close()
    return store


def rows_of(store: Store) -> list[dict[str, Any]]:
    return [row for table in read_results(store, "run") for row in table.to_pylist()]


def files_of(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for prefix in KEPT for info in store.list(prefix)}


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The shard, packed, undisturbed, in a folder."""
    return run(source, str(tmp_path_factory.mktemp("calm") / "labels"))


def test_packed_masks_and_rows_are_those_of_an_unpacked_run(source: Path, calm: Store, tmp_path: Path) -> None:
    plain = run(source, str(tmp_path / "plain"), masks="objects")
    ours, theirs = rows_of(calm), rows_of(plain)
    places = [(row.pop("mask_key"), other.pop("mask_key")) for row, other in zip(ours, theirs, strict=True)]
    assert ours == theirs
    assert places[-1] == (None, None), "the image that could not be read"
    for packed, single in places[:-1]:
        assert TarMasks().part(packed) is not None
        assert TarMasks().part(single) is None
        assert read_mask(calm, packed) == read_mask(plain, single)
    files, others = files_of(calm), files_of(plain)
    assert sorted(files) == [
        "class_areas/run_id=run/shard-00000000.parquet",
        mask_file(places[0][0]),
        "results/run_id=run/shard-00000000.parquet",
    ]
    areas = "class_areas/run_id=run/shard-00000000.parquet"
    assert files[areas] == others[areas]
    with tarfile.open(fileobj=io.BytesIO(files[mask_file(places[0][0])])) as tar:
        assert tar.getnames() == ["0000.png", "0000%2epng.png", "0001.png", "0002.png", "0003.png", "0004.png"]


def test_writes_that_fail_or_seem_to_give_the_same_bytes(
    source: Path, calm: Store, s3_endpoint: str, bucket: str
) -> None:
    """A lost answer makes the next try of a create-only PUT hear that the tar is there: it is ours."""
    with FaultyS3(s3_endpoint) as proxy:
        proxy.matches = lambda method, path: "/mask_tars/" in path or "/results/" in path
        proxy.faults = ["503 SlowDown", "lost_reply", "reset", "late_500", "cut", "lost_reply"]
        run(source, f"s3://{bucket}/labels?endpoint_url={proxy.endpoint}")
        assert proxy.faults == []
    assert files_of(open_store(f"s3://{bucket}/labels")) == files_of(calm)


def test_a_shard_that_is_done_twice_has_one_tar(source: Path, calm: Store, tmp_path: Path) -> None:
    """An actor died after its tar, before its commit: the tar is there, and the next one finds it right."""
    copy = open_store(str(tmp_path / "labels"))
    for key, data in files_of(calm).items():
        if key.startswith("mask_tars/"):
            copy.put(key, data)
    run(source, copy.uri)
    assert files_of(copy) == files_of(calm)


def test_a_damaged_tar_in_the_way_stays_and_its_masks_become_objects(source: Path, calm: Store, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "labels"))
    key = next(key for key in files_of(calm) if key.startswith("mask_tars/"))
    store.put(key, b"no tar")
    run(source, store.uri)
    assert store.get(key) == b"no tar"
    for row, other in zip(rows_of(store), rows_of(calm), strict=True):
        assert row["mask_sha256"] == other["mask_sha256"]
        assert row["mask_key"] is None or row["mask_key"].startswith("masks/")


def test_masks_beyond_what_memory_takes_become_objects(
    source: Path, calm: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [part.length for row in rows_of(calm) if row["mask_key"] and (part := TarMasks().part(row["mask_key"]))]
    monkeypatch.setattr(packing, "ARCHIVE_BYTES", sum(sizes) - 1)
    store = run(source, str(tmp_path / "labels"))
    rows = rows_of(store)
    packed = [row for row in rows if row["mask_key"] and TarMasks().part(row["mask_key"])]
    assert (len(rows), len(packed), len(list(store.list("masks/")))) == (7, 5, 1)
    for row, other in zip(rows, rows_of(calm), strict=True):
        assert row["mask_sha256"] == other["mask_sha256"]
        assert row["mask_key"] is None or read_mask(store, row["mask_key"]) == read_mask(calm, other["mask_key"])


@pytest.fixture(scope="module")
def labelled(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of two runs of a folder: the first unpacked, the second, after two photos came, packed."""
    folder = tmp_path_factory.mktemp("mixed")
    fill(folder / "photos", 4)
    job = SegmentJob(
        source=str(folder / "photos"), output=str(folder / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1, engine="torch", shard_size=4, no_report=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        segment(job)
        fill(folder / "photos", 2, start=4)
        report = segment(job.model_copy(update={"masks": "tar", "no_report": False}))
    assert report.counts.images == 2, "what is done as objects is done"
    assert report.reports
    return folder / "labels"


@pytest.fixture
def mixed(labelled: Path, tmp_path: Path) -> Store:
    """A copy to tamper with."""
    copy, original = open_store(str(tmp_path / "labels")), open_store(str(labelled))
    for info in original.list():
        copy.put(info.key, original.get(info.key))
    return copy


def test_packed_and_unpacked_masks_stand_side_by_side(mixed: Store) -> None:
    checked = Verified()
    assert list(verify(mixed, checked)) == []
    assert (checked.runs, checked.masks) == (2, 6)
    current = read_current(mixed).to_pylist()
    assert [TarMasks().part(row["mask_key"]) is not None for row in current] == [False] * 4 + [True] * 2
    assert (len(list(mixed.list("masks/"))), len(list(mixed.list("mask_tars/")))) == (4, 1)
    assert collect(mixed, timedelta(0)).kinds.keys() <= {"leases"}
    newest, oldest = records(mixed)
    assert read_labels(mixed, newest).palette == read_labels(mixed, oldest).palette
    assert rank(mixed, top=6).images == 6
    places = [row["mask_key"] for row in current]
    pair = ComparedPair("k", "e", places[0], places[5], False, 0.0, None, "run")
    (mine,) = agreements(mixed, [replace(pair, mask_b=places[0])])
    (other,) = agreements(mixed, [pair])
    assert mine.pixels == 1 > other.pixels


def test_a_report_of_packed_masks_shows_them(labelled: Path) -> None:
    store = open_store(str(labelled))
    newest = next(iter(records(store)))
    page = store.get(f"reports/{newest.run_id}/index.html").decode()
    assert page.count("data:image/") >= 2


def tampered(store: Store, what: str) -> str:
    key = next(iter(store.list("mask_tars/"))).key
    data = bytearray(store.get(key))
    if what == "lost":
        store.delete(key)
    elif what == "cut":
        store.put(key, bytes(data[: len(data) // 4]))
    elif what == "mask":
        data[560] ^= 1  # in the first mask's palette
        store.put(key, bytes(data))
    else:
        store.put(key, b"x" * 512 + bytes(data[512:]))
    return key


@pytest.mark.parametrize("what", ["lost", "cut", "mask", "header"])
def test_verify_names_what_is_wrong_with_a_tar(mixed: Store, what: str) -> None:
    key = tampered(mixed, what)
    findings = list(verify(mixed, Verified()))
    assert findings
    assert {mask_file(finding.file) for finding in findings} == {key}


def test_gc_removes_a_tar_that_no_row_names_and_no_other(mixed: Store) -> None:
    (there,) = [info.key for info in mixed.list("mask_tars/")]
    recipe = there.split("/")[1]
    stray = f"mask_tars/{recipe}/shard-00000000.{'0' * 16}.tar"
    for key in (stray, "mask_tars/notes.txt", f"mask_tars/deadbeef/shard-00000000.{'0' * 16}.tar"):
        mixed.put(key, b"x")
    found = collect(mixed, timedelta(0), delete=True)
    assert found.kinds["mask tars"].examples == [stray]
    assert "masks" not in found.kinds
    assert {info.key for info in mixed.list("mask_tars/")} == {
        there, "mask_tars/notes.txt", f"mask_tars/deadbeef/shard-00000000.{'0' * 16}.tar"
    }  # fmt: skip


def test_one_mask_comes_out_by_its_key(
    mixed: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ("0001.jpg", "0005.jpg"):
        assert fcn(["masks", "get", mixed.uri, key]) == 0
        assert (tmp_path / key).with_suffix(".png").read_bytes() == find_mask(mixed, key).png
    assert fcn(["compact", mixed.uri]) == 0, "from now on an index says where the rows are"
    assert fcn(["masks", "get", mixed.uri, "0005.jpg", "-o", "other.png"]) == 0
    assert (tmp_path / "other.png").read_bytes() == (tmp_path / "0005.png").read_bytes()
    assert fcn(["masks", "get", mixed.uri, "nobody.jpg"]) == 2
    assert "nobody.jpg" in capsys.readouterr().err
    tampered(mixed, "lost")
    with pytest.raises(ObjectMissing):
        find_mask(mixed, "0005.jpg")


def test_export_and_labelling_projects_hold_packed_masks(mixed: Store, tmp_path: Path) -> None:
    assert fcn(["masks", "export", mixed.uri, str(tmp_path / "plain")]) == 0
    for row in read_current(mixed).to_pylist():
        assert (tmp_path / "plain" / row["key"]).with_suffix(".png").read_bytes() == read_mask(mixed, row["mask_key"])
    project = tmp_path / "project"
    assert fcn(["rank", mixed.uri, "--top", "6", "--copy-to", str(project)]) == 0
    copied = (project / "images.csv").read_text().splitlines()
    assert len(copied) == 1 + 6
