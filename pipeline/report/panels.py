"""What the sections of a report are made of: panels, facts and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.numbers import count
from pipeline.report import rerun
from pipeline.report.markup import Html, el, join

LONGEST_FACT = 400

FACTS_AT_MOST = 200


def panel(title: str, body: Html) -> Html:
    return el("div", el("h3", title), body, class_="panel")


def tile(value: str, name: str, more: str, alarming: bool = False) -> Html:
    """A number that is seen first, its name, and a few words more."""
    words = (el("dt", name), el("dd", value, class_="value"), el("dd", more, class_="quiet"))
    return el("div", *words, class_="tile alarming" if alarming else "tile")


def tiles(shown: Sequence[Html]) -> Html:
    """The section of all tiles."""
    return el("section", el("h2", "At a glance", class_="unseen"), el("dl", *shown, class_="tiles"), id="glance")


def facts(values: Mapping[str, Any]) -> Html:
    """Names and values; None is left out, and what is nested comes below, folded, under its own name."""
    plain = [(name, value) for name, value in values.items() if value is not None and not isinstance(value, Mapping)]
    pairs = [
        el("div", el("dt", breakable(name)), el("dd", el("bdi", rerun.without_secrets(_fact(value)))))
        for name, value in plain[:FACTS_AT_MOST]
    ]
    if len(plain) > FACTS_AT_MOST:
        pairs.append(el("div", el("dt", "..."), el("dd", f"and {count(len(plain) - FACTS_AT_MOST)} more")))
    nested = [(name, value) for name, value in values.items() if isinstance(value, Mapping) and value]
    folded = [el("details", el("summary", name), facts(value)) for name, value in nested[:FACTS_AT_MOST]]
    return join(el("dl", *pairs, class_="facts") if pairs else None, *folded)


def breakable(name: str) -> Html:
    """A name that a narrow column may break after its underscores."""
    head, *rest = str(name).split("_")
    return join(head, *(part for word in rest for part in ("_", el("wbr"), word)))


def _fact(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case int():
            return count(value) if abs(value) >= 100_000 else str(value)
        case list() | tuple():
            shown = ", ".join(_fact(item) for item in value)
        case _:
            shown = str(value)
    return shown if len(shown) <= LONGEST_FACT else f"{shown[:LONGEST_FACT]}..."


def table(caption: str, head: Sequence[str], rows: Sequence[Html], numbers_from: int) -> Html:
    cells = [
        el("th", name, scope="col", class_="number" if index >= numbers_from else None)
        for index, name in enumerate(head)
    ]
    table = el("table", el("caption", caption), el("thead", el("tr", *cells)), el("tbody", *rows))
    # A region that can be scrolled must be reachable by keyboard.
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)
