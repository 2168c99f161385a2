"""The script that one would write with PyTorch alone: a DataLoader that reads and decodes in another process, a loop
over its batches, and a table at the end. Images with a mask are skipped by the next run. `peers.py` runs it.

    python benchmarks/peer_data_loader.py FOLDER MODEL OUTPUT
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from plain_labeller import PlainLabeller, decoded, mask_of
from torch.utils.data import DataLoader, Dataset

Item = tuple[str, np.ndarray[Any, np.dtype[np.uint8]]]


class Photos(Dataset[Item]):
    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Item:
        return str(self._paths[index]), decoded(self._paths[index].read_bytes())


def as_list(items: list[Item]) -> list[Item]:
    """Images of several sizes do not stack."""
    return items


def main() -> None:
    folder, model, output = sys.argv[1:]
    labeller = PlainLabeller(model, output, len(os.sched_getaffinity(0)))
    paths = [path for path in sorted(Path(folder).iterdir()) if not mask_of(Path(output), str(path)).exists()]
    rows = []
    for batch in DataLoader(Photos(paths), batch_size=4, num_workers=1, collate_fn=as_list):
        for path, image in batch:
            mask, areas = labeller.label(path, image)
            rows.append({"path": path, "mask": mask, "areas": areas})
    Path(output, "tables").mkdir(exist_ok=True)
    number = len(list(Path(output, "tables").iterdir()))
    pq.write_table(pa.Table.from_pylist(rows), f"{output}/tables/{number}.parquet")


if __name__ == "__main__":
    main()
