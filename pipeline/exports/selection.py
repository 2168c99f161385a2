"""Which images an export has: those with a current mask, or of these the ones that fit a condition.

They are put in order of their keys by a database on this machine's disk (about 400 bytes per image), so memory does not
grow with their number.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.exports.names import Names
from pipeline.outputs.condition import ask_where, check_condition
from pipeline.outputs.current import NEWEST, current_rows
from pipeline.outputs.query import open_tables
from pipeline.storage.store import Store

COLUMNS = ("key", "etag", "size", "width", "height", "mask_key", "mask_sha256")


@dataclass(frozen=True, slots=True)
class SelectedImage:
    """An image with a mask. `etag` and `size` are the image's; `name` is that of its file, see `Names`."""

    key: str
    etag: str
    size: int
    width: int
    height: int
    mask_key: str
    mask_sha256: str | None
    name: str


class Selection:
    """The images of an export, to be gone through in the order of their keys. For one thread."""

    def __init__(self, database: sqlite3.Connection, suffix: str) -> None:
        self._database = database
        self.names = Names(database, suffix)
        database.execute(
            "CREATE TABLE image (key BLOB PRIMARY KEY, etag, size, width, height, mask_key, sha256) WITHOUT ROWID"
        )

    def fill(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Take the rows of COLUMNS, of which no two have one key."""
        for batch in batches:
            keys, *others = (batch[name].to_pylist() for name in COLUMNS)
            rows = zip((key.encode() for key in keys), *others, strict=True)
            self._database.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self.names.add(keys)
        self.names.finish()

    def __len__(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM image").fetchone()
        return int(count)

    def __iter__(self) -> Iterator[SelectedImage]:
        sql = "SELECT image.*, final FROM image JOIN name ON image.key = name.key ORDER BY image.key"
        for raw, *row in self._database.execute(sql):
            yield SelectedImage(raw.decode(), *row)


@contextmanager
def select(output: Store, variant: str | None, where: str | None, suffix: str) -> Iterator[Selection]:
    """The images with a mask by `variant`, or of the newest one and those below it where it redid only some.

    `where`: a condition on the columns of `current`; needs DuckDB. Raises InputError for what is none.
    """
    with tempfile.TemporaryDirectory(prefix="fcn-export-") as folder:
        database = sqlite3.connect(Path(folder) / "images", isolation_level=None)
        try:
            # Nothing here outlives this process.
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
                database.execute(f"PRAGMA {pragma}")
            selection = Selection(database, suffix)
            database.execute("BEGIN")
            selection.fill(_all(output, variant) if where is None else _fitting(output, variant, where))
            database.execute("COMMIT")
            yield selection
        finally:
            database.close()


def _all(output: Store, variant: str | None) -> Iterator[pa.RecordBatch]:
    for batch in current_rows(output, variant or NEWEST, columns=[*COLUMNS, "status"]):
        yield batch.filter(pc.equal(batch["status"], "ok"))


def _fitting(output: Store, variant: str | None, where: str) -> Iterator[pa.RecordBatch]:
    with open_tables(output) as tables:
        check_condition(tables, where)
        rows = "FROM current" if variant is None else "FROM all_variants"
        tables.execute("SET VARIABLE chosen = ?", [variant or ""])
        of_variant = "" if variant is None else "AND recipe = getvariable('chosen') "
        yield from ask_where(
            tables,
            f"SELECT {', '.join(COLUMNS)} {rows} WHERE status = 'ok' {of_variant}AND coalesce(({where}\n), false)",
        )
