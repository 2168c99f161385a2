"""Where does the time go between a command and its end, when there is little to do?

Each command runs in a process of its own, some rounds taking turns. Two parts come before all others: Python starts
(`python -c pass`), and the command line is imported. What follows is split at the lines that the command prints, at the
moment they come, and at the file of the first mask. CPU is of the command and all processes that it waits for.

    python benchmarks/start.py --images FOLDER --model BUNDLE
"""

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, preset

WIDTH = 40
"""Characters of the longest bar."""

SAID = re.compile(r'phase="?([^"]+)"?')
FCN = [sys.executable, "-m", "pipeline"]


@dataclass(frozen=True)
class Run:
    """Seconds of one run: its parts in order, each with when it ended, and the CPU that it took."""

    ends: dict[str, float]
    cpu: float

    @property
    def seconds(self) -> float:
        return max(self.ends.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=Path, help="a local folder of images")
    parser.add_argument("--model", help="a bundle; default: an untrained FCN-8s MobileNetV3 with 21 classes")
    parser.add_argument("--count", type=int, default=12, help="images of the job")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos, model = Path(scratch, "photos"), options.model or f"{scratch}/model"
        photos.mkdir()
        for path in sorted(options.images.iterdir())[: options.count]:
            shutil.copy(path, photos)
        if options.model is None:
            ModelBundle.new(Architecture(num_classes=21, backbone="mobilenet_v3_large"), preset("voc")).save(model)
        labels, first = f"{scratch}/labels", str(min(photos.iterdir()))
        commands = {
            "fcn --help": ["--help"],
            "fcn segment": ["segment", str(photos), labels, "--model", model],
            "fcn runs": ["runs", labels],
            "fcn query": ["query", labels, "SELECT count(*) FROM results"],
            "fcn preview": ["preview", first, "--model", model, "-o", f"{scratch}/preview.png"],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for number in range(options.rounds + 1):  # the first one fills the file cache, and does not count
            shutil.rmtree(labels, ignore_errors=True)
            for name, words in commands.items():
                found = run(words, Path(labels) if name == "fcn segment" else None)
                if number:
                    runs[name].append(found)
    for name in commands:
        Console(width=120).print(waterfall(name, runs[name]))


def run(words: list[str], labels: Path | None) -> Run:
    ends = {"Python starts": seconds_of([sys.executable, "-c", "pass"])}
    ends["the command line is imported"] = seconds_of([sys.executable, "-c", "import pipeline.cli.app"])
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, wall = time.perf_counter(), time.time()
    process = subprocess.Popen(FCN + words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    phase, printed = "until the first line", []
    for line in process.stderr:
        printed.append(line)
        said = SAID.search(line)
        if said:
            ends[phase] = time.perf_counter() - began
            phase = re.sub(r"\d+", "n", said[1])
    assert process.wait() == 0, f"fcn {' '.join(words)} ended with {process.returncode}:\n{''.join(printed)[-2000:]}"
    ends[phase] = time.perf_counter() - began
    if labels is not None:
        ends["(the first mask is there)"] = min(path.stat().st_mtime for path in labels.rglob("*.png")) - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(ends, after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime)


def seconds_of(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, env=os.environ)
    return time.perf_counter() - began


def waterfall(name: str, runs: list[Run]) -> Table:
    whole = [each.seconds for each in runs]
    cpu = statistics.median(each.cpu for each in runs)
    table = Table(
        title=f"{name}: {statistics.median(whole):.2f} s ({min(whole):.2f} to {max(whole):.2f}), {cpu:.1f} s of CPU",
        title_justify="left",
    )
    table.add_column("until the end of")
    table.add_column("s", justify="right")
    table.add_column("")
    names = list(dict.fromkeys(part for each in runs for part in each.ends))
    ends = {part: statistics.median(each.ends[part] for each in runs if part in each.ends) for part in names}
    scale, last = WIDTH / max(ends.values()), 0.0
    for part, end in sorted(ends.items(), key=lambda item: item[1]):
        bar = " " * round(last * scale) + "█" * max(1, round(end * scale) - round(last * scale))
        table.add_row(part, f"{end:.2f}", bar)
        last = end
    return table


if __name__ == "__main__":
    main()
