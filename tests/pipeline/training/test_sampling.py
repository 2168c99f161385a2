"""Balanced sampling in a training job: counted once, recorded, and the same after every start."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fcn_core.data.class_pixels import class_pixels
from fcn_core.data.sampling import epoch_order, image_weights
from pipeline.data.datasets import open_dataset
from pipeline.errors import InputError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.training import job as training
from pipeline.training.job import train
from pipeline.training.plan import check_inputs, restored_presence
from pipeline.training.records import Checkpoint
from pipeline.training.store import TrainStore
from tests.trainings import InProcess, Watcher, job, kept, seen_examples, write_scenes

pytestmark = pytest.mark.usefixtures("ray_cluster")

BALANCED = {"steps": 6, "sampling": "class_balanced"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images to train on, of which only one has the class green."""
    monkeypatch.setattr(training, "Group", InProcess)
    write_scenes(tmp_path / "data")
    for index in range(3, 12, 2):
        path = tmp_path / f"data/SegmentationClass/train-{index:02d}.png"
        path.write_bytes((tmp_path / "data/SegmentationClass/train-00.png").read_bytes())
    return tmp_path


class Dies(Exception):
    """What ends a run in its middle."""


def test_rare_classes_are_counted_once_and_a_run_goes_on_by_what_was_counted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"record_examples": True, "val_split": None, "train": BALANCED}
    calm = job(place, name="calm", **options)
    undisturbed = train(calm)
    run = job(place, name="cut", **options)
    save = TrainStore.save_checkpoint

    def save_and_die(store: TrainStore, checkpoint: Checkpoint) -> None:
        save(store, checkpoint)
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(TrainStore, "save_checkpoint", save_and_die)
        with pytest.raises(Dies):
            train(run)
    assert kept(run).checkpoint_steps() == [2], "an epoch has three steps"
    planned = kept(run).load_run()
    assert planned is not None
    assert planned.class_presence is not None
    assert kept(run).load_presence(planned.class_presence, 3) == class_pixels(check_inputs(run).train_set).presence

    monkeypatch.setattr(training, "class_pixels", lambda dataset: pytest.fail("masks are counted once"))
    assert train(run).model_id == undisturbed.model_id
    seen = seen_examples(kept(run))
    assert seen == seen_examples(kept(calm))
    times = sum(seen.values(), start=Counter())
    assert times["train-01"] >= 4, "two epochs would show it twice"


def test_a_damaged_table_is_counted_anew_and_that_of_other_masks_refused(place: Path) -> None:
    run = job(place, val_split=None, train=BALANCED)
    train(run)
    store = kept(run)
    planned = store.load_run()
    assert planned is not None
    (place / f"runs/run/images/classes-{planned.class_presence}.bin").write_bytes(b"damaged")
    (place / "runs/run/done.json").unlink()
    (place / "runs/run/run.json").unlink()
    train(run)
    assert store.load_presence(str(planned.class_presence), 3) is not None
    other = planned.model_copy(update={"class_presence": "0" * 32})
    with pytest.raises(InputError, match="begun with other masks"):
        restored_presence(check_inputs(run), other)


@pytest.mark.skipif("FCN_CAMVID" not in os.environ, reason="FCN_CAMVID names no CamVid folder")
def test_on_camvid_it_does_what_the_page_says() -> None:
    dataset = open_dataset(DatasetOptions(dataset=os.environ["FCN_CAMVID"], preset="camvid"), "train")
    presence = class_pixels(dataset).presence
    table, weights = presence.table(), image_weights(presence)
    places = np.concatenate([epoch_order(len(table), 0, epoch, weights) for epoch in range(20)])
    for name, before, after in (("fence", 0.47, 0.52), ("cyclist", 0.55, 0.58)):
        holds = table[:, dataset.labels.names.index(name)]
        assert (round(holds.mean(), 2), round(holds[places].mean(), 2)) == (before, after)
    epochs = places.reshape(20, -1)
    assert 1 - np.mean([len(set(epoch)) / len(table) for epoch in epochs]) == pytest.approx(0.05, abs=0.01)


def test_uniform_sampling_counts_nothing(place: Path) -> None:
    watcher = Watcher()
    run = job(place, val_split=None, train={"steps": 2})
    train(run, watcher)
    planned = kept(run).load_run()
    assert planned is not None
    assert planned.class_presence is None
    assert not any("counting" in note for note in watcher.notes)
