"""Training jobs: what they keep, what they survive, and what they refuse.

What is about workers runs on a real local Ray; the rest runs the same code in this process, since workers take many
seconds to start.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from fcn_core.data.datasets import Dataset, Example
from fcn_core.errors import DataError
from fcn_core.inference.evaluation import evaluate
from fcn_core.labels import decode_mask, encode_mask
from fcn_core.models.description import MODEL_FILE, WEIGHTS_FILE
from fcn_core.trained_on import pixel_digest
from pipeline.data.datasets import open_dataset
from pipeline.errors import InputError, PipelineError
from pipeline.models.load import load_bundle
from pipeline.outputs.lease import Lease
from pipeline.training import job as training
from pipeline.training import placement
from pipeline.training.job import train
from pipeline.training.placement import resolve_group
from pipeline.training.report import TrainReport
from pipeline.training.store import TrainStore
from pipeline.training.worker import TrainWorkerSpec
from tests.trainings import (
    LABELS,
    Gate,
    InProcess,
    Watcher,
    assert_each_once_an_epoch,
    job,
    kept,
    seen_examples,
    training_workers,
    write_scenes,
)

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(900)]

STEPS = 12
PLAN = {
    "workers": 2,
    "dropout": 0.0,
    "record_examples": True,
    "save_every": 3,
    "train": {"steps": STEPS},
}
"""Two workers, four epochs of twelve examples in batches of four."""

ON_GPUS = {
    "use_gpu": True,
    "placement": "SPREAD",
    "nccl": {"NCCL_DEBUG": "INFO"},
    "resources_per_worker": {"memory": 1e8},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data is that most tests of this file train on; each keeps its run under a name of its own."""
    folder = tmp_path_factory.mktemp("training")
    write_scenes(folder / "data")
    return folder


@pytest.fixture(scope="module")
def watcher() -> Watcher:
    """Who watched the run below."""
    return Watcher()


@pytest.fixture(scope="module")
def undisturbed(place: Path, watcher: Watcher, ray_cluster: None) -> TrainReport:
    """A run to its end, in a folder, on two workers that hold the GPUs that Ray says there are."""
    return train(job(place, name="undisturbed", **PLAN | ON_GPUS), watcher)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Group", InProcess)


def test_a_finished_run_has_its_model_curves_and_records_and_nothing_more_to_do(
    place: Path, undisturbed: TrainReport
) -> None:
    run, report = job(place, name="undisturbed", **PLAN), undisturbed
    assert report.state == "finished"
    assert report.steps == STEPS
    store = kept(run)
    assert store.checkpoint_steps() == [9, 12], "the newest two"
    history = store.load_history()
    assert [point.step for point in history.losses] == list(range(1, STEPS + 1))
    assert [point.step for point in history.validations] == [3, 6, 9, 12]
    assert history.best is not None
    bundle = load_bundle(f"{run.output}/{run.name}/model")
    assert bundle.model_id == report.model_id
    assert report.scores == history.best.scores
    assert bundle.provenance["run"] == "undisturbed"
    assert bundle.provenance["started_from"]["model_id"] == store.load_start().model_id
    assert evaluate(bundle, open_dataset(run, "val")).mean_iou == pytest.approx(history.best.scores.mean_iou)
    record = store.load_record()
    assert record is not None
    assert record.state == "finished"
    progress = store.load_progress()
    assert progress is not None
    assert progress.step == STEPS
    assert progress.best_mean_iou == history.best.scores.mean_iou
    (events,) = store.store.list("tensorboard/")
    assert "tfevents" in events.key
    assert b"val/mean_iou" in store.store.get(events.key)

    again = train(job(place, name="undisturbed", **PLAN | {"workers": 1, "max_failures": 3}))
    assert again.nothing_to_do, "where and how fast it runs is not what it is"
    assert again.model_id == report.model_id
    with pytest.raises(InputError) as refusal:
        train(job(place, name="undisturbed", **PLAN | {"train": {"steps": STEPS, "learning_rate": 0.5}}))
    assert "learning_rate was 0.001 and is 0.5" in str(refusal.value)


def test_workers_hold_the_gpus_that_ray_says_there_are(undisturbed: TrainReport, watcher: Watcher) -> None:
    assert undisturbed.state == "finished"
    assert watcher.workers == [2]
    assert any("1 GPU and 1e+08 memory" in note for note in watcher.notes), watcher.notes
    assert any("PyTorch sees no CUDA device" in note for note in watcher.notes), "the GPUs of this test are not real"


def test_one_worker_and_two_take_the_same_steps(in_process: None, place: Path, undisturbed: TrainReport) -> None:
    """To the last bit of float64, tests/fcn_core/training/test_distributed.py has it."""
    alone = job(place, name="alone", **PLAN | {"workers": 1})
    train(alone)
    one, two = kept(alone), kept(job(place, name="undisturbed", **PLAN))
    assert seen_examples(one) == seen_examples(two)
    losses = [[point.loss for point in store.load_history().losses] for store in (one, two)]
    # The first steps only, and coarsely: sums in another order are rounded otherwise, and from step to step that grows.
    np.testing.assert_allclose(losses[0][:6], losses[1][:6], rtol=1e-2)


@pytest.mark.slow
def test_in_a_bucket_with_a_worker_that_dies_and_a_stop_a_run_ends_as_undisturbed_in_a_folder(
    place: Path, undisturbed: TrainReport, bucket: str, tmp_path: Path
) -> None:
    write_scenes(f"s3://{bucket}/data")
    run = job(f"s3://{bucket}", **PLAN)
    gate = Gate(tmp_path / "gate", examples=8)  # of each worker, two a step: it waits with its fourth step done
    killed: list[int] = []

    def kill_one_then_stop() -> bool:
        waiting = gate.waiting()
        if len(waiting) < 2:
            return False
        if killed:
            return True
        assert set(waiting) <= set(training_workers())
        killed.append(waiting[1])
        os.kill(waiting[1], 9)
        gate.let_go()
        return False

    watcher = Watcher()
    with gate.closed():
        report = train(run, watcher, kill_one_then_stop)

    # A worker that dies costs nothing but time.
    assert killed
    assert report.failures == 1
    assert any("died" in note and "; going on" in note for note in watcher.notes), watcher.notes
    # Stopped, it saves where it stands: three steps were saved, four and one more taken from there.
    assert report.state == "interrupted"
    assert report.steps == 8
    store = kept(run)
    assert store.checkpoint_steps() == [6, 8]
    record = store.load_record()
    assert record is not None
    assert record.state == "interrupted"
    wait_for(lambda: not training_workers(), "workers outlive their training")

    # The same job goes on, to the same weights bit for bit.
    report = train(run)
    assert report.state == "finished"
    assert report.model_id == undisturbed.model_id
    calm = kept(job(place, name="undisturbed", **PLAN))
    assert store.load_history() == calm.load_history()
    assert_each_once_an_epoch(store, examples=12, steps=STEPS, batch_size=4)
    assert seen_examples(store) == seen_examples(calm)
    assert store.checkpoint_steps() == [9, 12]
    written = {info.key for info in store.store.list()}
    assert {f"model/{MODEL_FILE}", f"model/{WEIGHTS_FILE}", "history.json", "run.json", "job.json"} <= written
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not any(secret in store.store.get(key) for key in written if key.endswith(".json"))


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def test_stages_start_from_one_another_and_are_taken_up_where_they_were(in_process: None, place: Path) -> None:
    stop = threading.Event()
    run = job(
        place,
        name="staged",
        arch="fcn16s",
        staged=True,
        class_balance="median",
        val_split=None,
        train={"steps": 4, "workers": 1},
    )

    class StopsBetweenStages(Watcher):
        def phase(self, name: str) -> None:
            super().phase(name)
            if "fcn16s" in name:
                stop.set()

    watcher = StopsBetweenStages()
    stopped = train(run, watcher, stop.is_set)
    assert (stopped.state, stopped.steps) == ("interrupted", 4), "the first stage counts"
    assert not any("training fcn16s" in phase for phase in watcher.phases), "nothing is started only to be stopped"
    first, second = (kept(run).stage(arch) for arch in ("fcn32s", "fcn16s"))
    coarse = first.load_best(4)
    start = second.load_start()
    shared = coarse.state.keys() & start.state.keys()
    assert "fc6.weight" in shared
    assert all(coarse.state[name].equal(start.state[name]) for name in shared)

    watcher = Watcher()
    report = train(run, watcher)
    assert (report.state, report.steps) == ("finished", 8)
    assert not any("training fcn32s" in phase for phase in watcher.phases), "what is done is not done again"
    assert first.load_best(4).model_id == coarse.model_id
    bundle = load_bundle(f"{run.output}/{run.name}/model")
    assert bundle.model_id == second.load_best(4).model_id
    assert bundle.architecture.arch == "fcn16s"
    planned = kept(run).load_run()
    assert planned is not None
    assert planned.class_weights is not None
    assert planned.class_weights[0] < planned.class_weights[1], "ground is the commonest"
    assert bundle.provenance["train_config"]["class_weights"] == list(planned.class_weights)


def test_a_finished_run_keeps_no_checkpoints_unless_asked_and_gets_its_model_back(
    in_process: None, place: Path
) -> None:
    run = job(place, name="tidy", keep_checkpoints=0, train={"steps": 3})
    first = train(run)
    store = kept(run)
    assert store.checkpoint_steps() == []
    shutil.rmtree(place / "runs/tidy/model")
    watcher = Watcher()
    again = train(run, watcher)
    assert again.nothing_to_do
    assert again.model_id == load_bundle(f"{run.output}/tidy/model").model_id == first.model_id
    assert any("was gone" in note for note in watcher.notes)


def test_a_failed_run_says_how_far_its_checkpoints_go(
    in_process: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job(place, name="failed", train={"steps": 6})
    monkeypatch.setattr(TrainStore, "save_done", Mock(side_effect=PipelineError("no room left")))
    with pytest.raises(PipelineError, match="no room left"):
        train(run)
    record = kept(run).load_record()
    assert record is not None
    assert (record.state, record.step) == ("failed", 6)


class AlwaysTheSame:
    """A data set whose examples raise what no other try would mend."""

    labels = LABELS

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Example:
        raise OverflowError("cannot convert float infinity to integer")


@pytest.mark.slow  # without Ray, test_leader.py has what is not tried again
def test_an_error_of_the_programs_own_kind_is_not_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spec(*, train_set: Dataset, **rest: Any) -> TrainWorkerSpec:
        return TrainWorkerSpec(train_set=AlwaysTheSame(), **rest)

    monkeypatch.setattr(training, "TrainWorkerSpec", spec)
    watcher = Watcher()
    with pytest.raises(InputError, match=r"failed with OverflowError .*cannot convert float infinity"):
        train(job(place, name="hopeless", val_split=None), watcher)
    assert not any("going on from the newest checkpoint" in note for note in watcher.notes)


def test_without_gpus_of_pytorch_none_are_taken(place: Path) -> None:
    group, notes = resolve_group(job(place, use_gpu=None), private=False)
    assert not group.use_gpu
    assert notes == ["1 worker(s) of 1 CPU on cpu, gradients over gloo"]


def test_bfloat16_that_this_cpu_emulates_is_pointed_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def notes(precision: str, computes_in_it: bool, private: bool = True) -> list[str]:
        monkeypatch.setattr(placement, "has_bfloat16", lambda device: computes_in_it)
        return resolve_group(job(place, use_gpu=False, train={"precision": precision}), private)[1]

    (warning, group) = notes("bfloat16", computes_in_it=False)
    assert "does not compute in bfloat16" in warning
    assert "train.precision auto" in warning
    quiet = [("bfloat16", True, True), ("auto", False, True), ("float32", False, True), ("bfloat16", False, False)]
    assert [notes(*case) for case in quiet] == [[group]] * len(quiet)


def test_nccl_without_gpus_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="nccl needs a CUDA device"):
        train(job(place, name="nccl", backend="nccl"))


def test_float16_without_gpus_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="float16 needs a CUDA device"):
        train(job(place, name="half", use_gpu=None, train={"precision": "float16"}))


def test_workers_that_find_no_room_are_given_up(place: Path) -> None:
    run = job(place, name="too-many", cpus_per_worker=7, workers=2, placement_timeout=3)
    with pytest.raises(PipelineError, match=r"could not be placed within 3 s: 2 worker\(s\) of 7 CPU.* 8 CPU"):
        train(run)
    record = kept(run).load_record()
    assert record is not None
    assert record.state == "failed"


def test_two_drivers_do_not_train_one_run(place: Path) -> None:
    run = job(place, name="held")
    with (
        Lease.acquire(kept(run).store),
        pytest.raises(InputError, match=rf"being written by another run .*process {os.getpid()}"),
    ):
        train(run)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_example_ends_a_run_at_once_and_is_named(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are on Ray: that what a worker raises comes from there, the test of an error above has it as well."""
    if workers == 1:
        monkeypatch.setattr(training, "Group", InProcess)
    write_scenes(tmp_path / "data")
    broken = tmp_path / "data/SegmentationClass/train-05.png"
    broken.write_bytes(encode_mask(np.zeros((16, 16), np.uint8), LABELS))
    with pytest.raises(DataError if workers == 1 else InputError, match=r"train-05.*one height and width"):
        train(job(tmp_path, workers=workers, val_split=None, check_data=False, train={"steps": 9}))
    with pytest.raises(InputError, match=r"not fit for training: masks of another size.*train-05.png: 16x16"):
        train(job(tmp_path, name="looked-through", val_split=None))
    assert not (tmp_path / "runs/looked-through/job.json").exists(), "nothing was begun"


def test_an_image_that_is_trained_and_validated_on_is_refused_before_the_first_step(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    images = tmp_path / "data/JPEGImages"
    shutil.copy(images / "train-03.jpg", images / "val-01.jpg")
    with pytest.raises(InputError, match=r"two splits \(1 in split val: val-01 is train-03 in train\)"):
        train(job(tmp_path))
    assert not (tmp_path / "runs/run/job.json").exists()


def test_masks_that_change_under_a_run_are_noticed_and_files_that_hold_the_same_are_not(
    in_process: None, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    run = job(tmp_path, train={"steps": 2})
    first = train(run)
    mask = tmp_path / "data/SegmentationClass/train-02.png"
    before = mask.read_bytes()
    os.utime(mask, (1, 1))
    watcher = Watcher()
    assert train(run, watcher).nothing_to_do
    assert any("written anew, and hold what they held" in note for note in watcher.notes)
    values = decode_mask(before)
    mask.write_bytes(encode_mask(np.where(values == 0, 1, values).astype(np.uint8), LABELS))
    with pytest.raises(InputError, match=r"begun with other images or masks: files of split train of .*another --name"):
        train(run)
    assert first.model_id is not None

    # What 0.1 wrote does not say what its files were.
    store = kept(run)
    plan = json.loads(store.store.get("job.json"))
    for split in ("train", "val"):
        del plan["plan"][split]["files"], plan["plan"][split]["content"]
    store.store.put("job.json", json.dumps(plan).encode())
    assert train(run).nothing_to_do


def test_a_trained_model_says_which_images_it_has_seen_and_so_does_one_that_was_started_from_it(
    in_process: None, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    run = job(tmp_path, train={"steps": 1})
    train(run)
    seen = load_bundle(f"{run.output}/{run.name}/model").trained_on
    assert seen is not None
    trained, val = ([pixel_digest(example.image) for example in open_dataset(run, split)] for split in ("train", "val"))
    assert (seen.images, seen.count(trained), seen.count(val)) == (4, 4, 0)

    more = job(
        tmp_path,
        name="more",
        model=f"{run.output}/{run.name}/model",
        train_split="val",
        val_split=None,
        train={"steps": 1},
        **dict.fromkeys(("arch", "width", "head_width")),
    )
    train(more)
    seen = load_bundle(f"{more.output}/more/model").trained_on
    assert seen is not None
    assert (seen.images, seen.count(trained), seen.count(val)) == (6, 4, 2)


def test_a_training_that_is_stopped_while_its_data_is_read_has_begun_nothing(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    report = train(job(tmp_path), should_stop=lambda: True)
    assert report.state == "interrupted"
    assert not (tmp_path / "runs/run/job.json").exists()
