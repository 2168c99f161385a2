"""`fcn evaluate`: what a person types and sees."""

import json
from pathlib import Path

import pytest

from pipeline.actors import shard_runner
from pipeline.cli.app import run as fcn
from pipeline.models.registry import open_registry
from tests.commands import refused
from tests.in_process import InProcess
from tests.labelled import LABELS, write_labelled
from tests.samples import jpeg, model

pytestmark = pytest.mark.usefixtures("ray_cluster")

OPTIONS = ("--labels", "camvid", "--device", "cpu", "--cpus-per-actor", "1", "--actors", "1")


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_runner, "ShardPool", InProcess)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    write_labelled(folder, 6)
    return folder


def test_the_table_has_the_four_scores_and_every_class(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fcn(["evaluate", str(model_dir), str(data), *OPTIONS]) == 0
    shown = capsys.readouterr()
    for name in LABELS.names:
        assert name in shown.out
    for score in ("mean IoU 0.", "pixel accuracy 0.", "mean accuracy 0.", "frequency-weighted IoU 0."):
        assert score in shown.out
    assert f"on split val of {data}: 6 images" in shown.out
    assert "phase=" in shown.err


def test_json_is_all_of_standard_output(
    model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores"
    assert fcn(["evaluate", str(model_dir), str(data), *OPTIONS, "--json", "--output", str(output)]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    written = json.loads((output / "scores.json").read_text())
    assert found == written | {
        "output": str(output),
        "per_image": "images.parquet",
        "contact_sheet": "worst.png",
        "page": "index.html",
    }
    assert len(found["scores"]["per_class_iou"]) == len(found["classes"]) == LABELS.num_classes
    assert str(output) in shown.err


def test_options_can_stand_in_a_file(
    model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evaluate.yaml"
    config.write_text(f"model: {model_dir}\ndataset: {data}\nlabels: camvid\nsplit: none\nactors: 1\ndevice: cpu\n")
    assert "no split 'none' (it has 'val')" in refused(capsys, "evaluate", "--config", config)
    assert fcn(["evaluate", "--config", str(config), "--split", "val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "val"


def test_a_champion_is_evaluated_by_its_name(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = open_registry(str(tmp_path / "registry"))
    version = registry.publish("road", model(seed=3))
    registry.promote("road", version, reason="the first")
    command = ["evaluate", "registry:road@champion", str(data), *OPTIONS, "--registry", str(tmp_path / "registry")]
    assert fcn([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["model"]
    assert (found["asked"], found["name"], found["version"]) == ("registry:road@champion", "road", version)


def test_bad_input_is_one_sentence(
    model_dir: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> str:
        return refused(capsys, "evaluate", *arguments)

    assert "there is no model at" in refuse(tmp_path / "no-model", data, *OPTIONS)
    assert "no-data" in refuse(model_dir, tmp_path / "no-data", *OPTIONS)
    assert "no split 'test' (it has 'val')" in refuse(model_dir, data, *OPTIONS, "--split", "test")
    assert "has 21" in refuse(model_dir, data, "--preset", "voc2012")
    assert "nothing says which classes" in refuse(model_dir, data)
    assert "/proc/scores" in refuse(model_dir, data, *OPTIONS, "--output", "/proc/scores")
    assert "no-such-bucket-here" in refuse(model_dir, "s3://no-such-bucket-here/x", *OPTIONS)
    assert "--worst" in refuse(model_dir, data, "--worst", "-1")
    assert "--split" in refuse(model_dir, data, "--spilt", "val")


def test_every_broken_example_is_a_line_and_the_command_fails(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labelled(tmp_path, 16)
    for index in range(12):
        (tmp_path / "JPEGImages" / f"{index:03d}.jpg").write_bytes(jpeg(64, 48)[:300])
    assert fcn(["evaluate", str(model_dir), str(tmp_path), *OPTIONS]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert sum("error=truncated" in line for line in shown.err.splitlines()) == 12
    (sentence,) = [line for line in shown.err.splitlines() if line.startswith("fcn: ")]
    assert "12 of 16 examples" in sentence
    assert "and 2 more" in sentence
    assert fcn(["evaluate", str(model_dir), str(tmp_path), *OPTIONS, "--allow-errors"]) == 0
    assert "4 images, 12 left out" in capsys.readouterr().out


def test_what_is_stopped_exits_as_interrupted(
    model_dir: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    class Interrupted(InProcess):
        def run(self, *arguments: object) -> bool:  # type: ignore[override]
            os.kill(os.getpid(), signal.SIGTERM)
            return super().run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_runner, "ShardPool", Interrupted)
    assert fcn(["evaluate", str(model_dir), str(data), *OPTIONS]) == 130
    assert "nothing was written" in capsys.readouterr().err
