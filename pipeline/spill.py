"""Sorted rows that do not fit in memory, in files of this machine."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


def write_spill(rows: pa.Table, path: Path, batch_rows: int) -> Path:
    """Write rows that are already sorted, to be read again in batches of `batch_rows`; returns `path`."""
    with pa.ipc.new_file(path, rows.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as file:
        file.write_table(rows, max_chunksize=batch_rows)
    return path


def read_spill(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a file of `write_spill`, one in memory at a time."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)
