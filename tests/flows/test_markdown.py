"""Text from outside in the Markdown of artifacts, read by a Markdown parser."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fcn_core.text.printable import printable
from flows.artifacts import link_to
from flows.markdown import block, code, plain

TEXT = st.text(st.characters() | st.sampled_from("[]()!<>&`*_#|-+=.1 \n\r\t:~\\"), max_size=40)
LINK = "[free GPUs](https://evil.example)"
NASTY = ("<img src=x onerror=alert(1)>", LINK, "![x](http://e)", "a | b", "```", "# title", "1. x", "- x", "https://e.x",
         "www.evil.example", "&lt;", "x\n\n# y", "---", "===")  # fmt: skip


def read(text: str) -> list[Token]:
    return MarkdownIt("js-default", {"html": True}).parse(text)


def shown(tokens: list[Token]) -> str:
    return "".join(child.content for token in tokens for child in token.children or ())


@pytest.mark.parametrize("text", NASTY)
def test_known_markup_is_shown(text: str) -> None:
    assert shown(read(f"- model: {plain(text)}")) == f"model: {printable(text)}"
    assert not re.search(r"(https?://|(?<!\\)www\.)", plain(text)), "addresses become links of themselves"


@given(TEXT)
@example(LINK)
def test_any_text_is_one_paragraph_of_text(text: str) -> None:
    tokens = read(plain(text))
    if text.isspace() or not text:
        return
    # Four spaces before a text make it code, which shows it, too.
    assert {token.type for token in tokens} <= {"paragraph_open", "inline", "paragraph_close", "code_block"}
    assert {child.type for token in tokens for child in token.children or ()} <= {"text"}
    assert "".join(shown(tokens).split()) == "".join(printable(text).split()) or tokens[0].type == "code_block"


@given(TEXT.filter(lambda text: bool(text.strip(" `"))))
def test_code_is_one_piece(text: str) -> None:
    (inline,) = [token for token in read(f"x {code(text)} y") if token.type == "inline"]
    assert [child.type for child in inline.children or ()] == ["text", "code_inline", "text"]
    assert (inline.children or [])[1].content.strip() == printable(text).strip()


@given(st.lists(TEXT))
def test_a_block_ends_where_it_ends(lines: list[str]) -> None:
    (fence,) = read(block(lines))
    assert fence.type == "fence"
    assert fence.content == "".join(f"{printable(line)}\n" for line in lines)


def test_a_place_of_any_name_is_a_link_to_nothing_else() -> None:
    said = link_to("s3://a](https:/evil)[/x", "k")
    (inline,) = [token for token in read(said) if token.type == "inline"]
    links = [child.attrs["href"] for child in inline.children or () if child.type == "link_open"]
    assert all(str(link).startswith("https://console.aws.amazon.com/") for link in links)
