"""One shard, from keys to a commit, without Ray."""

import hashlib
import pickle
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_core import Predictor, Segmentation, resolve_settings
from fcn_core.labels import VOID, decode_mask, encode_mask
from pipeline.actors.buffer import ImageBuffer, Reservation, Share
from pipeline.actors.inference import RunningBatch
from pipeline.actors.outcome import ShardOutcome
from pipeline.codec.images import Decoded
from pipeline.errors import AccessDenied, ImageError, ShardRefused, TakenOver, WorkerBroken
from pipeline.outputs.areas import class_areas
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.objects import mask_key
from pipeline.outputs.results import finish_tables, read_results
from pipeline.outputs.shard import Shard
from pipeline.segmentation import segmenter as segmenters
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec, group_by_shape
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.samples import encode, fill, jpeg, model

BUNDLE = model()
FREE = Reservation(ImageBuffer(0), Share(ImageBuffer(0)), 0)


def spec_for(source: Path, output: Path, run_id: str = "run") -> SegmenterSpec:
    output.mkdir(exist_ok=True)  # as the driver, which holds a lease there, has done
    return SegmenterSpec(
        source=str(source),
        output=str(output),
        run_id=run_id,
        recipe=Recipe(BUNDLE.model_id, "params"),
        settings=resolve_settings(device="cpu", precision="float32", threads=1, batch_size=2),
        max_pixels=1_000_000,
        codec_workers=1,
        image_timeout=20.0,
        image_memory=1 << 30,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    fill(folder, 5)
    (folder / "wide.jpg").write_bytes(jpeg(101, 37))
    (folder / "broken.jpg").write_bytes(jpeg(96, 72)[:500])
    return folder


def shard_of(source: Path, number: int = 0) -> Shard:
    return Shard(number, tuple(open_store(str(source)).list()))


def rows_of(output: Path, run_id: str = "run") -> dict[str, dict]:
    return {row["key"]: row for table in read_results(open_store(str(output)), run_id) for row in table.to_pylist()}


def run(spec: SegmenterSpec, shard: Shard) -> ShardOutcome:
    worker = Segmenter(spec, BUNDLE.to_files())
    try:
        return worker.process(shard)
    finally:
        worker.close()


def test_every_image_has_a_mask_or_a_reason(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    outcome = run(spec_for(source, output), shard_of(source))
    assert (outcome.images, outcome.ok, dict(outcome.errors)) == (7, 6, {"truncated": 1})
    assert outcome.pixels == 5 * 96 * 72 + 101 * 37
    rows = rows_of(output)
    assert list(rows) == sorted(rows), "rows are in plan order"
    for key, row in rows.items():
        if key == "broken.jpg":
            assert row["status"] == "error"
            assert row["mask_key"] is None
            continue
        png = (output / row["mask_key"]).read_bytes()
        mask = decode_mask(png)
        assert mask.shape == (row["height"], row["width"])
        assert hashlib.sha256(png).hexdigest() == row["mask_sha256"]
        counts = np.bincount(mask.ravel(), minlength=11)
        assert {area["class_id"]: area["pixels"] for area in row["areas"]} == {
            int(index): int(counts[index]) for index in np.flatnonzero(counts)
        }
        assert sum(area["fraction"] for area in row["areas"]) == pytest.approx(1.0)


def test_an_actor_whose_driver_was_superseded_commits_nothing(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    spec = replace(spec_for(source, output), lease=1)
    store = open_store(str(output))
    store.put("lease/00000001.json", b"{}")
    assert run(spec, shard_of(source)).ok == 6
    store.put("lease/00000002.json", b"{}")
    with pytest.raises(TakenOver, match=r"another run took over .*labels") as raised:
        run(spec, shard_of(source, 1))
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value), "as it travels to the driver"
    assert len(list(store.list("results/"))) == 1


def test_fractions_are_of_all_pixels_those_of_class_0_among_them() -> None:
    counts = np.array([6, 0, 2, *[0] * (BUNDLE.labels.num_classes - 3)], np.int64)
    areas = class_areas(counts, BUNDLE.labels)
    assert [(area.class_id, area.pixels, area.fraction) for area in areas] == [(0, 6, 0.75), (2, 2, 0.25)]


def test_void_pixels_are_in_the_mask_and_in_the_tables(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    spec = spec_for(source, output)
    spec = replace(spec, settings=spec.settings.model_copy(update={"void_below": 0.5}))
    run(spec, shard_of(source))
    shares = set()
    for row in rows_of(output).values():
        if row["status"] != "ok":
            continue
        void = int((decode_mask((output / row["mask_key"]).read_bytes()) == VOID).sum())
        assert sum(area["pixels"] for area in row["areas"]) == row["width"] * row["height"]
        assert sum(area["fraction"] for area in row["areas"]) == pytest.approx(1.0)
        assert [area["pixels"] for area in row["areas"] if area["class_name"] == "void"] == ([void] if void else [])
        shares.add(void > 0)
    assert True in shares, "or this tries nothing"
    totals = finish_tables(open_store(str(output)), "run", BUNDLE.labels.names, BUNDLE.model_id, "params").classes
    assert [total.class_id for total in totals] == [*range(BUNDLE.labels.num_classes), VOID]
    assert sum(total.fraction for total in totals) == pytest.approx(1.0)


def test_the_same_shard_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(spec_for(source, tmp_path / name), shard_of(source))
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 6 + 2


def test_an_object_changed_after_listing_is_named_and_not_segmented(source: Path, tmp_path: Path) -> None:
    shard = shard_of(source)
    (source / "0002.jpg").write_bytes(jpeg(50, 50))
    (source / "0003.jpg").unlink()
    outcome = run(spec_for(source, tmp_path / "labels"), shard)
    assert dict(outcome.errors) == {"truncated": 1, "changed": 1, "missing": 1}
    rows = rows_of(tmp_path / "labels")
    assert (rows["0002.jpg"]["error"], rows["0003.jpg"]["error"]) == ("changed", "missing")


def test_a_mask_that_is_there_already_is_the_mask(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    shard = shard_of(source)
    spec = spec_for(source, output)
    entry = next(entry for entry in shard.entries if entry.key == "0000.jpg")
    rival = BUNDLE.labels
    mask = np.full((72, 96), 4, np.uint8)
    mask[:10] = 9
    png = encode_mask(mask, rival)
    open_store(str(output)).create(mask_key(spec.recipe, entry.key, entry.etag), png)
    run(spec, shard)
    row = rows_of(output)["0000.jpg"]
    assert row["mask_sha256"] == hashlib.sha256(png).hexdigest()
    assert {area["class_id"]: area["pixels"] for area in row["areas"]} == {4: 62 * 96, 9: 10 * 96}


def test_two_processors_that_commit_the_same_shard_agree(source: Path, tmp_path: Path) -> None:
    """An actor that was cut off is taken for lost, its shard is done elsewhere, and then it finishes after all."""
    output = tmp_path / "labels"
    shard, spec = shard_of(source), spec_for(source, output)
    zombie, successor = (Segmenter(spec, BUNDLE.to_files()) for _ in range(2))
    try:
        with ThreadPoolExecutor(2) as both:
            at_once = list(both.map(lambda worker: worker.process(shard), (zombie, successor)))
        files = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
        late = zombie.process(shard)
    finally:
        zombie.close()
        successor.close()
    for outcome in (*at_once, late):
        assert (outcome.ok, dict(outcome.errors)) == (6, {"truncated": 1})
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == files
    run(spec_for(source, tmp_path / "alone"), shard)
    alone = {path.relative_to(tmp_path / "alone"): path.read_bytes() for path in (tmp_path / "alone").rglob("*.p*")}
    assert {path.relative_to(output): data for path, data in files.items()} == alone


def test_a_damaged_mask_in_the_way_is_replaced(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "labels"
    shard = shard_of(source)
    spec = spec_for(source, output)
    names = [mask_key(spec.recipe, entry.key, entry.etag) for entry in shard.entries if entry.key.startswith("000")]
    open_store(str(output)).create(names[0], b"no PNG")
    open_store(str(output)).create(names[1], encode_mask(np.zeros((3, 3), np.uint8), BUNDLE.labels))
    outcome = run(spec, shard)
    assert outcome.ok == 6
    assert decode_mask((output / names[0]).read_bytes()).shape == (72, 96)
    assert decode_mask((output / names[1]).read_bytes()).shape == (72, 96)


def test_a_file_too_large_to_read_is_a_row(source: Path, tmp_path: Path) -> None:
    with (source / "huge.jpg").open("wb") as file:
        file.truncate(2 << 30)  # a hole: it takes no space
    outcome = run(spec_for(source, tmp_path / "labels"), shard_of(source))
    assert dict(outcome.errors) == {"truncated": 1, "file_too_large": 1}


class Failed:
    def result(self) -> list[Segmentation]:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("when", ["launched", "waited for"])
def test_an_image_the_network_fails_on_is_a_row_and_a_broken_device_is_not(
    when: str, source: Path, tmp_path: Path
) -> None:
    worker = Segmenter(spec_for(source, tmp_path / "labels"), BUNDLE.to_files())
    launch = worker._model.predictor.launch
    failing: set[tuple[int, ...]] = {(37, 101, 3)}

    def fails(images: list[np.ndarray], sizes: object = None) -> RunningBatch:  # type: ignore[type-arg]
        if not any(image.shape in failing for image in images):
            return launch(images)
        if when == "launched":
            raise RuntimeError("out of memory")
        return Failed()

    worker._model.predictor.launch = fails  # type: ignore[method-assign,assignment]
    try:
        outcome = worker.process(shard_of(source))
        assert dict(outcome.errors) == {"truncated": 1, "prediction_failed": 1}
        assert "101x37" in rows_of(tmp_path / "labels")["wide.jpg"]["message"]
        failing.add((64, 64, 3))
        with pytest.raises(WorkerBroken, match="out of memory"):
            worker.process(replace(shard_of(source), number=1))
        assert worker._reader.buffer.used == 0
    finally:
        worker.close()


def test_the_buffer_is_empty_after_every_shard_and_bounds_what_is_decoded(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for index in range(12):  # flat images: tiny files, large pixels
        (source / f"{index}.png").write_bytes(encode(Image.new("RGB", (900, 900), (index, 9, 9)), "PNG"))
    limit = 3 * 900 * 900 * 3
    full = threading.Event()

    class Late(Predictor):
        """Takes none of the source's images before the buffer is full."""

        def launch(self, images: Any, *arguments: Any, **options: Any) -> RunningBatch:
            if len(images[0]) == 900:  # else it warms up
                assert full.wait(60), "the buffer never filled"
            return super().launch(images, *arguments, **options)

    spec = replace(spec_for(source, tmp_path / "labels"), buffer_bytes=limit)
    worker = Segmenter(spec, BUNDLE.to_files(), make_model=Late)
    peak = 0
    change = worker._reader.buffer._change

    def watch(reservation: Reservation, amount: int) -> None:
        nonlocal peak
        change(reservation, amount)
        peak = max(peak, worker._reader.buffer.used)
        if peak >= limit:
            full.set()

    worker._reader.buffer._change = watch  # type: ignore[method-assign]
    try:
        assert worker.process(shard_of(source)).ok == 12
    finally:
        worker.close()
    assert worker._reader.buffer.used == 0
    image = 900 * 900 * 3
    # One codec worker may be past the gate, and the image everything waits for; 1 MiB is guessed for each in the queue.
    assert peak <= limit + 2 * image + 12 * (1 << 20)


def test_large_images_pass_through_a_small_buffer(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    fill(source, 6, size=(400, 300))
    spec = replace(spec_for(source, tmp_path / "labels"), buffer_bytes=400 * 300 * 3)
    assert run(spec, shard_of(source)).ok == 6


def test_sixteen_bit_and_transparent_images_are_segmented(tmp_path: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    deep = Image.fromarray((np.arange(64 * 48, dtype=np.uint16) * 21).reshape(48, 64))
    (source / "deep.png").write_bytes(encode(deep, "PNG"))
    (source / "clear.png").write_bytes(encode(Image.new("RGBA", (64, 48), (200, 30, 30, 90)), "PNG"))
    assert run(spec_for(source, tmp_path / "labels"), shard_of(source)).ok == 2


def test_a_culprit_has_its_row_and_is_not_touched(source: Path, tmp_path: Path) -> None:
    shard = replace(shard_of(source), culprits=frozenset({"0001.jpg"}))
    (source / "0001.jpg").unlink()  # reading it would make another row
    outcome = run(spec_for(source, tmp_path / "labels"), shard)
    assert dict(outcome.errors) == {"truncated": 1, "killed_worker": 1}
    assert rows_of(tmp_path / "labels")["0001.jpg"]["error"] == "killed_worker"


def test_a_probe_does_everything_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    worker = Segmenter(spec_for(source, tmp_path / "labels"), BUNDLE.to_files())
    entries = {entry.key: entry for entry in shard_of(source).entries}
    try:
        worker.probe(entries["0000.jpg"])
        with pytest.raises(ImageError, match="truncated"):
            worker.probe(entries["broken.jpg"])
    finally:
        worker.close()
    assert list((tmp_path / "labels").iterdir()) == []


@given(
    st.lists(st.sampled_from([(4, 4), (4, 8), (8, 8), (2, 2)]), max_size=40),
    st.integers(1, 5),
    st.integers(1, 2000),
)
def test_batches_hold_each_image_once_in_one_shape(shapes: list[tuple[int, int]], size: int, limit: int) -> None:
    entry = ObjectInfo("k", "e", 1, None)  # type: ignore[arg-type]
    images = [
        segmenters._Loaded(index, entry, Decoded(np.zeros((*shape, 3), np.uint8), 1), FREE)
        for index, shape in enumerate(shapes)
    ]
    batches = list(group_by_shape(iter(images), size, limit))
    assert sorted(item.index for batch in batches for item in batch) == list(range(len(shapes)))
    assert all(len({item.image.pixels.shape for item in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= size for batch in batches)


def test_shapes_that_are_padded_alike_share_a_batch() -> None:
    entry = ObjectInfo("k", "e", 1, None)  # type: ignore[arg-type]
    shapes = [(30, 60), (32, 64), (33, 64), (25, 50), (40, 40)]
    images = [
        segmenters._Loaded(index, entry, Decoded(np.zeros((*shape, 3), np.uint8), 1), FREE)
        for index, shape in enumerate(shapes)
    ]
    batches = group_by_shape(iter(images), 8, 1 << 20, snap=32)
    assert [[item.index for item in batch] for batch in batches] == [[0, 1, 3], [2, 4]]


def test_full_batches_leave_before_the_stream_ends() -> None:
    entry = ObjectInfo("k", "e", 1, None)  # type: ignore[arg-type]
    taken: list[int] = []

    def stream():  # type: ignore[no-untyped-def]
        for index in range(10):
            taken.append(index)
            yield segmenters._Loaded(index, entry, Decoded(np.zeros((4, 4, 3), np.uint8), 1), FREE)

    first = next(group_by_shape(stream(), 3, 10_000))
    assert [item.index for item in first] == [0, 1, 2]
    assert len(taken) == 3


def test_storage_that_is_down_commits_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.errors import StorageUnavailable

    worker = Segmenter(spec_for(source, tmp_path / "labels"), BUNDLE.to_files())

    class Down:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def create(self, key: str, data: bytes) -> None:
            raise StorageUnavailable("no answer")

    real: Store = worker.output
    worker.output = Down()  # type: ignore[assignment]
    try:
        with pytest.raises(StorageUnavailable):
            worker.process(shard_of(source))
    finally:
        worker.close()
    assert rows_of(tmp_path / "labels") == {}


def test_a_shard_of_which_nothing_may_be_read_is_refused_uncommitted_until_others_agree(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on one machine whose credentials have gone bad, while others' are good."""
    worker = Segmenter(spec_for(source, tmp_path / "labels"), BUNDLE.to_files())

    def deny(key: str, **_: object) -> bytes:
        raise AccessDenied(f"{key}: not allowed")

    monkeypatch.setattr(worker.source, "get", deny)
    shard = shard_of(source)
    try:
        with pytest.raises(ShardRefused, match=r"none of 7 images could be read; 0000.jpg: 0000.jpg: not allowed"):
            worker.process(shard)
        assert rows_of(tmp_path / "labels") == {}
        assert dict(worker.process(replace(shard, insist=True)).errors) == {"access_denied": 7}
    finally:
        worker.close()


def test_a_shard_of_which_something_can_be_read_or_is_damaged_is_committed(source: Path, tmp_path: Path) -> None:
    (only_broken,) = (entry for entry in shard_of(source).entries if entry.key == "broken.jpg")
    outcome = run(spec_for(source, tmp_path / "labels"), Shard(0, (only_broken,)))
    assert dict(outcome.errors) == {"truncated": 1}


def test_a_key_that_makes_its_masks_name_both_file_and_folder_costs_nothing(tmp_path: Path) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    (source / "photo.jpg").write_bytes(jpeg(40, 30))
    (photo,) = shard_of(source).entries
    mask = mask_key(spec_for(source, output).recipe, photo.key, photo.etag).split("/")[-1]
    (source / mask).mkdir()
    (source / mask / "b.jpg").write_bytes(jpeg(40, 30, seed=1))
    assert run(spec_for(source, output), shard_of(source)).ok == 2
    rows = rows_of(output)
    assert set(rows) == {"photo.jpg", f"{mask}/b.jpg"}
    for row in rows.values():
        png = (output / row["mask_key"]).read_bytes()
        assert hashlib.sha256(png).hexdigest() == row["mask_sha256"]


@pytest.mark.parametrize("segments", [1, 5])
def test_a_key_that_is_too_long_below_its_output_costs_nothing(s3_endpoint: str, tmp_path: Path, segments: int) -> None:
    bucket = f"long-{secrets.token_hex(8)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    key = "/".join(["k" * (855 // segments)] * segments) + ".jpg"
    photos = open_store(f"s3://{bucket}/p")
    photos.put(key, jpeg(40, 30))
    output = f"s3://{bucket}/" + "o" * 300
    spec = replace(spec_for(tmp_path, tmp_path / "unused"), source=photos.uri, output=output)
    assert run(spec, Shard(0, tuple(photos.list()))).ok == 1
    (row,) = (row for table in read_results(open_store(output), "run") for row in table.to_pylist())
    assert hashlib.sha256(open_store(output).get(row["mask_key"])).hexdigest() == row["mask_sha256"]
