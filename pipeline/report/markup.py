"""HTML and SVG put together from parts, so that no text from outside can become markup.

Every string that is not `Html` already is escaped, and characters that do not print (control characters, marks that
turn the direction of the text) are written out: a key shows as what it is.
"""

from html import escape

from fcn_core.text.printable import printable

Value = str | int | float | bool | None

_EMPTY = frozenset({"br", "img", "input", "link", "meta", "wbr"})


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


def el(tag: str, *children: str | None, **attributes: Value) -> Html:
    """An element. Children are `Html`, or text to be escaped; None is left out.

    `class_` and `for_` lose their last underscore, others become hyphens; None and False leave an attribute out, True
    gives it without a value.
    """
    opening = f"<{tag}{''.join(_attribute(name, value) for name, value in attributes.items())}>"
    return Html(opening if tag in _EMPTY else f"{opening}{join(*children)}</{tag}>")


def join(*children: str | None) -> Html:
    """Children one after the other, without an element around them."""
    return Html("".join(child if isinstance(child, Html) else text(child) for child in children if child is not None))


def text(plain: str) -> Html:
    """`plain` as markup that shows it."""
    return Html(escape(printable(plain), quote=True))


def _attribute(name: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'
