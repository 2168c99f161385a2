"""YAML as people write it: what YAML itself allows and nobody means is an error, not a guess."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError


def read_yaml(text: str | bytes) -> Any:
    """The value of a YAML text. Raises yaml.YAMLError, which says where, also for a key that is there twice: of the two
    values YAML takes the last and says nothing."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which makes nothing but plain values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue  # `<<` may stand twice, and takes nothing from who says it again
            if key.value in first:
                raise ConstructorError(
                    None,
                    None,
                    f"{key.value} is given twice, in line {first[key.value].line + 1} and in line "
                    f"{key.start_mark.line + 1}; take one out",
                    None,
                )
            first[key.value] = key.start_mark
        return super().construct_mapping(node, deep)
