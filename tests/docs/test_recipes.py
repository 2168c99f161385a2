"""The jobs that the pages hand out can be run as they are."""

from pathlib import Path

import pytest

from pipeline.jobs.job_file import read_job_file
from pipeline.jobs.train import TrainJob

RECIPES = sorted((Path(__file__).parents[2] / "docs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_training_with_nothing_missing_but_places(path: Path) -> None:
    places = {"dataset": "camvid/", "output": "training/", "model": "vgg16_trunk.safetensors"}
    job = TrainJob.model_validate(places | read_job_file(path))
    assert job.name == path.stem
    assert job.train_config(job.arch or "fcn8s").augmentation.crop_height is not None
