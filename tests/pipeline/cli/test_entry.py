"""How `fcn` ends: all that closes itself is closed, all that was printed is there, and nothing is unloaded."""

import subprocess
import sys

import pytest

ENDS = """
import atexit, sys
from pipeline.cli import app, entry

class Unloaded:
    def __del__(self):
        print("unloaded")

def run():
    atexit.register(print, "closed")
    print("printed")
    print("noted", file=sys.stderr)
    {end}

app.main = run
kept = sys.modules["kept"] = Unloaded()
entry.main()
"""


def _ended(end: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", ENDS.format(end=end)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [0, 3])
def test_everything_is_closed_and_printed_before_the_process_ends_at_once(code: int) -> None:
    ended = _ended(f"sys.exit({code})")
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "printed\nclosed\n", "noted\n")


def test_an_error_nobody_foresaw_ends_as_python_ends() -> None:
    ended = _ended("raise ZeroDivisionError")
    assert ended.returncode == 1
    assert ended.stderr.endswith("ZeroDivisionError\n")
    assert ended.stdout == "printed\nclosed\nunloaded\n"
