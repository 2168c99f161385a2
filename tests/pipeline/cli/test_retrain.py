"""`fcn retrain`: one training, a champion and a loser, and what a person and a program read of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.app import run as fcn
from pipeline.cli.console import stderr_console
from pipeline.cli.console_retrain import observe
from pipeline.errors import StorageUnavailable
from pipeline.models.registry import open_registry
from pipeline.training import job as training
from tests.in_process import evaluate_in_process, segment_in_process
from tests.trainings import InProcess, options, write_scenes

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}


@pytest.fixture
def without_actors(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of trainings and actors are this process: they take seconds to start."""
    monkeypatch.setattr(training, "Group", InProcess)
    evaluate_in_process(monkeypatch)
    segment_in_process(monkeypatch)


def write_job(place: Path, **changes: Any) -> Path:
    contest = {"registry": f"{place}/registry", "registry_name": "squares", "margin": 0.0, "evaluation": ACTORS}
    contest["min_mean_iou"] = 0.0  # so few steps do not beat the commonest class
    file = place / "retrain.yaml"
    file.write_text(yaml.safe_dump(options(place) | contest | changes))
    return file


@pytest.mark.usefixtures("without_actors")
def test_a_first_challenger_is_champion_and_labels_and_the_same_again_promotes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(tmp_path / "data", train=4, val=2)
    (tmp_path / "registry").mkdir()
    relabel = {"source": f"{tmp_path}/data/JPEGImages", "output": f"{tmp_path}/labels", "no_report": True} | ACTORS
    file = write_job(tmp_path, relabel=relabel)

    assert fcn(["retrain", str(file), "--json"]) == 0
    printed = capsys.readouterr()
    first = json.loads(printed.out)
    champion = open_registry(f"{tmp_path}/registry").champion("squares")
    assert (first["promoted"], first["promotion"]) == (True, 1)
    assert champion is not None
    assert champion.version == first["version"]
    assert first["relabelled"]["ok"] == 6
    assert f"registry:squares@{first['version']}, champion by promotion 1" in printed.err

    def fails(*arguments: object) -> None:
        raise StorageUnavailable("s3://labels does not answer.")

    with monkeypatch.context() as broken:
        broken.setattr("pipeline.retraining.job.segment", fails)
        assert fcn(["retrain", str(file), "--json"]) == 1
    printed = capsys.readouterr()
    again = json.loads(printed.out)
    assert (again["promoted"], again["version"], again["relabelled"]) == (False, first["version"], None)
    assert f"registry:squares@{first['version']}, champion by promotion 1" in printed.err, "what is done is told"
    assert "fcn: the retraining is done, and the labelling after it failed: s3://labels does not answer." in printed.err

    # Nothing can win by a whole unit of IoU.
    assert fcn(["retrain", str(file), "--json", "--name", "second", "--margin", "1", "--train.seed", "1"]) == 0
    printed = capsys.readouterr()
    loser = json.loads(printed.out)
    assert (loser["promoted"], loser["promotion"], loser["relabelled"]) == (False, None, None)
    assert f"not promoted: {loser['reason']}" in printed.err.replace("\n", " ")
    assert open_registry(f"{tmp_path}/registry").champion("squares") == champion


def test_what_is_missing_is_named_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "retrain.yaml"
    file.write_text(yaml.safe_dump(options(tmp_path)))
    assert fcn(["retrain", str(file)]) == 2
    assert "registry_name" in capsys.readouterr().err.replace("-", "_")


def test_where_a_part_waits_at_its_end_a_log_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with observe(stderr_console()) as observer:
        for _ in range(3):  # as every half second, while the last model is validated
            observer.progress(1.0, "step 9 of 9")
        observer.progress(1.0, "scoring the champion: 4 of 4 images")
    assert capsys.readouterr().err.count("progress=") == 2
