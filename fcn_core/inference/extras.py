"""Packages that only some of the work needs, and how to get them."""

import importlib.util
from collections.abc import Sequence

from fcn_core.errors import ExportError


def require(purpose: str, packages: Sequence[str], extra: str) -> None:
    """Raises ExportError if one of the packages that `purpose` needs is not installed; `extra` brings them all."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{purpose} needs the packages {', '.join(packages)}, and {', '.join(missing)} cannot be found here;"
            f" install them with pip install 'fcn-pipeline[{extra}]'"
        )
