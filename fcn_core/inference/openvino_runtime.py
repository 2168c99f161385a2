"""OpenVINO on this machine: whether it is installed, and what its CPU plugin can do.

The one thing to know: a process has one plugin, loaded once (see `core`). Imports no PyTorch: the process that tries a
graph is to start fast.
"""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from fcn_core.inference.reporting_packages import import_openvino

INSTALL = "pip install 'fcn-pipeline[openvino]'"

_KEPT_SIZES = 256
"""Of how many layers and sizes compiled parts are kept: enough for several image sizes, and bounded for thousands."""


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


def compile_for_cpu(graph: Any, precision: str, threads: int) -> Any:
    """An openvino.CompiledModel of an openvino.Model. precision: "float32" or "bfloat16"."""
    return core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Actors that share a machine would all be pinned to its first cores; the kernel knows better.
            "ENABLE_CPU_PINNING": False,
            "ENABLE_HYPER_THREADING": True,  # the number of threads has been decided already
            "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_SIZES,
        },
    )
