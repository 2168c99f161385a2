"""OpenVINO, NNCF and ONNX Runtime, imported so that they do not report their use.

Left alone, the bare import of each sends events over the network and leaves files in the home folder.
"""

import importlib
import os
import sys
from typing import Any

_REPORTER = "openvino_telemetry"


def import_openvino() -> Any:
    """The package openvino. Raises ImportError where it is not installed."""
    return _without_reporter("openvino")


def import_nncf() -> Any:
    """The package nncf. Raises ImportError where it is not installed."""
    return _without_reporter("nncf")


def import_onnxruntime() -> Any:
    """The package onnxruntime. Raises ImportError where it is not installed.

    Its reporter is part of the native library, and reads this variable as it loads.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")


def _without_reporter(name: str) -> Any:
    # To Python, a module that is None cannot be imported; both packages then do without it.
    sys.modules.setdefault(_REPORTER, None)  # type: ignore[arg-type]
    return importlib.import_module(name)
