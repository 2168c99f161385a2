"""`fcn registry`, and every command that names a model by registry."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fcn_core import resolve_settings
from fcn_core.metrics import ConfusionMatrix
from pipeline.cli.app import run as fcn
from pipeline.evaluation.files import EvaluationRecord, images_table, write_evaluation
from pipeline.models.origin import ModelOrigin
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.samples import jpeg, model

BUNDLES = (
    replace(model(seed=0), scores={"mean_iou": 0.5, "pixel_accuracy": 0.8}),
    model(seed=1),
)
A, B = (bundle.model_id for bundle in BUNDLES)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name, bundle in zip("ab", BUNDLES, strict=True):
        bundle.save(folder / name)
    return folder / "a", folder / "b"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty registry that FCN_REGISTRY names."""
    monkeypatch.setenv("FCN_REGISTRY", str(tmp_path / "registry"))
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def filled(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Two versions of road; the first is champion."""
    for bundle in bundles:
        assert fcn(["registry", "publish", "road", str(bundle)]) == 0
    assert fcn(["registry", "promote", "road", A, "--reason", "the first"]) == 0
    capsys.readouterr()


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The JSON that a `fcn registry` command prints."""
    assert fcn(["registry", *(str(argument) for argument in arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_publish_promote_and_go_back(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "list") == []
    assert answer(capsys, "publish", "road", bundles[0], "--note", "from May") == {
        "name": "road", "version": A, "new": True,
    }  # fmt: skip
    assert answer(capsys, "publish", "road", bundles[0])["new"] is False
    assert answer(capsys, "publish", "road", bundles[1])["version"] == B
    assert answer(capsys, "list") == [{"name": "road", "champion": None}]
    first = answer(capsys, "promote", "road", A, "--reason", "the first")
    assert (first["number"], first["previous"], first["scores"]["mean_iou"]) == (1, None, 0.5)
    second = answer(capsys, "promote", "road", B, "--reason", "better", "--after", 1)
    assert (second["number"], second["previous"]) == (2, A)
    answer(capsys, "promote", "road", A, "--reason", "B mistakes snow for sky")
    assert answer(capsys, "champion", "road")["version"] == A
    assert [each["version"] for each in answer(capsys, "champion", "road", "--history")] == [A, B, A]
    versions = answer(capsys, "list", "road")
    assert [(each["version"], each["champion"]) for each in versions] == [(B, None), (A, 3)]
    assert versions[1]["notes"] == {"note": "from May"}
    shown = answer(capsys, "show", "road")
    assert (shown["version"], shown["labels"], shown["scores"]["mean_iou"]) == (A, "camvid", 0.5)
    assert shown == answer(capsys, "show", "registry:road@champion") == answer(capsys, "show", f"road@{A}")


@pytest.mark.usefixtures("filled")
def test_tables_show_whole_versions_however_narrow_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for command in (
        ["list"],
        ["list", "road"],
        ["champion", "road"],
        ["champion", "road", "--history"],
        ["show", "road"],
    ):
        assert fcn(["registry", *command]) == 0
        out = capsys.readouterr().out
        assert A in out, command
        assert (B in out) == (command == ["list", "road"])


@pytest.mark.usefixtures("filled")
def test_what_people_wrote_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["registry", "promote", "road", B, "--reason", "[red]\x1b[31mred"]) == 0
    for command in (["list"], ["champion", "road"], ["champion", "road", "--history"]):
        assert fcn(["registry", *command]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "[red]" in out


@pytest.mark.usefixtures("filled")
def test_commands_take_a_model_by_registry(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fcn(["model", "show", "registry:road@champion", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model_id"] == A
    monkeypatch.delenv("FCN_REGISTRY")
    assert fcn(["model", "show", f"registry:road@{B}", "--json", "--registry", str(home)]) == 0
    assert json.loads(capsys.readouterr().out)["model_id"] == B
    assert "FCN_REGISTRY" in refused(capsys, "model", "show", "registry:road")
    (tmp_path / "a.jpg").write_bytes(jpeg(64, 48))
    look = ["preview", str(tmp_path / "a.jpg"), "--model", "registry:road", "-o", str(tmp_path / "look.png")]
    assert fcn([*look, "--registry", str(home)]) == 0
    assert (tmp_path / "look.png").stat().st_size
    capsys.readouterr()
    message = refused(capsys, "segment", tmp_path, tmp_path / "out", "--model", "registry:raod", "--registry", home)
    assert "there is no model raod" in message
    assert "there are: road" in message


@pytest.mark.usefixtures("filled")
def test_a_model_can_be_published_under_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "publish", "street", "registry:road@champion")["version"] == A
    assert [each["name"] for each in answer(capsys, "list")] == ["road", "street"]


@pytest.mark.usefixtures("filled")
def test_bad_input_is_named_in_one_sentence(
    bundles: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("../road", "ro ad", "", "röad", "a/b"):
        assert "cannot name a model" in refused(capsys, "registry", "publish", name, bundles[0])
        assert "cannot name a model" in refused(capsys, "registry", "champion", name)
        assert "cannot name a model" in refused(capsys, "registry", "show", f"{name}@champion")
    assert "there is no model at" in refused(capsys, "registry", "publish", "road", tmp_path / "none")
    assert "cannot be a version" in refused(capsys, "registry", "promote", "road", "latest", "--reason", "x")
    assert "has no version" in refused(capsys, "registry", "promote", "road", "0" * 16, "--reason", "x")
    assert "--reason" in refused(capsys, "registry", "promote", "road", B)
    assert "needs a reason" in refused(capsys, "registry", "promote", "road", B, "--reason", " ")
    assert "there is no model sea" in refused(capsys, "registry", "champion", "sea")
    assert "no-such-place" in refused(capsys, "registry", "list", "--registry", tmp_path / "no-such-place")
    monkeypatch.delenv("FCN_REGISTRY")
    assert "FCN_REGISTRY" in refused(capsys, "registry", "list")


@pytest.mark.usefixtures("filled")
def test_a_promotion_after_another_champion_fails_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["registry", "promote", "road", B, "--reason", "better than none", "--after", "0"]) == 1
    assert "no longer 0" in capsys.readouterr().err
    assert answer(capsys, "champion", "road")["number"] == 1


@pytest.mark.usefixtures("filled")
def test_a_promotion_keeps_the_scores_of_the_evaluation_it_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = EvaluationRecord(
        model=ModelOrigin(asked="m", uri="m", model_id=B),
        model_id=B,
        params_id="p",
        settings=resolve_settings(device="cpu"),
        dataset="s3://data/camvid",
        split="val",
        classes=("a", "b"),
        examples=3,
        examples_digest="5d41402abc4b2a76",
        scores=ConfusionMatrix(2).scores().model_copy(update={"mean_iou": 0.625}),
        confusion=((0, 0), (0, 0)),
    )
    write_evaluation(open_store(str(tmp_path / "scored")), record, images_table([]), None)
    promote = ("registry", "promote", "road", "--reason", "better", "--scores")
    assert "holds no scores.json" in refused(capsys, *promote, tmp_path, B)
    assert f"scores of model {B}, not of {A}" in refused(capsys, *promote, tmp_path / "scored", A)
    made = answer(capsys, *promote[1:], tmp_path / "scored", B)
    assert made["scores"]["mean_iou"] == 0.625
    assert (made["scores"]["split"], made["scores"]["examples_digest"]) == ("val", "5d41402abc4b2a76")
