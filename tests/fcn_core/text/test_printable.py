"""Text from outside, fit to be shown."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fcn_core import LabelError, LabelSet
from fcn_core.labels import parse_labels
from fcn_core.text.printable import listed, printable, printable_lines

ANY = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x1b\r\n\t\x07\x9b\u202e\u2028\ud800\\"))


@given(ANY)
def test_any_text_becomes_one_line_that_prints(text: str) -> None:
    assert printable(text).isprintable()


@given(ANY)
def test_text_that_prints_stays_as_it_is(text: str) -> None:
    plain = "".join(char for char in text if char.isprintable())
    assert printable(plain) == plain


@given(ANY)
def test_lines_stay_lines(text: str) -> None:
    assert printable_lines(text).split("\n") == [printable(line) for line in text.split("\n")]


@pytest.mark.parametrize("name", ["\x1b[2Jroad", "ro\nad", "road\r", "ro\u202ead", "ro\u2028ad", "tab\tbed", "\x9b2J"])
def test_a_class_or_label_set_is_not_called_by_what_does_not_print(name: str) -> None:
    with pytest.raises(LabelError, match="does not print") as refused:
        LabelSet(name="own", names=("other", name), palette=((0, 0, 0), (1, 1, 1)))
    assert str(refused.value).isprintable()
    with pytest.raises(LabelError, match="does not print") as refused:
        parse_labels(json.dumps({"name": name, "names": ["other"]}).encode(), "own.json")
    assert str(refused.value).isprintable()


def test_a_name_may_have_what_its_spelling_needs() -> None:
    names = (
        "\u0645\u06cc\u200c\u062e\u0648",
        "\u0915\u094d\u200d\u0937",
        "Straße",
        "道路 (old)",
        "横断\u3000歩道",
        "passage\u00a0!",
    )
    assert LabelSet(name="own", names=names, palette=((0, 0, 0),) * 6).names == names


def test_names_from_a_file_are_quoted() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(list("abcd"), most=2) == "'a', 'b' and 2 more"
    assert listed(["Straße\n"]) == r"'Straße\n'"


@given(st.lists(ANY, min_size=1, max_size=4), st.integers(min_value=1, max_value=1000))
@example(["ma" + "\x0e" * 60 + "mage"], 1)
@example(["\U000e0001" * 60], 1)
@example(["x" * 1_000_000], 1)
@example(["\x1b[2J"], 1000)
def test_names_from_a_file_fill_no_message(names: list[str], times: int) -> None:
    shown = listed([name * times for name in names] * 500)
    assert len(shown) < 1900
    assert shown.isprintable()
    assert shown.endswith(f"and {500 * len(names) - 12:,} more")
