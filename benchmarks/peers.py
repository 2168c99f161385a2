"""How does `fcn segment` compare with what one would otherwise write: Ray Data, Daft, a DataLoader and a loop?

The same folder of images and the same weights on the same machine, each in a process of its own from command to exit,
taking turns in one run: few images, many images, and many images of which the first run is killed (SIGKILL to all its
processes) when half of the masks are there. Peers run the network as PyTorch has it, in float32, with a model thread
for each core, write a palette PNG an image and a Parquet table of class areas (`plain_labeller.py`). Ours runs with its
defaults.

Between masks is the rate from the first mask's file to the last one's, which is what a long run sees. Rows are the
images with a row in the tables after the run that was killed and its resumption: there should be one for each.

    python benchmarks/peers.py --images FOLDER --model BUNDLE
"""

import argparse
import importlib.util
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, preset

HERE = Path(__file__).parent
PEERS = ("data_loader", "daft", "ray_data")
TITLES = {
    "data_loader": "DataLoader",
    "daft": "Daft",
    "ray_data": "Ray Data",
    "fcn": "fcn segment",
    "int8": "fcn, int8",
}
NEEDS = {"daft": "daft"}
LONGEST = 1800.0
"""Seconds that a run may take."""


@dataclass
class Figures:
    """Of one contestant, a value a round."""

    few: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    redone: int = 0
    rows: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=Path, help="a local folder of images")
    parser.add_argument("--model", help="a bundle; default: an untrained full-width FCN-8s VGG16 with 21 classes")
    parser.add_argument("--int8", help="the same model's int8 bundle, for one more row")
    parser.add_argument("--few", type=int, default=12, help="images of the small job")
    parser.add_argument("--many", type=int, default=200, help="images of the large jobs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=PEERS, help="peers to run beside ours")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        few, many = (folder_of(options.images, count, Path(scratch)) for count in (options.few, options.many))
        model = str(Path(options.model or f"{scratch}/model").resolve())
        if options.model is None:
            ModelBundle.new(Architecture(num_classes=21), preset("voc")).save(model)
        models = {name: model for name in options.only if name not in NEEDS or importlib.util.find_spec(NEEDS[name])}
        models |= {"fcn": model} | ({"int8": str(Path(options.int8).resolve())} if options.int8 else {})
        figures = {name: Figures() for name in models}
        for _ in range(options.rounds):
            for name, figure in figures.items():
                print(f"{TITLES[name]} ...", file=sys.stderr, flush=True)
                measure(name, models[name], few, many, Path(scratch, "output"), figure)
    Console(width=120).print(table(figures, options.few, options.many, options.rounds))


def folder_of(images: Path, count: int, scratch: Path) -> Path:
    folder = scratch / f"photos-{count}"
    folder.mkdir()
    files = sorted(path for path in images.iterdir() if path.is_file())
    if len(files) < count:
        raise SystemExit(f"{images} has {len(files)} files, and {count} images are wanted")
    for path in files[:count]:
        # Copies, for what follows links and what does not is no question of speed.
        shutil.copy(path, folder)
    return folder


def measure(name: str, model: str, few: Path, many: Path, output: Path, figure: Figures) -> None:
    """The three jobs of one contestant, each into an empty output."""
    count = len(list(many.iterdir()))
    figure.few.append(timed(command(name, few, model, output)))
    shutil.rmtree(output)

    figure.many.append(timed(command(name, many, model, output)))
    times = sorted(path.stat().st_mtime for path in masks(output))
    assert len(times) == count, f"{TITLES[name]}: {len(times)} masks of {count} images"
    figure.between.append((count - 1) / (times[-1] - times[0]))
    shutil.rmtree(output)

    before = killed_at(count // 2, command(name, many, model, output), output)
    figure.resumed.append(timed(command(name, many, model, output)))
    after = {path.name: path.stat().st_mtime for path in masks(output)}
    figure.redone += sum(written != after[mask] for mask, written in before.items())
    figure.rows = rows(output)
    shutil.rmtree(output)


def command(name: str, folder: Path, model: str, output: Path) -> list[str]:
    if name in PEERS:
        return [sys.executable, str(HERE / f"peer_{name}.py"), str(folder), model, str(output)]
    return [sys.executable, "-m", "pipeline", "segment", str(folder), str(output), "--model", model, "--no-report"]


def start(words: Sequence[str], log: Path) -> "subprocess.Popen[bytes]":
    # Where peers' worker processes find `plain_labeller`.
    paths = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as file:
        return subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True
        )


def timed(words: Sequence[str]) -> float:
    """Seconds from command to exit."""
    with tempfile.TemporaryDirectory() as place:
        log, began = Path(place, "log"), time.perf_counter()
        process = start(words, log)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            kill(process)
            raise
        seconds = time.perf_counter() - began
        assert code == 0, f"{' '.join(words)} ended with {code}:\n{log.read_text(errors='replace')[-3000:]}"
    return seconds


def killed_at(count: int, words: Sequence[str], output: Path) -> dict[str, float]:
    """Kill the run and all it has started when so many masks are there; when each of these was written."""
    with tempfile.TemporaryDirectory() as place:
        process = start(words, Path(place, "log"))
        deadline = time.monotonic() + LONGEST
        while len(masks(output)) < count and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        kill(process)
        time.sleep(1)  # until the kernel has ended them all
        return {path.name: path.stat().st_mtime for path in masks(output)}


def kill(process: "subprocess.Popen[bytes]") -> None:
    """A process and all that it has started."""
    for pid in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def family(parent: int) -> list[int]:
    """A process and its descendants."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for pid, of in (line.split() for line in listed.splitlines()):
        children.setdefault(int(of), []).append(int(pid))
    found = [parent]
    for pid in found:
        found += children.get(pid, [])
    return found


def masks(output: Path) -> list[Path]:
    return list((output / "masks").rglob("*.png"))


def rows(output: Path) -> int:
    """Rows of the Parquet tables that a reader would see."""
    folder = next(output / name for name in ("results", "tables") if (output / name).is_dir())
    files = [str(path) for path in folder.rglob("*.parquet")]
    return int(ds.dataset(files).count_rows()) if files else 0


def table(figures: dict[str, Figures], few: int, many: int, rounds: int) -> Table:
    cores = len(os.sched_getaffinity(0))
    shown = Table(title=f"{cores} cores, {rounds} round(s) taking turns; medians; killed and resumed: {many} images")
    heads = ("", f"{few} images, s", f"{many} images, s", "ratio", "images/s between masks", "ratio", "resumed, s",
             "masks redone", "rows")  # fmt: skip
    for head in heads:
        shown.add_column(head, justify="right")
    slowest = figures["ray_data"] if "ray_data" in figures else next(iter(figures.values()))
    for name, figure in figures.items():
        whole, between = statistics.median(figure.many), statistics.median(figure.between)
        # Neighbours in time are compared: the machine's other work slows both.
        faster = statistics.median(theirs / mine for mine, theirs in zip(figure.many, slowest.many, strict=True))
        steadier = statistics.median(
            mine / theirs for mine, theirs in zip(figure.between, slowest.between, strict=True)
        )
        shown.add_row(
            TITLES[name], f"{statistics.median(figure.few):.1f}", f"{whole:.1f}", f"{faster:.2f}x", f"{between:.2f}",
            f"{steadier:.2f}x", f"{statistics.median(figure.resumed):.1f}", str(figure.redone // rounds),
            str(figure.rows),
        )  # fmt: skip
    return shown


if __name__ == "__main__":
    main()
