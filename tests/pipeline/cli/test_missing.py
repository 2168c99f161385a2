"""A folder or file that is named and is not there is bad input, whichever command names it: one sentence, exit code 2,
and nothing is made."""

from pathlib import Path

import pytest

from fcn_core import ModelBundle
from pipeline.cli.app import app
from tests.commands import refused
from tests.labelled import LABELS, write_labelled

GONE = "nowhere"
"""In every command line the one thing that is not there; `new` is a place to write to."""

COMMANDS = (
    "segment nowhere new --model model",
    "segment photos new --model nowhere",
    "segment photos new --model registry:street@champion --registry nowhere",
    "segment photos new --model model --key-list nowhere",
    "segment --config nowhere",
    "preview nowhere --model model -o new",
    "preview photo.jpg --model nowhere -o new",
    "runs nowhere",
    "runs watch nowhere",
    "report nowhere",
    "report nowhere --file new",
    "query nowhere --csv select",
    "query nowhere --parquet new.parquet select",
    "rank nowhere",
    "rank nowhere --copy-to new",
    "compare nowhere 20261122 20261123",
    "verify nowhere",
    "gc nowhere",
    "gc nowhere --delete",
    "compact nowhere",
    "masks get nowhere a.jpg -o new",
    "masks export nowhere new",
    "audit plan nowhere -n 10 -o new",
    "audit plan nowhere -n 10 --dry-run",
    "audit estimate nowhere photos",
    "audit extend nowhere -n 10",
    "data check nowhere",
    "data import nowhere -o new",
    "data add nowhere photos",
    "data add data nowhere",
    "data log nowhere",
    "data diff nowhere@1 nowhere@2",
    "data suspects nowhere model",
    "data suspects data nowhere",
    "data show nowhere mask.png -o new",
    "data show photo.jpg nowhere -o new",
    "train nowhere",
    "train --name street --output new --dataset nowhere --model model",
    "train --name street --output leased --dataset data --model nowhere",  # it has a lease, and nothing else
    "evaluate nowhere data",
    "evaluate model nowhere --output new",
    "evaluate --config nowhere",
    "retrain nowhere",
    "distil nowhere",
    "distil --name street --registry-name s --registry photos --output new --teacher nowhere --source photos",
    "distil --name street --registry-name s --registry photos --output new --teacher model --source nowhere",
    "model show nowhere",
    "model import nowhere --arch fcn8s -o new",
    "model import nowhere.onnx --labels voc --mean 0 0 0 --std 1 1 1 -o new",
    "model export nowhere -o new",
    "model quantize nowhere --calibrate photos -o new",
    "model quantize model --calibrate nowhere -o new",
    "registry list --registry nowhere",
    "registry show street --registry nowhere",
    "registry publish street nowhere --registry new",
    "registry promote street 0123456789abcdef --reason better --registry nowhere",
    "registry champion street --registry nowhere",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A folder with a model, photos and labelled images, for what is there."""
    folder = tmp_path_factory.mktemp("here")
    ModelBundle.load(model_dir).save(folder / "model")
    write_labelled(folder / "data", 3)
    for split, names in (("train", "000\n001\n"), ("val", "002\n")):
        (folder / "data" / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    (folder / "data" / "labels.json").write_text(LABELS.model_dump_json())
    (folder / "photos").mkdir()
    first = next((folder / "data").rglob("*.jpg"))
    (folder / "photo.jpg").write_bytes(first.read_bytes())
    (folder / "photos" / "a.jpg").write_bytes(first.read_bytes())
    (folder / "mask.png").write_bytes(next((folder / "data").rglob("*.png")).read_bytes())
    return folder


@pytest.mark.parametrize("line", COMMANDS)
def test_what_is_not_there_is_bad_input(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("FCN_REGISTRY", raising=False)
    message = refused(capsys, *line.split())
    assert GONE in message
    assert not [path.name for path in place.iterdir() if path.name.startswith("new")]


def test_every_command_that_names_a_place_is_among_them() -> None:
    tried = {tuple(line.split()[:2]) for line in COMMANDS} | {tuple(line.split()[:1]) for line in COMMANDS}
    of_no_place = {
        ("doctor",), ("run-launch",), ("--help",), ("--version",), ("--install-completion",),
        ("model", "new"), ("model", "list"), ("model", "get"),
    }  # fmt: skip
    missed = set()
    for name in app.resolved_commands():
        inner = [each for each in app[name].resolved_commands() if not each.startswith("-")]
        of_one = {(name, each) for each in inner} or {(name,)}
        missed |= of_one - tried - of_no_place
    assert {name for name in missed if not name[0].startswith("-")} == set()
