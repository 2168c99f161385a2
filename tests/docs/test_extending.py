"""The examples of docs/extending.md, applied to a copy of the code and run as the page says."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks
from tests.plugins.isolation import child_path

PAGE = "docs/extending.md"
RUNS_RAY = ("A kind of storage", "An output format")


def examples() -> Iterator[tuple[str, list[Block]]]:
    """Each section's title, and the blocks of code that stand in it."""
    lines = (ROOT / PAGE).read_text().splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.startswith("## ")]
    for start, end in pairwise([*starts, len(lines) + 1]):
        yield lines[start - 1].removeprefix("## "), [block for block in blocks(PAGE) if start < block.line < end]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("fcn_core", "pipeline"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_table_names_every_example() -> None:
    table = (ROOT / PAGE).read_text().partition("\n## ")[0]
    assert all(f"[{title.removeprefix('A ').removeprefix('An ')}]" in table for title, _ in examples())


@pytest.mark.parametrize(
    ("title", "parts"),
    [
        pytest.param(title, parts, id=title, marks=[pytest.mark.long] if title in RUNS_RAY else [])
        for title, parts in examples()
    ],
)
def test_an_example_works_in_a_copy_of_the_code(copy: Path, title: str, parts: list[Block]) -> None:
    programs = []
    for part in parts:
        first, _, rest = part.text.partition("\n")
        if part.language == "diff":
            apply = ["git", "apply", "--unidiff-zero", "--recount", "-"]
            subprocess.run(apply, input=part.text + "\n", cwd=copy, text=True, check=True)
        elif first == "# try it":
            programs.append(rest)
        else:
            file = copy / first.removeprefix("# ")
            assert not file.exists(), f"{PAGE} makes {first}, which is there"
            file.write_text(rest)
    assert len(programs) == 1
    program = copy / "try_it.py"
    program.write_text(f'if __name__ == "__main__":\n{"".join("    " + line for line in programs[0].splitlines(True))}')
    environment = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{child_path()}"}
    done = subprocess.run([sys.executable, str(program)], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_example_takes_one_new_file_and_one_line() -> None:
    for title, parts in examples():
        added = [
            line for part in parts if part.language == "diff" for line in part.text.splitlines() if line[:1] == "+"
        ]
        lines = [line for line in added if not line.startswith("+++")]
        files = [part for part in parts if part.language == "python" and not part.text.startswith("# try it")]
        if files:
            assert (len(files), len(lines)) == (1, 1), title
