"""Images that a job with `where` leaves as they are: those whose current row, by another variant, does not fit it.

The one thing to know: an image that has no current row, or another etag by now, is segmented as ever. `where` only
limits what is done once more because the model, or a setting, is another.
"""

import bisect
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.labels import VOID
from fcn_core.text.printable import printable
from pipeline.errors import InputError
from pipeline.outputs.condition import ask_where, check_condition
from pipeline.outputs.identity import Recipe
from pipeline.outputs.query import open_tables
from pipeline.outputs.results import TRANSIENT_ERRORS
from pipeline.segmentation.choice import Mask
from pipeline.segmentation.selection import identities
from pipeline.spill import write_spill
from pipeline.storage.store import Store

if TYPE_CHECKING:
    import duckdb

SORTED_AT_ONCE = 1 << 19
"""Rows in memory while they are sorted: about 60 MB."""

_BATCH_ROWS = 1 << 12


@dataclass(frozen=True)
class _Sorted:
    """A file of rows in key order, and the first key of each of its batches."""

    path: Path
    first_keys: Sequence[str]


class KeptImages:
    """(key, etag) pairs in sorted files on this machine's disk. Memory: one key per 4096 of them."""

    def __init__(self, files: Sequence[_Sorted] = ()) -> None:
        self._files = files

    def look_up(self, keys: pa.Array, etags: pa.Array) -> Mask:
        """Which of these images are kept, bool [n]."""
        kept = np.zeros(len(keys), bool)
        if not len(keys):
            return kept
        wanted = identities(keys, etags)
        first, last = pc.min_max(keys).as_py().values()
        for file in self._files:
            for batch in _between(file, first, last):
                kept |= pc.is_in(wanted, value_set=identities(batch["key"], batch["etag"])).to_numpy(False)
        return kept


def check_where(output: Store, where: str) -> None:
    """Raise InputError for what is no condition on the current rows of an output, whether it has any or not."""
    with open_tables(output, may_be_empty=True) as tables:
        check_condition(tables, where)


@contextmanager
def kept_images(
    output: Store, recipe: Recipe, classes: Sequence[str], where: str | None, *, retry_errors: bool
) -> Iterator[KeptImages]:
    """The images that have a current row by another variant than `recipe`, for which `where` is not true.

    Rows of moments (`changed`, `storage`, ...), and with `retry_errors` all errors, keep no image. Raises InputError if
    the other variants have other classes than `classes`: their masks and the new ones could not be read as one.
    """
    if where is None:
        yield KeptImages()
        return
    with tempfile.TemporaryDirectory(prefix="fcn-where-") as folder, open_tables(output, may_be_empty=True) as tables:
        tables.execute("SET VARIABLE own = ?", [recipe.name])
        tables.execute("SET VARIABLE passing = ?", [sorted(TRANSIENT_ERRORS)])
        _check_classes(output, tables, classes)
        failed = "" if retry_errors else " OR error NOT IN (SELECT unnest(getvariable('passing')))"
        rows = ask_where(
            tables,
            f"SELECT key, etag FROM current WHERE recipe <> getvariable('own') AND (status = 'ok'{failed}) "
            f"AND NOT coalesce(({where}\n), false)",
        )
        yield KeptImages(list(_sorted_files(rows, Path(folder))))


def _check_classes(output: Store, tables: "duckdb.DuckDBPyConnection", classes: Sequence[str]) -> None:
    of_others = "FROM class_areas WHERE recipe <> getvariable('own')"
    rows = ask_where(tables, f"SELECT DISTINCT recipe, class_id, class_name {of_others}")
    for row in rows.read_all().sort_by([("recipe", "ascending"), ("class_id", "ascending")]).to_pylist():
        number, name = row["class_id"], row["class_name"]
        if number == VOID and number >= len(classes):
            continue  # pixels without a class are of none in any model
        if number >= len(classes) or classes[number] != name:
            ours = repr(printable(classes[number])) if number < len(classes) else "no such class"
            raise InputError(
                f"where keeps masks of recipe {row['recipe']} under {output.uri}, in which class {number} is "
                f"{printable(name)!r}, and for the model it is {ours}; leave where out, or choose another output"
            )


def _sorted_files(rows: Iterable[pa.RecordBatch], folder: Path) -> Iterator[_Sorted]:
    held: list[pa.RecordBatch] = []
    count, number = 0, 0

    def write() -> _Sorted:
        table = pa.Table.from_batches(held).sort_by("key").combine_chunks()
        path = write_spill(table, folder / f"{number:06d}.arrow", _BATCH_ROWS)
        return _Sorted(path, table["key"].take(list(range(0, len(table), _BATCH_ROWS))).to_pylist())

    for batch in rows:
        if len(batch):
            held.append(batch)
            count += len(batch)
        if count >= SORTED_AT_ONCE:
            yield write()
            held, count, number = [], 0, number + 1
    if held:
        yield write()


def _between(file: _Sorted, first: str, last: str) -> Iterator[pa.RecordBatch]:
    """The batches that may hold keys from `first` to `last`. Code points order as Arrow's UTF-8 bytes do."""
    start = max(0, bisect.bisect_left(file.first_keys, first) - 1)
    end = bisect.bisect_right(file.first_keys, last)
    if start >= end:
        return
    with pa.memory_map(str(file.path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        for number in range(start, end):
            yield reader.get_batch(number)
