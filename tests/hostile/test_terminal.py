"""Names and notes of strangers that would drive the terminal, through every command that prints them."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fcn_core import LabelSet, ModelBundle
from fcn_core.models.description import MODEL_FILE
from pipeline.cli import console
from pipeline.cli.app import main
from pipeline.cli.terminal import guard
from pipeline.models.registry import open_registry
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.labellings import CAR, ROAD, SKY, striped, write_run
from tests.samples import jpeg, model

EVIL = "a\x1b[2J\x1b]0;title\x07\r\x9b1m\u202e\u2028\nall is well\nb"
"""Clears the screen, renames the window, goes back to the start of the line, turns the text round, and adds a line."""

RUNS = ("20260101T000000Z-0000", "20260102T000000Z-0000")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `fcn` as a terminal does; returns its exit code and all that it printed, which drives nothing."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, getattr(sys, stream))  # what main() puts there goes with the test
    monkeypatch.setenv("FCN_REGISTRY", "/nowhere")

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        found = capfd.readouterr()
        printed = found.out + found.err
        for line in printed.split("\n"):
            assert line.isprintable(), line
            assert line.strip() != "all is well" or line.startswith("    "), "a line that nobody wrote"
        return int(str(ended.value.code)), printed

    return call


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output of two runs: keys, class names and reasons are a stranger's."""
    names = ("sky" + EVIL, "building" + EVIL, "pole", *(f"class {k}" for k in range(3, 11)))
    labels = LabelSet.model_construct(**(dict(LabelSet(name="x", names=tuple(map(str, range(11))),
                                                       palette=((0, 0, 0),) * 11)) | {"names": names}))  # fmt: skip
    store = open_store(str(tmp_path / "labels"))
    masks = {f"{EVIL}/{name}.jpg": striped(SKY, ROAD, CAR) for name in "pq"} | {f"{EVIL}.png": EVIL}
    write_run(store, RUNS[0], masks, labels=labels, source=str(tmp_path))
    masks = {key: striped(SKY, CAR) if not isinstance(mask, str) else mask for key, mask in masks.items()}
    write_run(store, RUNS[1], masks, labels=labels, source=str(tmp_path), params="3333333333333333")
    return tmp_path / "labels"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["runs"], "2026"),
        (["runs", "--json"], "2026"),
        (["runs", "watch"], r"\x1b[2J"),
        (["rank", "--by", "rare"], r"\x1b[2J"),
        (["rank", "--json"], r"\u001b[2J"),
        (["query", "SELECT * FROM results"], r"\x1b[2J"),
        (["query", "SELECT key, error FROM results", "--json"], r"\u001b[2J"),
        (["query", f"SELECT {EVIL}"], "fcn: "),
        (["verify"], "checked"),
        (["verify", "--json"], "findings"),
        (["gc", "--older-than", "0s"], "left over"),
        (["compact"], "index"),
        (["masks", "get", "no" + EVIL], "fcn: "),
        (["report"], "index.html"),
    ],
)  # fmt: skip
def test_what_a_bucket_s_owner_wrote_is_shown(output: Path, run: Run, command: list[str], said: str) -> None:
    name, *words = command
    place = [words.pop(0), output] if name in ("masks",) or words[:1] == ["watch"] else [output]
    _, printed = run(name, *place, *words)
    assert said in printed


def test_a_comparison_and_what_is_not_as_it_should_be(output: Path, run: Run, tmp_path: Path) -> None:
    assert r"\x1b[2J" in run("compare", output, *RUNS)[1]
    assert r"\u001b[2J" in run("compare", output, *RUNS, "--json")[1]
    for mask in (output / "masks").rglob("*.png"):
        mask.unlink()
    assert r"\x1b[2J" in run("verify", output)[1] or "%1b" in run("verify", output)[1]
    record = output / "runs" / RUNS[0] / "run.json"
    record.write_text(record.read_text().replace("finished", EVIL.replace("\n", " ")))
    assert run("runs", output)[0] == 0


def test_what_the_author_of_a_model_wrote_is_shown_or_refused(run: Run, tmp_path: Path) -> None:
    bundle = replace(model(), provenance={"note": EVIL, EVIL: [EVIL]}, scores={EVIL: EVIL})
    bundle.save(tmp_path / "noted")
    assert r"\x1b[2J" in run("model", "show", tmp_path / "noted")[1]
    assert r"\u001b[2J" in run("model", "show", tmp_path / "noted", "--json")[1]
    for field, value in (("model_id", EVIL), ("weights_sha256", EVIL), (EVIL, 1), ("labels", {"name": EVIL, EVIL: 1})):
        code, printed = run("model", "show", edited(bundle, tmp_path / "edited", field, value))
        assert code == 2
        assert "is not valid" in printed
    code, printed = run("segment", tmp_path, tmp_path / "out", "--model", tmp_path / "edited")
    assert code == 2


def edited(bundle: ModelBundle, folder: Path, field: str, value: object) -> Path:
    bundle.save(folder, overwrite=True)
    description = json.loads((folder / MODEL_FILE).read_text()) | {field: value}
    (folder / MODEL_FILE).write_text(json.dumps(description))
    return folder


def test_what_stands_in_a_registry_is_shown_or_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    registry = open_registry(str(tmp_path / "registry"))
    bundle = replace(model(), provenance={EVIL: EVIL}, scores={EVIL: EVIL})
    version = registry.publish("road", bundle, {EVIL: EVIL})
    registry.promote("road", version, EVIL)
    for command in (["list"], ["list", "road"], ["show", "road"], ["champion", "road"],
                    ["champion", "road", "--history"], ["show", "road", "--json"]):  # fmt: skip
        assert run("registry", *command, "--registry", tmp_path / "registry")[0] == 0
    (promotion,) = (tmp_path / "registry").rglob("champions/*.json")
    promotion.write_text(json.dumps(json.loads(promotion.read_text()) | {"model_id": EVIL}))
    code, printed = run("registry", "champion", "road", "--registry", tmp_path / "registry")
    assert code == 2
    assert "is damaged" in printed


def test_names_of_files_that_are_read_are_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path
) -> None:
    source = tmp_path / "images"
    (source / EVIL).mkdir(parents=True)
    (source / EVIL / "fine.jpg").write_bytes(jpeg(32, 24))
    (source / f"{EVIL}.jpg").write_bytes(b"nothing")
    segment_in_process(monkeypatch)
    job = (source, tmp_path / f"{EVIL}out", "--model", model_dir, "--device", "cpu", "--engine", "torch",
           "--codec-workers", 1, "--no-report")  # fmt: skip
    code, printed = run("segment", *job)
    assert code == 0
    assert r"\u001b[2J" in printed or r"\x1b[2J" in printed
    assert run("preview", source / EVIL / "fine.jpg", "--model", model_dir, "-o", tmp_path / "p.png")[0] == 0
    assert run("preview", source / f"{EVIL}.jpg", "--model", model_dir, "-o", tmp_path / "p.png")[0] == 2
    assert run("data", "show", source / EVIL / "fine.jpg", source / f"{EVIL}.jpg", "-o", tmp_path / "q.png")[0] == 2
    assert run("data", "check", source / EVIL)[0] == 2
    assert run("segment", source / EVIL / EVIL, tmp_path / "o", "--model", EVIL)[0] == 2
    assert run("doctor", source / EVIL, "--no-ray")[0] in (0, 1)
    (tmp_path / "job.yaml").write_text(json.dumps({EVIL: EVIL, "model": EVIL}))
    assert run("segment", *job[:2], "--config", tmp_path / "job.yaml")[0] == 2
    assert run("train", tmp_path / "job.yaml")[0] == 2
    assert run(EVIL)[0] == 2


def test_what_others_print_is_shown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tells of its workers' last words from a thread, Python of an exception that nobody expected."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", written)
    guard()
    guard()
    print(f"\x1b[36m(raylet)\x1b[0m {EVIL}", file=sys.stderr)
    logging.Logger("ray").warning("%s", EVIL)
    try:
        raise RuntimeError(EVIL)
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stderr.writelines([EVIL])
    assert all(line.isprintable() for line in written.getvalue().split("\n"))
    assert written.getvalue().startswith("(raylet) a\\x1b[2J")


def test_a_live_bar_draws_and_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, where there are control characters: but only those of Rich."""
    written = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", written)
    guard()
    screen = console.stderr_console()
    with console.observe(screen) as observer:
        observer.phase(EVIL)
        observer.note(EVIL)
        print(EVIL)
        print(f"\x1b]8;;http://evil\x1b\\{EVIL}", file=sys.stderr)
    screen.print(f"[red]{EVIL}[/]")
    screen.print(EVIL, markup=False)
    drawn = written.getvalue()
    assert "\x1b[" in drawn, "Rich draws"
    rest = re.sub(r"\x1b\[(\?25[lh]|[0-9;]*m|[12]K|1A)", "", drawn).replace("\r", "")
    assert all(line.isprintable() for line in rest.split("\n")), rest
    assert r"\x1b[2J" in rest
