"""One target under the fuzzer, in a process of its own: `python -m tests.fuzz.child MODULE [libFuzzer's options]`.

With files in place of options, each is given to the target once: so a saved input is replayed.
"""

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
    atheris.Fuzz()


if __name__ == "__main__":
    main()
