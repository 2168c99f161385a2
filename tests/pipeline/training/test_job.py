"""Training jobs on a real local Ray: what they keep, what they survive, and what they refuse."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fcn_core.bundle import MODEL_FILE, WEIGHTS_FILE
from fcn_core.evaluation import evaluate
from fcn_core.labels import encode_mask
from pipeline.data.datasets import open_dataset
from pipeline.errors import InputError, PipelineError
from pipeline.models.load import load_bundle
from pipeline.outputs.lease import Lease
from pipeline.training.job import TrainReport, train
from pipeline.training.placement import settle_group
from pipeline.training.progress import TrainProgress
from tests.trainings import (
    LABELS,
    Watcher,
    assert_each_once_an_epoch,
    job,
    kept,
    kill_a_worker,
    seen_examples,
    training_workers,
    write_scenes,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

LONG = {
    "workers": 2,
    "dropout": 0.0,
    "val_split": None,
    "record_examples": True,
    "save_every": 5,
    "width": 0.25,
    "train": {"steps": 30, "augmentation": {"crop_height": 160, "crop_width": 160}},
}
"""Two workers, ten epochs of twelve examples in batches of four, some 0.1 s a step: time enough to be disturbed."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data is that most tests of this file train on; each keeps its run under a name of its own."""
    folder = tmp_path_factory.mktemp("training")
    write_scenes(folder / "data")
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path, ray_cluster: None) -> TrainReport:
    return train(job(place, name="undisturbed", **LONG))


def test_a_finished_run_has_its_model_curves_and_records_and_nothing_more_to_do(place: Path) -> None:
    run = job(place, name="plain", validate_every=1.0, train={"steps": 9})
    report = train(run)
    assert report.state == "finished"
    assert report.steps == 9
    store = kept(run)
    assert store.checkpoint_steps() == [8, 9], "the newest two"
    history = store.load_history()
    assert [point.step for point in history.losses] == list(range(1, 10))
    assert [point.step for point in history.validations] == [3, 6, 9]
    assert history.best is not None
    bundle = load_bundle(f"{run.output}/{run.name}/model")
    assert bundle.model_id == report.model_id
    assert report.scores == history.best.scores
    assert bundle.provenance["run"] == "plain"
    assert bundle.provenance["started_from"]["model_id"] == store.load_start().model_id
    assert evaluate(bundle, open_dataset(run, "val")).mean_iu == pytest.approx(history.best.scores.mean_iu)
    record = store.load_record()
    assert record is not None
    assert record.state == "finished"
    progress = store.load_progress()
    assert progress is not None
    assert progress.step == 9
    assert progress.best_mean_iu == history.best.scores.mean_iu
    (events,) = store.store.list("tensorboard/")
    assert "tfevents" in events.key
    assert b"val/mean_iu" in store.store.get(events.key)

    again = train(job(place, name="plain", validate_every=1.0, train={"steps": 9, "workers": 1}, max_failures=3))
    assert again.nothing_to_do, "where and how fast it runs is not what it is"
    assert again.model_id == report.model_id
    with pytest.raises(InputError) as refusal:
        train(job(place, name="plain", validate_every=1.0, train={"steps": 9, "learning_rate": 0.5}))
    assert "learning_rate was 0.001 and is 0.5" in str(refusal.value)


def test_a_worker_that_dies_costs_nothing_but_time(place: Path, undisturbed: TrainReport) -> None:
    killed: list[int] = []

    def kill_one(progress: TrainProgress) -> None:
        if progress.step >= 8 and not killed:
            killed.append(progress.step)
            kill_a_worker()

    watcher = Watcher(kill_one)
    run = job(place, name="killed", **LONG)
    report = train(run, watcher)
    assert killed
    assert killed[0] < 30, "the test wants to kill in the middle"
    assert report.failures == 1
    assert any("died; going on" in note for note in watcher.notes), watcher.notes
    assert report.model_id == undisturbed.model_id, "the weights are the same, bit for bit"
    assert kept(run).load_history() == kept(job(place, name="undisturbed", **LONG)).load_history()
    assert_each_once_an_epoch(kept(run), examples=12, steps=30, batch_size=4)


def test_a_run_that_is_stopped_saves_and_the_same_job_goes_on(place: Path, undisturbed: TrainReport) -> None:
    stop = threading.Event()
    watcher = Watcher(lambda progress: stop.set() if progress.step >= 3 else None)
    run = job(place, name="stopped", **LONG | {"save_every": 1000})
    report = train(run, watcher, stop.is_set)
    assert report.state == "interrupted"
    assert 3 <= report.steps < 30
    assert kept(run).checkpoint_steps() == [report.steps], "it saved where it stopped"
    deadline = time.monotonic() + 60
    while training_workers():  # Ray ends them, and takes a moment where much else goes on
        assert time.monotonic() < deadline, "workers outlive their training"
        time.sleep(0.1)
    record = kept(run).load_record()
    assert record is not None
    assert record.state == "interrupted"

    report = train(run)
    assert report.state == "finished"
    assert report.model_id == undisturbed.model_id
    assert_each_once_an_epoch(kept(run), examples=12, steps=30, batch_size=4)


def test_one_worker_and_two_take_the_same_steps(place: Path, undisturbed: TrainReport) -> None:
    """To the last bit of float64, tests/fcn_core/test_distributed_training.py has it."""
    alone = job(place, name="alone", **LONG | {"workers": 1})
    train(alone)
    one, two = kept(alone), kept(job(place, name="undisturbed", **LONG))
    assert seen_examples(one) == seen_examples(two)
    losses = [[point.loss for point in store.load_history().losses] for store in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 30
    # The first steps only, and coarsely: sums in another order are rounded otherwise, and from step to step that grows.
    np.testing.assert_allclose(losses[0][:6], losses[1][:6], rtol=1e-2)


def test_stages_start_from_one_another_and_are_taken_up_where_they_were(place: Path) -> None:
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

    assert train(run, StopsBetweenStages(), stop.is_set).state == "interrupted"
    first, second = (kept(run).stage(arch) for arch in ("fcn32s", "fcn16s"))
    coarse = first.load_best(4)
    start = second.load_start()
    shared = coarse.state.keys() & start.state.keys()
    assert "fc6.weight" in shared
    assert all(coarse.state[name].equal(start.state[name]) for name in shared)

    watcher = Watcher()
    report = train(run, watcher)
    assert report.state == "finished"
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


def test_workers_hold_the_gpus_that_ray_says_there_are(place: Path) -> None:
    watcher = Watcher()
    run = job(place, name="gpus", workers=2, use_gpu=True, placement="SPREAD", val_split=None, train={"steps": 2})
    run = run.model_copy(update={"nccl": {"NCCL_DEBUG": "INFO"}, "resources_per_worker": {"memory": 1e8}})
    report = train(run, watcher)
    assert report.state == "finished"
    assert any("1 GPU and 1e+08 memory" in note for note in watcher.notes), watcher.notes
    assert any("PyTorch sees no CUDA device" in note for note in watcher.notes), "the GPUs of this test are not real"


def test_without_gpus_of_pytorch_none_are_taken(place: Path) -> None:
    group, notes = settle_group(job(place, use_gpu=None), private=False)
    assert not group.use_gpu
    assert notes == ["1 worker(s) of 1 CPU on cpu, gradients over gloo"]


def test_nccl_without_gpus_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="nccl needs a CUDA device"):
        train(job(place, name="nccl", backend="nccl"))


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


def test_a_bad_example_ends_a_run_at_once_and_is_named(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    broken = tmp_path / "data/SegmentationClass/train-05.png"
    broken.write_bytes(encode_mask(np.zeros((16, 16), np.uint8), LABELS))
    with pytest.raises(InputError, match=r"train-05.*one height and width"):
        train(job(tmp_path, workers=2, val_split=None, train={"steps": 9}))


def test_a_bucket_holds_data_and_run_as_a_folder_does(bucket: str, undisturbed: TrainReport) -> None:
    write_scenes(f"s3://{bucket}/data")
    stop = threading.Event()
    run = job(f"s3://{bucket}", **LONG)
    watcher = Watcher(lambda progress: stop.set() if progress.step >= 3 else None)
    assert train(run, watcher, stop.is_set).state == "interrupted"
    report = train(run)
    assert report.model_id == undisturbed.model_id
    store = kept(run)
    assert store.checkpoint_steps() == [25, 30]
    assert_each_once_an_epoch(store, examples=12, steps=30, batch_size=4)
    written = {info.key for info in store.store.list()}
    assert {f"model/{MODEL_FILE}", f"model/{WEIGHTS_FILE}", "history.json", "run.json", "job.json"} <= written
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    assert not any(secret in store.store.get(key) for key in written if key.endswith(".json"))
