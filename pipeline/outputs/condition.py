"""A condition on current rows, in SQL, as `where` of a job and `--where` of a command have it."""

from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.outputs.query import run_query

if TYPE_CHECKING:
    import duckdb


def check_condition(tables: "duckdb.DuckDBPyConnection", where: str) -> None:
    """Raise InputError for what is no condition on the current rows of an output, whether it has any or not."""
    fields = ask_where(tables, f"SELECT ({where}\n) FROM current LIMIT 0").schema
    if len(fields) != 1:
        raise InputError(f"where is {len(fields)} conditions; join them by AND or OR")
    (field,) = fields
    if field.type not in (pa.bool_(), pa.null()):
        raise InputError(f'where is of type {field.type}, which is no condition; write one such as "confidence < 0.6"')


def ask_where(tables: "duckdb.DuckDBPyConnection", sql: str) -> pa.RecordBatchReader:
    """The rows of a query that has the condition in it. Raises InputError, which names `where`."""
    try:
        return run_query(tables, sql)
    except InputError as error:
        raise InputError(f"where cannot be asked of the current rows: {error}") from error
