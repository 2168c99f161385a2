"""One shard of a data set, without Ray: what an actor does with it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fcn_core import resolve_settings
from fcn_core.inference.evaluation import confusion
from pipeline.data.datasets import DatasetOptions, open_dataset
from pipeline.errors import ImageError, StorageError, StorageUnavailable
from pipeline.evaluation.evaluator import Evaluator, EvaluatorSpec
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo
from tests.labelled import write_labelled
from tests.samples import jpeg, model

BUNDLE = model()
SPEC = EvaluatorSpec(
    run_id="evaluate-val",
    settings=resolve_settings(device="cpu", precision="float32", threads=1, batch_size=3),
    shard_size=6,
    worst=2,
    max_pixels=1_000_000,
    codec_workers=1,
    image_timeout=20.0,
    image_memory=1 << 30,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_labelled(tmp_path, 10)
    return tmp_path


@pytest.fixture
def worker(data: Path) -> Iterator[Evaluator]:
    evaluator = worker_on(data)
    yield evaluator
    evaluator.close()


def worker_on(data: Path, spec: EvaluatorSpec = SPEC) -> Evaluator:
    dataset = open_dataset(DatasetOptions(dataset=str(data), labels="camvid"), "val")
    return Evaluator(spec, BUNDLE.to_files(), dataset)


def entry(key: str) -> ObjectInfo:
    return ObjectInfo(key, "", 0, datetime(2026, 1, 1, tzinfo=UTC))


def shard(number: int, worker: Evaluator, size: int = SPEC.shard_size) -> Shard:
    pairs = worker.dataset.pairs[number * size : (number + 1) * size]
    return Shard(number, tuple(entry(pair.image) for pair in pairs))


def test_shards_count_what_one_process_counts(worker: Evaluator) -> None:
    parts = [worker.process(shard(number, worker)) for number in range(2)]
    whole = confusion(worker._model.predictor, worker.dataset, range(10))
    assert (sum(part.confusion.counts for part in parts) == whole.counts).all()
    assert [part.outcome.images for part in parts] == [6, 4]
    assert [row["name"] for part in parts for row in part.table.to_pylist()] == [f"{n:03d}" for n in range(10)]
    assert worker._reader.buffer.used == 0
    assert worker.progress() == {}


def test_batches_are_consecutive_examples_whatever_is_broken_among_them(data: Path) -> None:
    (data / "JPEGImages" / "001.jpg").write_bytes(b"")
    (data / "JPEGImages" / "005.jpg").write_bytes(b"")
    worker = worker_on(data)
    seen: list[list[tuple[int, ...]]] = []
    launch = worker._model.predictor.launch

    def watch(images: list[np.ndarray], sizes: None) -> object:
        seen.append([image.shape[:2] for image in images])
        return launch(images, sizes=sizes)

    worker._model.predictor.launch = watch  # type: ignore[method-assign,assignment]
    try:
        worker.process(shard(0, worker))
    finally:
        worker.close()
    sizes = {index: worker.dataset.mask(index).shape for index in range(6)}
    assert seen == [[sizes[0], sizes[2]], [sizes[3], sizes[4]]]


def test_a_culprit_has_its_row_and_is_not_touched(worker: Evaluator, data: Path) -> None:
    (data / "JPEGImages" / "004.jpg").unlink()  # reading it would give another reason
    part = worker.process(replace(shard(0, worker), culprits=frozenset({"JPEGImages/004.jpg"})))
    rows = {row["name"]: row for row in part.table.to_pylist()}
    assert rows["004"]["error"] == "killed_worker"
    assert dict(part.outcome.errors) == {"killed_worker": 1}


def test_a_probe_does_all_of_one_example(worker: Evaluator, data: Path) -> None:
    (data / "JPEGImages" / "003.jpg").write_bytes(jpeg(64, 48)[:300])
    (data / "SegmentationClass" / "007.png").write_bytes(b"no mask")
    worker.probe(entry("JPEGImages/000.jpg"))
    for name, reason in (("003", "truncated"), ("007", "mask_unreadable")):
        with pytest.raises(ImageError, match=reason):
            worker.probe(entry(f"JPEGImages/{name}.jpg"))
    assert worker._reader.buffer.used == 0


def test_an_example_the_network_fails_on_is_a_row(worker: Evaluator) -> None:
    launch = worker._model.predictor.launch

    def fails(images: list[np.ndarray], sizes: object = None) -> object:
        if any(image.shape == (50, 81, 3) for image in images):
            raise RuntimeError("out of memory")
        return launch(images)

    worker._model.predictor.launch = fails  # type: ignore[method-assign,assignment]
    part = worker.process(shard(0, worker))
    (row,) = [row for row in part.table.to_pylist() if row["status"] == "error"]
    assert (row["name"], row["error"]) == ("004", "prediction_failed")
    assert "81x50" in row["message"]


def test_large_images_pass_through_a_small_buffer(data: Path) -> None:
    worker = worker_on(data, replace(SPEC, buffer_bytes=64 * 48))
    try:
        assert worker.process(shard(0, worker)).outcome.ok == 6
    finally:
        worker.close()


def test_storage_that_is_down_is_no_fault_of_an_example(worker: Evaluator) -> None:
    def down(key: str) -> bytes:
        raise StorageUnavailable("no answer")

    worker.dataset.read = down
    with pytest.raises(StorageUnavailable):
        worker.process(shard(0, worker))
    assert worker._reader.buffer.used == 0


def test_a_machine_without_the_data_set_refuses_at_once(data: Path) -> None:
    dataset = open_dataset(DatasetOptions(dataset=str(data), labels="camvid"), "val")
    data.rename(data.parent / "elsewhere")
    with pytest.raises(StorageError, match="does not exist"):
        Evaluator(SPEC, BUNDLE.to_files(), dataset)


def test_a_shard_shows_its_worst_with_what_the_model_said(worker: Evaluator) -> None:
    part = worker.process(shard(0, worker))
    rows = part.table.to_pylist()
    worst = sorted(rows, key=lambda row: (row["mean_iou"], row["name"]))[:2]
    assert [shown.caption for shown in part.worst] == [row["name"] for row in worst]
    assert [shown.rank[0] for shown in part.worst] == [row["mean_iou"] for row in worst]
