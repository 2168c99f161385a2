"""Commands that look at results load neither PyTorch nor Ray, which take seconds to import.

Tried where neither can be imported.
"""

import subprocess
import sys

import numpy as np
import pytest

from fcn_core import preset
from pipeline.storage.opening import open_store
from tests.labelled import write_labelled
from tests.reports import labelled_run

RUN = """
import sys
import traceback

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "torchvision", "ray"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
from pipeline.cli.app import run

for line in sys.stdin.read().splitlines():
    print(f"$ fcn {line}", flush=True)
    try:
        code = run(line.split())
        print("loaded:", *sorted({"numpy", "PIL", "pyarrow"} & set(sys.modules)))
        print(f"exit {code}", flush=True)
    except AssertionError:
        traceback.print_exc(file=sys.stdout)
"""

COMMANDS = (
    "--help",
    "segment --help",
    "train --help",
    "runs labels",
    "runs labels --json",
    "query labels SELECT(key)FROM(current)",
    "masks get labels a.jpg -o a.png",
    "masks export labels exported --format color",
    "rank labels --top 2",
    "rank labels --top 1 --diverse",
    "report labels",
    "compact labels",
    "runs watch labels",
    "audit plan labels -n 2 --dry-run",
    "registry list --registry registry",
    "data check set --preset camvid --split val",
    "data import set -o versioned --labels camvid",
    "data log versioned",
    "data diff versioned@1 versioned@1",
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command line printed, its exit code last. One process: starting one is what takes long."""
    folder = tmp_path_factory.mktemp("light")
    mask = np.zeros((8, 10), np.uint8)
    names = dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), mask)
    for name in ("photos", "registry"):
        (folder / name).mkdir()
    labelled_run(open_store(str(folder / "labels")), open_store(str(folder / "photos")), names, preset("camvid"))
    write_labelled(folder / "set", 2)
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\n".join(COMMANDS),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(part.split("\n", 1) for part in done.stdout.split("$ fcn ")[1:])


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_needs_no_model_needs_neither_pytorch_nor_ray(outcomes: dict[str, str], line: str) -> None:
    assert "was imported" not in outcomes[line]
    assert outcomes[line].endswith("exit 0\n")


def test_help_loads_neither_arrays_nor_images(outcomes: dict[str, str]) -> None:
    assert "\nloaded:\n" in outcomes["--help"]
    assert "\nloaded:\n" in outcomes["segment --help"]
