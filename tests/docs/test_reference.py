"""docs/api/ and docs/cli.md are what the code says now; `make docs` makes them so."""

import re
from pathlib import Path

import pytest

import pipeline
from tests.docs.blocks import ROOT
from tests.docs.reference import make_api


@pytest.fixture(scope="module")
def pages() -> dict[Path, str]:
    """What each page should hold."""
    return make_api.pages()


def test_the_pages_are_what_the_code_says(pages: dict[Path, str]) -> None:
    for path, text in pages.items():
        assert path.exists(), "run `make docs`"
        assert path.read_text() == text, f"{path} is stale: run `make docs`"


def test_no_page_is_left_of_what_is_gone(pages: dict[Path, str]) -> None:
    assert set((ROOT / "docs" / "api").glob("*.md")) <= set(pages)


def test_every_exported_name_has_a_heading_that_the_contents_link(pages: dict[Path, str]) -> None:
    page = pages[ROOT / "docs" / "api" / "pipeline.md"]
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert headings == set(pipeline.__all__)
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == {name.lower() for name in headings}


def test_a_tag_in_a_docstring_is_no_tag() -> None:
    assert make_api._markdown("registry:<name> and `<b>`\n\n    code <i>") == (
        "registry:\\<name> and `<b>`\n\n    code <i>"
    )
