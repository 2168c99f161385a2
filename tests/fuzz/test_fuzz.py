"""The fuzz targets, for a moment each: they run, they hold, and a fault would be found and kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.run import TARGETS, main
from tests.requires import requires

requires("atheris", install="atheris (there are builds for Linux on x86-64)")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_readers_hold_for_a_moment(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([target, "--seconds", "2", "--seed", "1", "--keep", str(tmp_path)])
    told = capsys.readouterr().out
    assert code == 0, told
    assert " 0 inputs" not in told


def test_more_memory_than_a_target_states_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tests.fuzz.planted_memory", "--seconds", "20", "--keep", str(tmp_path)]) == 1
    assert "out-of-memory (used:" in capsys.readouterr().out
    assert list(tmp_path.glob("oom-*"))


def test_a_fault_is_found_kept_and_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tests.fuzz.planted", "--seconds", "60", "--keep", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    (saved,) = tmp_path.glob("crash-*")
    assert saved.read_bytes().startswith(b"b")
    assert f"-m tests.fuzz.child tests.fuzz.planted {saved}" in told
    again = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.child", "tests.fuzz.planted", str(saved)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode != 0
    assert "KeyError: 'planted'" in again.stdout + again.stderr
