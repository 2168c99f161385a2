"""OpenVINO on this machine: whether it is installed, and what its CPU plugin can do.

The one thing to know: a process has one plugin, loaded once (see `core`).
"""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from fcn_core.inference.reporting_packages import import_openvino

INSTALL = "pip install 'fcn-pipeline[openvino]'"


def is_installed() -> bool:
    """Whether there is an OpenVINO to import."""
    return importlib.util.find_spec("openvino") is not None


@cache
def precisions() -> frozenset[str]:
    """The precisions in which OpenVINO computes on this CPU."""
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names = {"FP32": "float32", "BF16": "bfloat16"}
    return frozenset(names[capability] for capability in capabilities if capability in names)


@cache
def core() -> Any:
    """The process's openvino.Core, with its CPU plugin loaded.

    On processors with AMX the plugin gives the thread that loads it a stack for signal handlers, and takes it away when
    the last that uses the plugin goes. With several plugins at once, or where that happens in another thread, the first
    one is left with a stack that is no more, and dies of its next signal: Ctrl-C, or the end of a child process. So
    there is one plugin, never unloaded, and the thread that loads it is gone at once.
    """

    def load() -> Any:
        core = import_openvino().Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")
        return core

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(load).result()
