"""Run the benchmarks and put what they print into docs/performance.md, with the machine named: `make bench`.

The page has a block for each, between `<!-- NAME -->` and `<!-- end -->`, which is replaced; the words around it are a
person's. What fails, or wants what is not here, keeps the block it had, and the exit code is then 1.

    python benchmarks/write_tables.py                       # all, about half an hour; the machine should be idle
    python benchmarks/write_tables.py predictor scaling     # some
    python benchmarks/write_tables.py --images FOLDER       # real photographs instead of generated scenes
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from PIL import Image

from flows.demo.scenes import generate_scene

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
PHOTOS = 200
PHOTO_SIZE = (500, 375)

COMMANDS: dict[str, str] = {
    "predictor": "predictor.py",
    "layers": "layers.py",
    "pipeline_overhead": "pipeline_overhead.py --images {images}",
    "data_path": "data_path.py",
    "scaling": "scaling.py --actors 1 16 64",
    "plan": "plan.py",
    "listing": "listing.py --keys 150000 --delay 0.03",
    "train_step": "train_step.py",
    "peers": "peers.py --images {images} --rounds 3",
    "report": "report.py",
    "gpu": "gpu.py",
}
"""Each benchmark on the page, and how it is run."""

BLOCK = "<!-- {name} -->\n{content}<!-- end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}; default: all")
    parser.add_argument("--images", type=Path, help="a folder of photographs; default: generated scenes")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - COMMANDS.keys())
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    failed = []
    with tempfile.TemporaryDirectory() as scratch:
        images = options.images or scenes(Path(scratch))
        for name in options.names or COMMANDS:
            command = COMMANDS[name].format(images=shlex.quote(str(images)))
            print(f"{name}: {command}", flush=True)
            printed = run(command)
            if printed is None:
                failed.append(name)
                continue
            shown = COMMANDS[name].format(images="FOLDER")
            text = f"```text\n{machine()}\n$ python benchmarks/{shown}\n\n{printed}\n```\n"
            options.page.write_text(replaced(options.page.read_text(), name, text))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(command: str) -> str | None:
    """What a benchmark printed on standard output; None, after what it complained of, when it failed."""
    file, *options = shlex.split(command)
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "120", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        [sys.executable, str(HERE / file), *options], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        return None
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def replaced(page: str, name: str, content: str) -> str:
    """The page with another content in one block. Raises ValueError where it has no such block."""
    block = re.compile(re.escape(f"<!-- {name} -->\n") + r".*?<!-- end -->", re.DOTALL)
    if not block.search(page):
        raise ValueError(f"the page has no block <!-- {name} --> ... <!-- end -->; put one where its table belongs")
    return block.sub(lambda _: BLOCK.format(name=name, content=content), page, count=1)


def machine() -> str:
    """What computed, in a line, and the day."""
    processor = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    day, python = f"{datetime.now(UTC):%Y-%m-%d}", platform.python_version()
    return f"{day}: {processor}, {cores} cores, {memory:.0f} GiB, Python {python}"


def scenes(folder: Path) -> Path:
    """Photographs of generated street scenes."""
    for number in range(PHOTOS):
        scene = generate_scene(number, *PHOTO_SIZE)
        Image.fromarray(scene.image).save(folder / f"{number:04d}.jpg", quality=92)
    return folder


if __name__ == "__main__":
    sys.exit(main())
