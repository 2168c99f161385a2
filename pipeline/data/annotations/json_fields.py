"""Fields of JSON that a tool wrote, or somebody who pretends to be it."""

from collections.abc import Iterator
from typing import Any

from pipeline.data.annotations.regions import RegionError


def text(value: Any, field: str) -> str | None:
    """A field of an object if it is text that says something, else None."""
    found = value.get(field) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found.strip() else None


def items(value: Any, field: str) -> list[Any]:
    """A field of an object if it is a list, else an empty one."""
    found = value.get(field) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def objects(value: Any, field: str) -> Iterator[dict[str, Any]]:
    """The objects in a list that a field holds; what is none is passed over."""
    return (item for item in items(value, field) if isinstance(item, dict))


def number(value: Any, field: str) -> float:
    """A number of an object. Raises RegionError."""
    found = value.get(field)
    if isinstance(found, bool) or not isinstance(found, int | float) or abs(found) > 1e15:
        raise RegionError(f"a region has no number {field}")
    return float(found)
