"""docs/api/ and docs/cli.md are what the code says now; `make docs` makes them so."""

import re

import pytest

import pipeline
from tests.docs.blocks import ROOT
from tests.docs.reference import make_api

PAGES = make_api.pages()


@pytest.mark.parametrize("path", list(PAGES), ids=lambda path: path.name)
def test_the_page_is_what_the_code_says(path: object) -> None:
    assert path in PAGES
    assert path.exists(), "run `make docs`"  # type: ignore[attr-defined]
    assert path.read_text() == PAGES[path], f"{path} is stale: run `make docs`"  # type: ignore[attr-defined,index]


def test_no_page_is_left_of_what_is_gone() -> None:
    assert set((ROOT / "docs" / "api").glob("*.md")) <= set(PAGES)


def test_every_exported_name_has_a_heading_that_the_contents_link() -> None:
    page = PAGES[ROOT / "docs" / "api" / "pipeline.md"]
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    assert headings == set(pipeline.__all__)
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == {name.lower() for name in headings}


def test_a_tag_in_a_docstring_is_no_tag() -> None:
    assert make_api._markdown("registry:<name> and `<b>`\n\n    code <i>") == (
        "registry:\\<name> and `<b>`\n\n    code <i>"
    )
