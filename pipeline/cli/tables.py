"""Tables of any length, to a file or to the screen: what `fcn rank` and `fcn query` answer with."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pipeline.cli.terminal import Screen, unguarded
from pipeline.csv_text import csv_line
from pipeline.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_ROWS = 100

LEAST_WIDTH = 10
"""Characters a column of a table has at least; where the terminal has fewer, each row is a list of names and values."""


def check_table_name(path: Path, suffixes: tuple[str, ...] = (".parquet", ".csv")) -> None:
    """Raises InputError for a file whose name does not say how to write it."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path} does not end in {' or '.join(suffixes)}; its name says how the table is written")


def write_table(path: Path, rows: "pa.RecordBatchReader") -> None:
    """Rows to a Parquet or CSV file, a batch at a time. Nested columns become JSON in CSV."""
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() == ".csv":
            with path.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
                _write_csv(file, rows)
        else:
            with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
                for batch in _batches(rows):
                    writer.write_batch(batch)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error}); choose another place") from error


def _write_csv(file: TextIO, rows: "pa.RecordBatchReader") -> None:
    file.write(csv_line(rows.schema.names))
    for batch in _batches(rows):
        for row in zip(*(map(_plain, column.to_pylist()) for column in batch.columns), strict=True):
            file.write(csv_line(row))


def _plain(value: object) -> object:
    """CSV knows no lists and structs: they become JSON."""
    import json

    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _batches(rows: "pa.RecordBatchReader") -> Any:
    """The batches of a query; what goes wrong on the way is told as what goes wrong at its start."""
    import pyarrow as pa

    from pipeline.outputs.query import describe

    try:
        yield from rows
    except (pa.ArrowException, RuntimeError) as error:
        raise InputError(describe(error)) from error


def print_rows(rows: "pa.RecordBatchReader", form: Literal["csv", "json", "table"]) -> None:
    """Rows to standard output. As a table the first SHOWN_ROWS of them, for people."""
    if form == "json":
        from pipeline.cli.console import print_json

        for batch in _batches(rows):
            for row in batch.to_pylist():
                print_json(row, indent=None)
    elif form == "csv":
        # As it is for a program that reads it; a person sees what does not print.
        _write_csv(sys.stdout if sys.stdout.isatty() else unguarded(sys.stdout), rows)
    elif rows.schema.names:
        _print_table(rows)


def _print_table(rows: "pa.RecordBatchReader") -> None:
    import pyarrow as pa
    from rich.table import Table

    from pipeline.cli.console import shown, stderr_console

    table = Table(box=None, pad_edge=False)
    for field in rows.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type)
        table.add_column(shown(field.name), justify="right" if numeric else "left", overflow="fold")
    written: list[list[str]] = []
    more = False
    for batch in _batches(rows):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if len(written) == SHOWN_ROWS:
                more = True
                break
            written.append([shown(_cell(value)) for value in row])
            table.add_row(*written[-1])
        if more:
            break
    # Wider than a terminal when it is read by another program.
    screen = Screen()
    as_it_is = screen.measure(table, options=screen.options.update(max_width=4000)).maximum
    if not screen.is_terminal:
        Screen(width=4000).print(table)
    elif screen.width >= min(as_it_is, LEAST_WIDTH * len(rows.schema)):
        screen.print(table)
    else:
        _print_records(screen, [shown(name) for name in rows.schema.names], written)
    if more:
        stderr_console().print(
            f"the first {SHOWN_ROWS} rows; LIMIT gives others, --csv, --json and --parquet give all", markup=False
        )


def _print_records(screen: Screen, names: list[str], rows: list[list[str]]) -> None:
    """Each row as a list of names and values: more columns than a terminal has room for side by side."""
    from rich.table import Table

    for number, row in enumerate(rows, 1):
        record = Table(box=None, pad_edge=False, show_header=False, title=f"row {number}", title_justify="left")
        record.add_column(no_wrap=True)
        record.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            record.add_row(name, value)
        screen.print(record)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"
    return "" if value is None else str(value)
