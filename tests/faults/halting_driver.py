"""A driver for something to happen to in the middle: `python -m tests.faults.halting_driver JOB SHARDS FILE` runs the
job, in JSON, and goes no further than so many shards until there is that file.
"""

import sys
import time
from pathlib import Path
from typing import Any

from pipeline.actors.observer import Observer
from pipeline.jobs.segment import SegmentJob
from pipeline.segmentation.job import segment


class Halts(Observer):
    """Holds the driver once it has heard of so many shards, until there is `file`."""

    def __init__(self, shards: int, file: Path) -> None:
        self._left = shards
        self._file = file

    def shard(self, run_id: str, outcome: Any, done: int, images: int) -> None:
        self._left -= 1
        while self._left <= 0 and not self._file.exists():
            time.sleep(0.05)


if __name__ == "__main__":
    segment(SegmentJob.model_validate_json(sys.argv[1]), Halts(int(sys.argv[2]), Path(sys.argv[3])))
