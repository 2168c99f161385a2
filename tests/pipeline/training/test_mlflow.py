"""Trainings and promotions in MLflow: on a real server where MLflow is installed, and on one that does not answer."""

import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fcn_core import ModelBundle
from pipeline.mlflow_link import trouble
from pipeline.models.registry import open_registry
from pipeline.training import job as training
from pipeline.training import mlflow_run
from pipeline.training.job import train
from pipeline.training.mlflow_run import followed
from pipeline.training.observer import TrainObserver
from pipeline.training.progress import TrainProgress
from tests.plugins.isolation import child_path
from tests.requires import requires
from tests.samples import model
from tests.standing_ray import end, free_port, wait_for
from tests.trainings import InProcess, Watcher, job, kept, write_scenes

pytestmark = [pytest.mark.usefixtures("in_process"), pytest.mark.timeout(900)]

STEPS = 6


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process, without Ray: MLflow hears of them from the driver."""
    monkeypatch.setattr(training, "Group", InProcess)
    monkeypatch.setattr(training.cluster, "connect", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(mlflow_run, "LOG_SECONDS", 0.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    write_scenes(folder / "data")
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server's client, as a person would use it; the environment names the server."""
    requires("mlflow", install="'fcn-pipeline[mlflow-server]'")
    if importlib.util.find_spec("flask") is None:
        pytest.skip("MLflow's server is not installed, its client alone: pip install 'fcn-pipeline[mlflow-server]'")
    port, log = free_port(), tmp_path / "mlflow.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": child_path(), "GIT_PYTHON_REFRESH": "quiet"}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, *places], env=os.environ | quiet, cwd=tmp_path, stdout=sink, stderr=sink, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        from mlflow import MlflowClient

        yield MlflowClient(f"http://127.0.0.1:{port}")
    finally:
        end(process)


def test_a_training_is_one_run_with_curves_parameters_and_bundle_and_promotions_follow(
    server: Any, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stops = [True, False]

    def stop_once(progress: TrainProgress) -> None:
        stops[0] = stops[0] and progress.step < 3

    asked = job(place, name="tracked", train={"steps": STEPS}, save_every=2)
    first = train(asked, Watcher(stop_once), should_stop=lambda: not stops[0])
    report = train(asked) if first.state == "interrupted" else first
    again = train(asked)
    assert again.nothing_to_do
    assert capfd.readouterr().out == "", "standard output is the command's"

    (run,) = server.search_runs([server.get_experiment_by_name("fcn-pipeline").experiment_id])
    assert (run.info.run_name, run.info.status) == ("tracked", "FINISHED")
    assert run.data.params["train.steps"] == str(STEPS)
    assert run.data.params["dataset"] == str(place / "data")
    assert "nccl" not in str(run.data.params)
    history = kept(asked).load_history()
    losses = server.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in losses] == [point.step for point in history.losses], "each point once"
    assert [point.value for point in losses] == [point.loss for point in history.losses]
    assert run.data.metrics["val/mean_iou"] == history.validations[-1].scores.mean_iou
    assert any(name.startswith("val_iou/") for name in run.data.metrics)
    bundle = server.download_artifacts(run.info.run_id, "model", str(tmp_path))
    assert ModelBundle.load(bundle).model_id == report.model_id

    registry = open_registry(str(tmp_path / "registry"))
    trained, other = registry.publish("street", ModelBundle.load(bundle)), registry.publish("street", model())
    shown = []
    for version in (trained, other, trained):
        registry.promote("street", version, "better\nby far")
        shown.append(server.get_model_version_by_alias("street", "champion"))
    assert [each.version for each in shown] == ["1", "2", "1"], "a version that comes back is no new one"
    assert [each.tags["fcn.model_id"] for each in shown] == [trained, other, trained]
    assert (shown[0].run_id, shown[0].source) == (run.info.run_id, f"runs:/{run.info.run_id}/model")
    assert shown[1].source == f"registry://street/{other}"
    assert (shown[2].tags["fcn.promotion"], shown[2].tags["fcn.reason"]) == ("3", "better by far")


def test_an_mlflow_that_is_away_ends_nothing_and_is_named_once_without_its_password(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:pass-word@127.0.0.1:{free_port()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    watcher = Watcher()
    assert train(job(place, name="alone", train={"steps": STEPS}), watcher).state == "finished"
    (line,) = (note for note in watcher.notes if "MLflow" in note)
    assert "\n" not in line
    registry = open_registry(str(tmp_path / "registry"))
    with caplog.at_level(logging.WARNING):
        assert registry.promote("street", registry.publish("street", model()), "the first") == 1
    (record,) = (record for record in caplog.records if "not_mirrored" in record.getMessage())
    assert "pass-word" not in line + record.getMessage()


def test_without_an_mlflow_nobody_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    observer = TrainObserver()
    assert followed(observer) is observer


def test_secrets_of_the_environment_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hidden@mlflow.example/")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    said = trouble(RuntimeError("GET https://me:hidden@mlflow.example/api with t0ken was refused\nand more"))
    assert said == "MLflow at mlflow.example fails: GET https://mlflow.example/api with *** was refused"


@pytest.mark.parametrize(
    ("name", "shown"), [("sky", "sky"), ("pole (thin)", "pole _thin_-"), ("a/b", "a_b-"), ("a_b", "a_b")]
)
def test_names_of_classes_become_names_that_mlflow_takes_and_stay_apart(name: str, shown: str) -> None:
    assert mlflow_run._metric_name(f"val_iou/{name}").startswith(f"val_iou/{shown}")
