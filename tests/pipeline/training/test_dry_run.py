"""What a dry run says of a training, and that it leaves nothing behind."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cli.app import run as fcn
from pipeline.data.report import BadData
from pipeline.training.dry_run import describe, dry_run
from tests.trainings import job, options, write_scenes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry")
    write_scenes(folder / "data")
    return folder


def test_it_says_what_would_be_trained_on_what_and_writes_nothing(place: Path) -> None:
    found = dry_run(job(place, arch="fcn16s", staged=True, train={"steps": None, "epochs": 5}))
    assert (found.train_images, found.val_images, found.classes) == (12, 4, 3)
    assert [(stage.arch, stage.steps) for stage in found.stages] == [("fcn32s", 15), ("fcn16s", 15)]
    assert found.seconds == pytest.approx(30 * found.step_seconds)
    assert found.step_seconds > 0
    assert found.memory_bytes > 50e6
    assert found.resumes_at is None
    lines = list(describe(found))
    assert any("fcn32s: 15 steps of 4 images, about" in line for line in lines), lines
    assert not list((place / "runs").rglob("*.json"))


def test_a_time_budget_bounds_what_is_estimated(place: Path) -> None:
    found = dry_run(job(place, train={"steps": 10**8, "max_seconds": 60.0}))
    assert found.seconds == 60
    assert found.stages[0].steps < 10**8


def test_what_a_training_would_refuse_is_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    (tmp_path / "data/JPEGImages/train-01.jpg").write_bytes(b"no image")
    with pytest.raises(BadData, match=r"train-01\.jpg"):
        dry_run(job(tmp_path))


def test_on_the_command_line_it_prints_json_and_ends_well(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = place / "job.yaml"
    file.write_text(yaml.safe_dump(options(place)))
    assert fcn(["train", str(file), "--dry-run", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["train_images"] == 12
    assert printed["seconds"] == pytest.approx(6 * printed["step_seconds"])
