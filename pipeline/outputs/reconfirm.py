"""Images whose earlier result is in force again: their rows are committed once more, and nothing is segmented.

A run finds an image done by a row that is not the newest of its key: the image was replaced and then restored, or was
missing for a while. With the row committed again, the newest row of a key is the one of the object that is there, for
whoever reads results, by whatever means.
"""

from dataclasses import fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError, StorageUnavailable
from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import ClassArea, ResultRow, commit_shard, read_table, shard_key
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo, Store


def earlier_rows(output: Store, recipe: Recipe, shard: Shard) -> dict[int, ResultRow]:
    """The rows of the shard's reconfirmed images, by index; size and date are those of the objects that were planned.

    An image whose row cannot be read any more is left out, and is segmented. Holds one results file at a time.
    """
    places: dict[tuple[str, int], list[int]] = {}
    for each in shard.earlier:
        places.setdefault((each.run_id, each.shard), []).append(each.index)
    found: dict[int, ResultRow] = {}
    for (run_id, number), indices in places.items():
        file = shard_key("results", run_id, number)
        try:
            table = read_table(output.get(file), file)
        except StorageUnavailable:
            raise
        except StorageError:
            continue
        entries = {index: shard.entries[index] for index in indices}
        of_these = pc.is_in(table["key"], value_set=pa.array([entry.key for entry in entries.values()]))
        rows = {
            (row["key"], row["etag"]): row
            for row in table.filter(of_these).to_pylist()
            if (row["model_id"], row["params_id"]) == (recipe.model_id, recipe.params_id)
        }
        for index, entry in entries.items():
            row = rows.get((entry.key, entry.etag))
            if row is not None:
                found[index] = _row(row, entry)
    return found


def commit_reconfirmed(output: Store, run_id: str, recipe: Recipe, shard: Shard) -> pa.Table | None:
    """Commit a shard that has reconfirmed images alone; None, with nothing done, for any other."""
    if len(shard.earlier) < len(shard.entries):
        return None
    rows = earlier_rows(output, recipe, shard)
    if len(rows) < len(shard.entries):
        return None
    return commit_shard(output, run_id, shard.number, [rows[index] for index in range(len(shard.entries))])


def _row(row: dict[str, Any], entry: ObjectInfo) -> ResultRow:
    values = {field.name: row[field.name] for field in fields(ResultRow)}
    values |= {"size": entry.size, "last_modified": entry.last_modified}
    if values["areas"] is not None:
        values["areas"] = tuple(ClassArea(**area) for area in values["areas"])
    return ResultRow(**values)
