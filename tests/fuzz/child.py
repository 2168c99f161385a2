"""One target under the fuzzer, in a process of its own: `python -m tests.fuzz.child MODULE [libFuzzer's options]`.

With files in place of options, each is given to the target once: so a saved input is replayed.
"""

import ctypes
import importlib
import sys

import atheris

INSTRUMENTED = [
    "PIL",
    "fcn_core.decoding",
    "fcn_core.weights.caffemodel",
    "fcn_core.bundle",
    "fcn_core.text.json_text",
    "fcn_core.labels",
    "fcn_core.models.int8_graph",
    "fcn_core.training.checkpoint",
    "pipeline.data.manifest",
    "pipeline.segmentation.inventory",
    "pipeline.segmentation.key_lists",
]
"""Whose branches the fuzzer watches, to tell a new path from an old one."""


def main() -> None:
    module, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = importlib.import_module(module)
    atheris.Setup([module, *options], target.check)
    # The fuzzer ends by exit() while it holds Python's lock. Arrow's threads, which exit() waits for, may want that
    # lock to let go of a buffer: so this, the last to register and the first to be called, ends the process at once.
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
