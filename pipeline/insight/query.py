"""SQL on an output: the tables of all its runs in DuckDB, with no setup, wherever the output is.

The views are the files in `pipeline/insight/sql`, the same ones that the duckdb shell can read. A local output's
Parquet files are DuckDB's to read; those in object storage come through our own store.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.outputs.audits import AUDITS_SCHEMA
from pipeline.outputs.current import ADDED_COLUMNS
from pipeline.outputs.results import CLASS_TOTALS_SCHEMA, RESULTS_SCHEMA
from pipeline.storage.fsspec_files import ROOT, StoreFiles
from pipeline.storage.store import Store

if TYPE_CHECKING:
    import duckdb

TABLES = ("results", "all_variants", "current", "class_areas", "runs", "class_totals", "audits")
"""What can be asked, in the order in which the views build on each other."""

BATCH_ROWS = 10_000
_REMOTE_THREADS = 16
_ADDED = [pa.field(name, pa.string()) for name in ADDED_COLUMNS]
_EMPTY = {
    "results": RESULTS_SCHEMA,
    "class_totals": CLASS_TOTALS_SCHEMA,
    "runs": pa.schema([(name, pa.string()) for name in ("state", "model_id", "params_id")]),
    "audits": AUDITS_SCHEMA,
}
_FOLDERS = {"results": "results/", "class_totals": "class_totals/", "runs": "runs/", "audits": "audits/"}


def view_sql(table: str) -> str:
    """The statement that makes one of TABLES, on the DuckDB variable `output`."""
    return (resources.files("pipeline.insight") / "sql" / f"{table}.sql").read_text(encoding="utf-8")


def views_script(output: str) -> str:
    """The views as a script for the duckdb shell: `duckdb -init FILE`. Without `audits`, which most outputs lack."""
    quoted = output.split("?")[0].rstrip("/").replace("'", "''")
    return "\n".join([f"SET VARIABLE output = '{quoted}';", "SET TimeZone = 'UTC';", "", *map(view_sql, TABLES[:-1])])


@contextmanager
def open_tables(store: Store) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A DuckDB in memory with TABLES as views of an output. A table that has no files yet is empty.

    Raises InputError when DuckDB is not installed, or the output holds no results.
    """
    try:
        import duckdb
    except ImportError as error:
        raise InputError(
            "`fcn query` needs DuckDB, which is not installed; run: pip install 'fcn-pipeline[query]'"
        ) from error
    if next(iter(store.list("results/")), None) is None:
        raise InputError(f"there are no results under {store.uri}; give the OUTPUT of `fcn segment`")
    # What is not built in is not fetched: a query must not wait for, or trust, a download.
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute("SET TimeZone = 'UTC'")
        root = _local_root(store)
        if root is None:
            connection.register_filesystem(StoreFiles(store))
            # Threads wait for storage, not for a processor.
            connection.execute(f"SET threads = {_REMOTE_THREADS}")
        connection.execute("SET VARIABLE output = ?", [root or ROOT])
        for table in TABLES:
            folder = _FOLDERS.get(table)
            if folder is not None and next(iter(store.list(folder)), None) is None:
                _empty_view(connection, table)
            else:
                connection.execute(view_sql(table))
        yield connection
    finally:
        connection.close()


def run_query(connection: "duckdb.DuckDBPyConnection", sql: str) -> pa.RecordBatchReader:
    """The rows of one statement, streaming. Raises InputError with DuckDB's own words for SQL that cannot be run."""
    import duckdb

    try:
        relation: duckdb.DuckDBPyRelation | None = connection.sql(sql)
        # What is no question (SET, CREATE) has no rows.
        return relation.to_arrow_reader(BATCH_ROWS) if relation is not None else pa.table({}).to_reader()
    except duckdb.Error as error:
        raise InputError(describe(error)) from error


def describe(error: Exception) -> str:
    """DuckDB's error as one sentence."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("LINE ", " "))]
    return "the query cannot be run: " + " ".join(" ".join(lines).split())


def _local_root(store: Store) -> str | None:
    """The folder that DuckDB can read by itself; None where it must come through the store."""
    if store.location.scheme != "file" or any(char in store.uri for char in "*?[]{}"):
        return None
    return store.uri if store.uri.isprintable() else None


def _empty_view(connection: "duckdb.DuckDBPyConnection", table: str) -> None:
    schema = _EMPTY[table]
    connection.register(
        f"no_{table}",
        pa.schema([*schema, *(field for field in _ADDED if field.name not in schema.names)]).empty_table(),
    )
    connection.execute(f"CREATE OR REPLACE VIEW {table} AS SELECT * FROM no_{table}")
