"""The command line teaches: help with groups and examples, guesses for what was misspelt, quiet ends."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.app import app
from pipeline.cli.app import run as fcn
from pipeline.cli.help import EXAMPLES, GROUPS
from pipeline.cli.option_groups import GROUPS as OPTION_GROUPS
from pipeline.jobs.segment import SegmentJob
from tests.commands import refused

FCN = [sys.executable, "-c", "import sys; from pipeline.cli.app import main; main(sys.argv[1:])"]


def test_help_has_every_command_in_a_group_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(title in printed for title in GROUPS)
    assert "─ Commands" not in printed, "a command has no group: add it to GROUPS in pipeline/cli/help.py"
    assert all(line in printed for _, line in EXAMPLES[()])
    assert "docs/tutorial.md" in printed


def test_every_option_of_segment_stands_in_one_group_in_the_order_of_need(capsys: pytest.CaptureFixture[str]) -> None:
    listed = [name for names in OPTION_GROUPS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert SegmentJob.model_fields.keys() <= set(listed)
    assert fcn(["segment", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "─ Parameters" not in printed, "an option has no group: add it to GROUPS in pipeline/cli/option_groups.py"
    titles = [printed.index(f"─ {title} ") for title in OPTION_GROUPS]
    assert titles == sorted(titles)
    assert all(f"--{name.replace('_', '-')}" in printed for name in listed)


def test_every_group_names_commands_that_exist() -> None:
    known = set(app)
    assert {name for names in GROUPS.values() for name in names} - known == set()


@pytest.mark.parametrize("words", [["segment", "--help"], ["registry"], ["data", "-h"]])
def test_help_of_a_command_ends_with_its_examples(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fcn(words)
    printed = capsys.readouterr().out
    for _, line in EXAMPLES[(words[0],)]:
        assert line in printed


def test_a_command_that_runs_shows_no_examples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["runs", str(tmp_path)]) == 0
    assert "Examples" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (("segmnet", "a", "b"), "segment"),
        (("data", "chek"), "check"),
        (("segment", "a", "b", "--modle", "x"), "--model"),
        (("segment", "a", "b", "--model", "m", "--device", "cudda"), "did you mean cuda?"),
        (("segment", "a"), "OUTPUT"),
    ],
)
def test_what_was_misspelt_is_guessed(words: tuple[str, ...], guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guess in refused(capsys, *words)


def test_a_misspelt_option_in_a_job_file_is_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text("name: a\noutput: b\ndataset: c\ntrain: {lerning_rate: 1}\nwokers: 2\n")
    message = refused(capsys, "train", tmp_path / "job.yaml")
    assert "--wokers: there is no such option (did you mean workers?)" in message
    assert "(did you mean learning_rate?)" in message


def test_what_a_job_file_lacks_is_named_without_repeating_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text("name: a\noutput: secret-place\n")
    message = refused(capsys, "train", tmp_path / "job.yaml")
    assert "--dataset is missing" in message
    assert "secret-place" not in message


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert fcn(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("fcn-pipeline")


@pytest.mark.slow  # `| true` of test_lost_output.py leaves earlier still, and `model list` computes for seconds
def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = " ".join(["'" + part.replace("'", "'\\''") + "'" for part in [*FCN, "model", "list", "--json"]])
    done = subprocess.run(
        ["bash", "-c", f"{script} | head -c 1; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.stdout == "[" or done.stdout == "{"


def test_a_standard_error_that_is_lost_changes_no_exit_code(tmp_path: Path) -> None:
    """As where `2>&1 | tee` lost its reader, or the log's disk is full: labelling ended with it."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone, open("/dev/full", "w") as full:
        for command, stderr, code in ((["runs", str(tmp_path)], gone, 0), (["runs", "--nonsense"], full, 2)):
            done = subprocess.run([*FCN, *command], stdout=subprocess.PIPE, stderr=stderr, check=False)
            assert done.returncode == code, (command, stderr)


def _on_a_terminal(**variables: str) -> bytes:
    """What `fcn runs` writes to a terminal."""
    parent, child = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", **variables}
    process = subprocess.Popen([*FCN, "--help"], stdout=child, stderr=child, env=environment)
    os.close(child)
    written = b""
    while True:
        try:
            part = os.read(parent, 65536)
        except OSError:  # the other end was closed: what Linux says then
            break
        if not part:
            break
        written += part
    process.wait()
    os.close(parent)
    return written


def test_colours_are_for_terminals_that_want_them() -> None:
    colour = b"\x1b[3"
    assert colour in _on_a_terminal()
    assert colour not in _on_a_terminal(NO_COLOR="1")
    piped = subprocess.run([*FCN, "--help"], capture_output=True, check=True).stdout
    assert b"\x1b[" not in piped


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in ("zsh", "fish"))])
def test_completion_knows_commands_and_options(shell: str) -> None:
    script = app.generate_completion(shell=shell)
    for word in ("segment", "registry", "max-error-rate", "doctor", "champion"):
        assert word in script
