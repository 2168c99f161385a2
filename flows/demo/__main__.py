"""`python -m flows.demo` (or `make demo`): the whole tool on this machine, in a few minutes, into one folder.

This file claims the folder, prepares the environment and prints what came out; what happens in between is
`flows.demo.run`.
"""

import signal
import sys
import time
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from cyclopts import App
from rich.console import Console

from fcn_core.errors import FcnError
from flows import environment
from pipeline.cli.terminal import Screen
from pipeline.errors import InputError, PipelineError

if TYPE_CHECKING:
    from flows.demo.run import DemoReport

MARKER = ".made-by-fcn-demo"
"""A file of this name says that a folder is a demo's, so that the next demo may replace it."""

app = App(name="python -m flows.demo", result_action="return_value", suppress_keyboard_interrupt=False)


@app.default
def demo(*, output: Path = Path("demo-output")) -> None:
    """Show the whole tool on this machine, in three to five minutes on two cores.

    Parameters
    ----------
    output
        The folder to write; an earlier demo's is replaced.
    """
    started = time.monotonic()
    console = Screen(soft_wrap=True)
    claim_folder(output, console)
    environment.isolate(output / ".prefect")
    console.print(f"what the demo makes goes to {output}", markup=False)
    from flows.demo.run import DemoPlan, run_demo

    report = run_demo(DemoPlan(output), console)
    print_outcome(console, output, report, time.monotonic() - started)


def claim_folder(folder: Path, console: Console) -> None:
    """Make `folder` the demo's. Replaces an earlier demo's, after saying so; raises InputError for any other."""
    if (folder / MARKER).is_file() and not folder.is_symlink():
        console.print(f"replacing {folder}, which an earlier demo made", markup=False)
        rmtree(folder)
    elif folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise InputError(f"{folder} is there already and no demo made it; choose another place with --output")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("The next demo replaces this folder.\n")


def print_outcome(console: Console, folder: Path, report: "DemoReport", seconds: float) -> None:
    """Tables, places, and what to try next."""
    from flows.demo.report import class_table, refused_table
    from pipeline.numbers import duration

    scores = report.findings.scores
    console.print(class_table(report.findings))
    console.print(refused_table(report.findings))
    console.print(
        f"[bold]mean IoU {scores.mean_iou or 0:.3f}[/], pixel accuracy {scores.pixel_accuracy or 0:.3f}, over "
        f"{len(report.findings.labelled)} images ({duration(seconds)} in all)"
    )
    for what, where in (
        ("contact sheet", report.sheet.name),
        ("masks", "masks/"),
        ("Parquet tables", "tables/"),
        ("model", "model/"),
        ("some images", "images/"),
    ):
        console.print(f"  {what:15}{folder / where}", markup=False)
    console.print("\nTry next:")
    for command in (
        f"fcn preview {folder}/images/phone-portrait.jpg --model {folder}/model",
        f"fcn model show {folder}/model",
        f"fcn segment YOUR-PHOTOS/ labels/ --model {folder}/model",
    ):
        console.print(f"  {command}", markup=False)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the S3 server is stopped
    try:
        app()
    except InputError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
    except (PipelineError, FcnError) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
