"""The pipeline that one would write with Daft on one machine: a table of paths, a class that decodes and runs the
model, write_parquet. `peers.py` runs it, where Daft is installed (`pip install daft`).

Daft's checkpoints exist on its Ray runner alone; on this one, images with a mask are skipped by the next run.

    python benchmarks/peer_daft.py FOLDER MODEL OUTPUT
"""

import os
import sys
from pathlib import Path
from typing import Any

import daft
from daft import DataType
from plain_labeller import PlainLabeller, decoded, mask_of

FOUND = DataType.struct({"mask": DataType.string(), "areas": DataType.list(DataType.int64())})


@daft.cls(max_concurrency=1)
class Labeller:
    def __init__(self, model: str, output: str, threads: int) -> None:
        self._labeller = PlainLabeller(model, output, threads)

    @daft.method(return_dtype=FOUND)
    def label(self, path: str, data: bytes) -> dict[str, Any]:
        mask, areas = self._labeller.label(path, decoded(data))
        return {"mask": mask, "areas": areas}


def main() -> None:
    folder, model, output = sys.argv[1:]
    daft.set_runner_native()
    paths = [str(path) for path in sorted(Path(folder).iterdir())]
    images = daft.from_pydict({"path": [path for path in paths if not mask_of(Path(output), path).exists()]})
    labeller = Labeller(model, output, len(os.sched_getaffinity(0)))
    found = labeller.label(daft.col("path"), daft.col("path").download())
    images.with_column("found", found).select("path", "found").write_parquet(f"{output}/tables")


if __name__ == "__main__":
    main()
