"""The demo's training job and the data set it trains on; the training itself is part of the whole demo's test."""

from pathlib import Path

import pytest

from fcn_core.labels import decode_mask
from flows.demo.bucket import FIRST_SEED, HELD_OUT_SEEDS, TRAINING_SEEDS, upload_dataset
from flows.demo.scenes import SCENE_LABELS, generate_scene, scene_size
from flows.demo.training import demo_job
from pipeline.actors import cluster
from pipeline.data.check import check_dataset
from pipeline.data.datasets import open_dataset
from pipeline.jobs.dataset import DatasetOptions
from pipeline.storage.opening import open_store


@pytest.mark.parametrize(("cpus", "workers", "threads"), [(1, 1, 1), (2, 2, 1), (3, 2, 1), (8, 2, 4), (64, 2, 4)])
def test_two_workers_share_the_cpus_and_a_single_cpu_gets_one(
    cpus: int, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "nodes", lambda: [cluster.NodeResources(cpus=float(cpus), gpus=0.0)])
    job = demo_job("s3://b/labelled", "s3://b/training", "/tmp/cache", {})
    assert job.workers == (workers, workers)
    assert job.cpus_per_worker == threads
    assert job.train_config("fcn8s").max_seconds == 100


def test_an_option_of_the_caller_wins_and_the_recipe_stays() -> None:
    job = demo_job("data", "runs", "cache", {"workers": 1, "train": {"steps": 3}})
    config = job.train_config("fcn8s")
    assert job.workers == (1, 1)
    assert (config.steps, config.warmup_steps, config.augmentation.crop_height) == (3, 20, 192)


def test_the_data_set_holds_the_scenes_of_its_seeds_and_passes_the_check(tmp_path: Path) -> None:
    told: list[int] = []
    store = open_store(str(tmp_path))
    upload_dataset({"train": range(3), "val": range(50, 52)}, store, told.append)
    assert told == [1, 2, 3, 4, 5]
    options = DatasetOptions(dataset=str(tmp_path))
    report = check_dataset(options)
    assert report.ok
    assert [(split.name, split.usable) for split in report.splits] == [("train", 3), ("val", 2)]
    held_out = open_dataset(options, "val")
    assert held_out.labels == SCENE_LABELS
    assert [pair.name for pair in held_out.pairs] == ["scene-00050", "scene-00051"]
    truth = generate_scene(50, *scene_size(50)).mask
    assert (held_out[0].mask == truth).all()
    assert (decode_mask(store.get("SegmentationClass/scene-00050.png")) == truth).all()


def test_no_scene_is_trained_on_and_measured_by() -> None:
    assert not set(TRAINING_SEEDS) & set(HELD_OUT_SEEDS)
    assert max(*TRAINING_SEEDS, *HELD_OUT_SEEDS) < FIRST_SEED - 1000
