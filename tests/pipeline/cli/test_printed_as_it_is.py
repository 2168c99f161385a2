"""What is printed from data is printed as it is: no `:x:` becomes a picture, no `[red]` a colour."""

import ast
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.cli.tables import print_rows

ROOT = Path(__file__).parents[3]


def test_a_query_prints_emoji_codes_and_markup_of_keys_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [":x:.jpg", "a:smile:b.jpg", "[red]c[/].jpg", "d:warning-emoji:.jpg"]
    table = pa.table({"key": keys, ":x: column": keys})
    print_rows(table.to_reader(), "table")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "key"
    assert ":x: column" in header
    assert [row.split() for row in rows] == [[key, key] for key in keys]


def test_every_console_of_the_product_is_a_screen() -> None:
    """Which interprets no emoji codes, and sends no control characters."""
    files = [path for folder in ("pipeline", "flows") for path in (ROOT / folder).rglob("*.py")]
    called = [
        (str(path.relative_to(ROOT)), ast.unparse(node.func).rpartition(".")[2])
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    assert [path for path, name in called if name == "Screen"]
    assert [path for path, name in called if name == "Console"] == []
