"""Cross-validation: a run per fold, one table, and the same command for what is left."""

import json
import statistics
from pathlib import Path

import pytest
import yaml

from pipeline.cli.app import run as fcn
from pipeline.errors import InputError
from pipeline.jobs.train import TrainJob
from pipeline.storage.opening import open_store
from pipeline.training import job as training
from pipeline.training.cross_validation import TABLE, CrossValidation, Spread, cross_validate
from pipeline.training.job import train
from tests.commands import refused
from tests.trainings import InProcess, Watcher, job, options, write_scenes

pytestmark = pytest.mark.usefixtures("ray_cluster")

SHORT = {"steps": 2}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Group", InProcess)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_scenes(folder / "data", train=7, val=2)
    return folder


def test_each_fold_is_a_run_of_its_own_and_the_same_call_does_what_is_left(place: Path) -> None:
    asked = job(place, name="whole", train=SHORT)
    stopping = Watcher()
    first = cross_validate(asked, 3, observer=stopping, should_stop=lambda: any("fold 2" in n for n in stopping.notes))
    assert (first.state, first.folds_done, first.table) == ("interrupted", 1, None)
    assert not (place / "runs/whole" / TABLE).exists()

    report = cross_validate(asked, 3)
    assert report.state == "finished"
    table = report.table
    assert table is not None
    assert [(fold.train_images, fold.val_images) for fold in table.folds] == [(4, 3), (5, 2), (5, 2)]
    ious = [fold.scores.mean_iou for fold in table.folds if fold.scores is not None]
    assert len(ious) == 3
    assert table.mean_iou.mean == pytest.approx(statistics.fmean(value for value in ious if value is not None))
    assert table.mean_iou.deviation == pytest.approx(statistics.stdev(value for value in ious if value is not None))
    assert list(table.class_iou) == ["ground", "red", "green"]
    kept = open_store(str(place / "runs/whole"))
    assert CrossValidation.model_validate_json(kept.get(TABLE)) == table
    for number in (1, 2, 3):
        assert (place / f"runs/whole/fold-{number}-of-3/model/model.json").exists()

    watcher = Watcher()
    assert cross_validate(asked, 3, observer=watcher).table == table
    assert not any(phase.startswith("training") for phase in watcher.phases), "nothing is trained twice"


def test_what_cannot_be_cut_into_folds_is_refused_before_anything_is_written(place: Path) -> None:
    for wrong, folds, by, match in (
        ({}, 1, "image", "1 folds cannot be trained"),
        ({}, 8, "image", "into 8 folds by image: it has 7"),
        ({}, 2, "prefix", r"into 2 folds by prefix: it has 1 \(it has 'train'\)"),
        ({}, 2, "camera", "only a manifest has columns"),
        ({}, 2, "a=b", "cannot be grouped by 'a=b'"),
        ({"val_split": {"by": "image", "share": 0.3}}, 2, "image", "is a part of a split already"),
    ):
        with pytest.raises(InputError, match=match):
            cross_validate(job(place, name="refused", **wrong), folds, by)
    assert not (place / "runs/refused").exists() or not list((place / "runs/refused").iterdir())


def test_a_training_of_the_same_name_is_left_alone(place: Path) -> None:
    mine = job(place, name="mine", train=SHORT)
    train(mine)
    with pytest.raises(InputError, match="holds a training; give the cross-validation another --name"):
        cross_validate(mine, 2)


def test_a_fold_without_a_score_leaves_the_others_mean() -> None:
    found = Spread.of([0.5, None, 0.7])
    assert (found.mean, found.deviation) == (pytest.approx(0.6), pytest.approx(statistics.stdev([0.5, 0.7])))
    assert Spread.of([None]) == Spread(mean=None, deviation=None)
    assert Spread.of([0.5]) == Spread(mean=0.5, deviation=None)


def test_on_the_command_line_it_prints_a_row_per_fold(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = place / "job.yaml"
    file.write_text(yaml.safe_dump(options(place, name="cli", train=SHORT)))
    assert fcn(["train", str(file), "--cross-validate", "2"]) == 0
    printed = capfd.readouterr().err
    assert "spread" in printed
    assert "cross_validation.json" in printed
    assert fcn(["train", str(file), "--cross-validate", "2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["state"] == "finished"
    assert [fold["val_images"] for fold in found["table"]["folds"]] == [4, 3]
    assert "give one of them" in refused(capfd, "train", str(file), "--cross-validate", "2", "--dry-run")
    assert "give --cross-validate" in refused(capfd, "train", str(file), "--folds-by", "prefix")


def test_a_fold_is_an_ordinary_job(place: Path) -> None:
    asked = job(place, name="ordinary", train=SHORT, train_split="train:image!@1of3", val_split="train:image@1of3")
    assert TrainJob.model_validate(asked.model_dump()) == asked
    assert train(asked).state == "finished"
