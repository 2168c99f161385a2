"""YAML as people write it: what YAML itself allows and nobody means is an error, not a guess."""

from collections.abc import Hashable, Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_MERGE = "tag:yaml.org,2002:merge"

DEEPEST = 100
MOST_VALUES = 100_000


def read_yaml(text: str | bytes) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, which says where, also for a key that is there twice (of the two
    values YAML takes the last and says nothing), and for more than a person writes."""
    loader = _Loader(text)
    try:
        value = loader.get_single_data()
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, LookupError, AttributeError) as error:
        # A date that there is not, a number of thousands of digits, `!!bool maybe`: PyYAML lets its own readers fail.
        raise yaml.YAMLError(
            f"a value is not what it looks like ({str(error)[:200] or type(error).__name__})"
        ) from None
    finally:
        loader.dispose()
    _check(value)
    return value


def _check(value: Any) -> None:
    """Raise YAMLError for more than a person writes. A value that aliases name many times counts as often."""
    level, seen = [value], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.values()
            elif isinstance(each, (list, set, tuple)):
                below += each
            if seen + len(below) > MOST_VALUES:
                raise yaml.YAMLError(f"more than {MOST_VALUES} values, counting those that aliases repeat")
        if not below:
            return
        level, seen = below, seen + len(below)
    raise _too_deep()


def _too_deep() -> yaml.YAMLError:
    return yaml.YAMLError(f"values nested more than {DEEPEST} deep")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which makes nothing but plain values."""

    _merged = 0
    """How many keys all merges of the text have brought in."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # PyYAML writes out what a merge brings, and what that merged: 30 mappings, each the last one twice, are
        # a thousand million keys.
        for key, value in node.value:
            if key.tag == _MERGE:
                for mapping in _mappings(value):
                    self.flatten_mapping(mapping)
                    self._merged += len(mapping.value)
                    if self._merged > MOST_VALUES:
                        raise yaml.YAMLError(f"more than {MOST_VALUES} values, counting those that merges repeat")
        super().flatten_mapping(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own: dict[Hashable, yaml.Node] = {}
        merged: dict[Hashable, yaml.Node] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                # `<<` may stand twice, but where both bring the same key YAML takes the last. A list of mappings
                # has an order of its own, in which the first wins.
                brought = {name for mapping in _mappings(value) for name, _ in self._names(mapping)}
                for name in brought:
                    self._add(merged, name, key)
        for name, key in self._names(node):
            self._add(own, name, key)
        return super().construct_mapping(node, deep)

    def _names(self, node: yaml.MappingNode) -> Iterator[tuple[Hashable, yaml.Node]]:
        """A mapping's own keys: `yes` and `true` are the same one."""
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                yield self.construct_object(key), key

    def _add(self, found: dict[Hashable, yaml.Node], name: Hashable, key: yaml.Node) -> None:
        first = found.setdefault(name, key)
        if first is not key:
            lines = f"in line {first.start_mark.line + 1} and in line {key.start_mark.line + 1}"
            raise ConstructorError(None, None, f"{name} is given twice, {lines}; take one out", None)


def _mappings(node: yaml.Node) -> list[yaml.MappingNode]:
    """What a merge brings in: one mapping, or several."""
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return [each for each in nodes if isinstance(each, yaml.MappingNode)]
