"""SQL on an output: the tables of all its runs in DuckDB, with no setup, wherever the output is.

The views are the files in `pipeline/outputs/sql`, the same ones that the duckdb shell can read. A local output's
Parquet files are DuckDB's to read; those in object storage come through our own store.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

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
    return (resources.files("pipeline.outputs") / "sql" / f"{table}.sql").read_text(encoding="utf-8")


def views_script(output: str) -> str:
    """The views as a script for the duckdb shell: `duckdb -init FILE`. Without `audits`, which most outputs lack."""
    quoted = output.split("?")[0].rstrip("/").replace("'", "''")
    return "\n".join([f"SET VARIABLE output = '{quoted}';", "SET TimeZone = 'UTC';", "", *map(view_sql, TABLES[:-1])])


@contextmanager
def open_tables(store: Store, *, may_be_empty: bool = False) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A DuckDB in memory with TABLES as views of an output. A table that has no files yet is empty.

    Raises InputError when DuckDB is not installed, or, unless it `may_be_empty`, the output holds no results.
    """
    try:
        import duckdb
    except ImportError as error:
        raise InputError(
            "SQL on an output needs DuckDB, which is not installed; run: pip install 'fcn-pipeline[query]'"
        ) from error
    if not may_be_empty and next(iter(store.list("results/")), None) is None:
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
                try:
                    connection.execute(view_sql(table))
                except duckdb.Error as error:
                    raise InputError(_damage(store, error, folder or table)) from error
        _lock(connection, root or ROOT)
        yield connection
    finally:
        connection.close()


def _lock(connection: "duckdb.DuckDBPyConnection", root: str) -> None:
    """From here on only files of the output can be read, and nothing can be set that changes this."""
    connection.execute("SET allowed_directories = ?", [[root.rstrip("/") + "/"]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def run_query(connection: "duckdb.DuckDBPyConnection", sql: str) -> pa.RecordBatchReader:
    """The rows of one query, streaming. Raises InputError, with DuckDB's own words for SQL that cannot be run; also
    while rows are read, for a file that turns out to be damaged."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1:
            raise InputError(f"give one query, not {len(statements)}")
        kind = statements[0].type
        # COPY would write, and files of the output are among those that may be opened.
        if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.RELATION):
            raise InputError(
                f"`fcn query` only asks, and {kind.name} is no question; --parquet, --csv and --json give rows to "
                "write elsewhere, --views the tables for a DuckDB of your own"
            )
        relation: duckdb.DuckDBPyRelation | None = connection.sql(sql)
        assert relation is not None
        rows = relation.to_arrow_reader(BATCH_ROWS)
    except duckdb.Error as error:
        raise InputError(describe(error)) from error
    return pa.RecordBatchReader.from_batches(rows.schema, _said(rows))


def _said(rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches, with what ends them early in a sentence."""
    import duckdb

    try:
        yield from rows
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise InputError(describe(error)) from error


def describe(error: Exception) -> str:
    """DuckDB's error as one sentence."""
    text = _words(error)
    damaged = any(word in text.lower() for word in ("parquet", "magic bytes", "corrupt", "thrift", "snappy", "zstd"))
    hint = "; a file of the output is damaged, `fcn verify OUTPUT` names all that are" if damaged else ""
    return f"the query cannot be run: {text}{hint}"


def _damage(store: Store, error: Exception, folder: str) -> str:
    """DuckDB names a damaged file where it can, but not of every damage."""
    named = (key for key in (info.key for info in store.list(folder)) if key in str(error) or not _opens(store, key))
    which = next(named, f"a file under {folder}")
    return (
        f"the tables cannot be asked, for {which} is damaged: {_words(error)}; `fcn verify OUTPUT` names all that are"
    )


def _opens(store: Store, key: str) -> bool:
    if not key.endswith(".parquet"):
        return True
    try:
        pq.ParquetFile(io.BytesIO(store.get(key)))
    except Exception:  # Arrow answers damaged bytes with errors of many kinds
        return False
    return True


def _words(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(("LINE ", " "))]
    return " ".join(" ".join(lines).split())


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
