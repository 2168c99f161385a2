"""OpenVINO and NNCF as packages, without the one that comes along to report their use.

Left alone, the bare import of either sends an event over the network and leaves files in the home directory.
"""

import importlib
import sys
from typing import Any

_REPORTER = "openvino_telemetry"


def import_openvino() -> Any:
    """The package openvino. Raises ImportError where it is not installed."""
    return _import("openvino")


def import_nncf() -> Any:
    """The package nncf. Raises ImportError where it is not installed."""
    return _import("nncf")


def _import(name: str) -> Any:
    # To Python, a module that is None cannot be imported; both packages then do without it.
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]
    return importlib.import_module(name)
