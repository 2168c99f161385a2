"""A person of the tutorial: corrects every mask of a project that `fcn rank --copy-to` wrote, and makes no mistakes.

    python -m flows.demo.person tasks

`tasks`: a project for CVAT of images of `flows.demo.samples`, whose true masks follow from the numbers in their names.
Its masks, which are a model's proposals, become the true ones: what an export from CVAT would hold.
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np

from fcn_core.labels import decode_mask, encode_mask
from flows.demo.samples import LABELS, table_photo
from pipeline.csv_text import original

_NAME = re.compile(r"(?:table|kitchen)-(\d+)\.jpg")


def correct(tasks: Path) -> None:
    """Correct the masks in a project, and print how much of each was wrong. Exits for what is no such project."""
    try:
        rows = list(csv.DictReader((tasks / "images.csv").read_text(encoding="utf-8").splitlines()))
        seeds = {Path(row["name"]).stem: int(_NAME.fullmatch(original(row["key"]))[1]) for row in rows}  # type: ignore[index]
    except (OSError, KeyError, TypeError) as error:
        sys.exit(f"{tasks} is no project of the tutorial's images ({error}); make it with `fcn rank --copy-to`")
    for name, seed in seeds.items():
        file = tasks / "SegmentationClass" / f"{name}.png"
        truth = table_photo(seed)[1]
        wrong = float(np.mean(decode_mask(file.read_bytes()) != truth))
        file.write_bytes(encode_mask(truth, LABELS))
        print(f"{file}: {wrong:.1%} of the pixels corrected")


def main() -> None:
    """One argument: the project's folder."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m flows.demo.person FOLDER")
    correct(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
