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


def test_no_console_of_the_product_interprets_emoji_codes() -> None:
    files = [path for folder in ("pipeline", "flows") for path in (ROOT / folder).rglob("*.py")]
    made = [
        (path.relative_to(ROOT), node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Console"
    ]
    assert len(made) > 5
    loose = [
        f"{path}:{node.lineno}"
        for path, node in made
        if not any(word.arg == "emoji" and ast.unparse(word.value) == "False" for word in node.keywords)
    ]
    assert loose == []
