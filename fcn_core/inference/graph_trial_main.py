"""The process that tries a graph for `fcn_core.inference.graph_trial`; not for use by hand.

Run as `python -m fcn_core.inference.graph_trial_main JSON`. Exit code 0 is a graph that works; with FAULTY, standard
output says in a sentence what does not.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

import numpy as np

from fcn_core.inference.graph_trial import FAULTY
from fcn_core.inference.openvino_runtime import compile_for_cpu, core
from fcn_core.inference.reporting_packages import import_openvino

MOST_CPUS = 4
"""More would only map more memory, a stack and a heap for each thread."""
SPARE_MAPS = 8
"""How many times larger than the float network's largest map a value inside may be: borders, maps side by side."""
COPIES = 24
"""How often the constants may be there: int8 weights become floats, which are reordered."""

_PR_SET_PDEATHSIG = 1
_TRIED_SIZE = (1, 64, 64, 3)


class _Faulty(Exception):
    """What is wrong with the graph, as the end of a sentence."""


def main() -> None:
    task = json.loads(sys.argv[1])
    xml, values = (_content(file) for file in task["files"])
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:MOST_CPUS])
    core()
    limit(task["cpu_seconds"], task["memory_bytes"] + COPIES * values.nbytes)
    try:
        _try(xml, values, task)
    except (_Faulty, RuntimeError, ValueError, MemoryError) as error:
        text = str(error).strip() if isinstance(error, _Faulty) else _first_line(error)
        print(text.rstrip("."), flush=True)
        os._exit(FAULTY)  # not by way of destructors, some of which crash on what is half made
    os._exit(0)


def _content(file: int) -> Any:
    return np.memmap(os.fdopen(file, "rb"), np.uint8, "r") if os.fstat(file).st_size else np.zeros(0, np.uint8)


def limit(cpu_seconds: int, memory_bytes: int, file_bytes: int = 1 << 20) -> None:
    """Limits that this process cannot lift again: what it may map beyond what it has, its time, and what it writes.

    It ends with the process that started it, too.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    for what, most, slack in (
        (resource.RLIMIT_AS, mapped + memory_bytes, 0),
        # Time that is up is told by SIGXCPU; at the hard limit by SIGKILL, as want of memory is.
        (resource.RLIMIT_CPU, cpu_seconds, 5),
        (resource.RLIMIT_FSIZE, file_bytes, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        hard = resource.getrlimit(what)[1]
        soft, most = (each if hard == resource.RLIM_INFINITY else min(each, hard) for each in (most, most + slack))
        resource.setrlimit(what, (soft, most))


def _try(xml: Any, values: Any, task: dict[str, Any]) -> None:
    openvino, expected = import_openvino(), task["expected"]

    def read() -> Any:
        return core().read_model(xml.tobytes(), openvino.Tensor(np.array(values)))

    sized = read()
    sized.reshape([1, *expected["size"], 3])
    _check_shapes(sized, expected, values.nbytes)
    compiled = compile_for_cpu(read(), task["precision"], min(task["threads"], MOST_CPUS))
    compiled.create_infer_request().infer([np.zeros(_TRIED_SIZE, np.uint8)])


def _check_shapes(graph: Any, expected: dict[str, Any], weights: int) -> None:
    """Scores must be of the float network's shape, and nothing inside much larger than inside of that one."""
    # Weights become floats, one a byte, in layers of their own.
    most = max(SPARE_MAPS * expected["largest_map"], weights)
    for node in graph.get_ops():
        if node.get_type_name() == "Constant":
            continue
        for output in node.outputs():
            shape = output.get_partial_shape()
            if shape.is_dynamic:
                raise _Faulty(f"the size of what a layer of type {node.get_type_name()} makes cannot be told")
            elements = int(np.prod([float(side.get_length()) for side in shape]))
            if elements > most:
                raise _Faulty(
                    f"a layer of type {node.get_type_name()} makes {elements} values of an image, over {most}"
                )
    found = list(graph.output(0).get_shape())
    if found != list(expected["scores"]):
        raise _Faulty(f"it gives scores {found} where the float network gives {list(expected['scores'])}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # OpenVINO's first line says where in its source it is; what follows, what is wrong.
    telling = next((line for line in lines if not line.startswith(("Exception from", "Check "))), "")
    return f"OpenVINO refuses it ({(telling or type(error).__name__)[:200]})"


if __name__ == "__main__":
    main()
