"""The pages of promises name the tests that would break; they are there."""

import ast
import re
from functools import cache

import pytest

from tests.docs.blocks import ROOT

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("reliability", "security")}
NAMED = {page: sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))) for page, text in PAGES.items()}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_tests(page: str) -> None:
    assert len(NAMED[page]) >= 20


@cache
def functions_of(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), sorted({named for page in NAMED.values() for named in page}))
def test_a_named_test_exists(file: str, name: str) -> None:
    assert name in functions_of(file)


def test_nothing_is_claimed_about_strangers_without_a_test() -> None:
    rows = [line for line in PAGES["security"].splitlines() if line.startswith("| ") and "| proved by |" not in line]
    assert rows
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py::\w+`[^|]*\|$", row), row


def test_whatever_holds_against_a_failure_is_proven_by_tests_named_one_by_one() -> None:
    """A row says what fails, what holds then, what does not, and what proves it."""
    tables = PAGES["reliability"].partition("\n## Against which failures\n")[2].partition("\n## ")[0]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.endswith("| proven by |")]
    assert len(rows) >= 35
    for row in rows:
        _, holds, limits, proof = (cell.strip() for cell in row.strip("|").split("|"))
        assert holds or limits, row
        assert bool(holds) == bool(proof), row
        assert re.fullmatch(r"(`tests/[\w/]+\.py::\w+`(, )?)*", proof), row
