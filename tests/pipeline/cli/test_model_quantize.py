"""`fcn model quantize`: what it prints and makes, and that the registry and jobs take what it makes."""

from pathlib import Path

import pytest
from PIL import Image

from fcn_core.bundle import ModelBundle
from pipeline.cli.app import run as fcn
from pipeline.models.load import load_bundle
from pipeline.models.registry import open_registry
from pipeline.segmentation.calibration import sample_images
from tests.commands import refused
from tests.fcn_core.nets import photo, small_bundle
from tests.requires import requires

requires("nncf", install="'fcn-pipeline[quantize]'")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(8):
        Image.fromarray(photo(80, 100, seed)).save(folder / f"{seed}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def test_a_model_becomes_int8_is_published_and_loads(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_bundle().save(tmp_path / "model")
    command = ["model", "quantize", f"{tmp_path}/model", "--calibrate", f"{photos}", "-o", f"{tmp_path}/model8"]
    assert fcn([*command, "--images", "8"]) == 0
    made = ModelBundle.load(tmp_path / "model8")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"{tmp_path}/model8: int8 of model {small_bundle().model_id}, model_id {made.model_id}"
    assert printed[1].endswith("of the pixels of 2 images that took no part in calibration are as in float32")
    assert load_bundle(f"{tmp_path}/model8").model_id == made.model_id

    (tmp_path / "registry").mkdir()
    registry = open_registry(f"{tmp_path}/registry")
    version = registry.publish("street", made)
    registry.promote("street", version, "faster")
    assert load_bundle("registry:street@champion", f"{tmp_path}/registry").int8 == made.int8


def test_the_same_images_are_taken_each_time(photos: Path) -> None:
    first, again = (sample_images(f"{photos}", 3) for _ in range(2))
    assert len(first) == 3
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]


def test_a_place_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_bundle().save(tmp_path / "model")
    (tmp_path / "empty").mkdir()
    said = refused(capsys, "model", "quantize", tmp_path / "model", "--calibrate", tmp_path / "empty", "-o", "x")
    assert "holds no image that could be read" in said
