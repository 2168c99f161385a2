"""The process that examines an ONNX file for `fcn_core.inference.onnx_trial`; not for use by hand.

Run as `python -m fcn_core.inference.onnx_trial_main JSON`. Exit code 0 is a graph that works: what was found is on
standard output, and the graph as it is to be kept in the second file. With FAULTY, standard output says what does not.
"""

import json
import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from fcn_core.inference.graph_trial import FAULTY
from fcn_core.inference.graph_trial_main import MOST_CPUS, limit
from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.models.onnx_graph.check import GraphFault, first_line, keep_output, read_graph, the_input

COPIES = 8
"""How often the file may be there: read, parsed, written, and as ONNX Runtime holds and repacks it."""

_SIZES = ((96, 128), (163, 97))
"""Of the images that are tried, rounded up to what the network takes. The second has odd sides."""
_LARGEST_CLASS = 1 << 16


def main() -> None:
    task = json.loads(sys.argv[1])
    onnxruntime = import_onnxruntime()
    onnxruntime.set_default_logger_severity(4)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:MOST_CPUS])
    limit(task["cpu_seconds"], task["memory_bytes"] + COPIES * task["bytes"], file_bytes=2 << 30)
    try:
        print(json.dumps(_examine(task)), flush=True)
    except GraphFault as error:
        print(error, flush=True)
        os._exit(FAULTY)
    except (MemoryError, RuntimeError, ValueError, OverflowError) as error:
        print(f"is not run here: ({first_line(error)})", flush=True)
        os._exit(FAULTY)
    os._exit(0)


def _examine(task: dict[str, Any]) -> dict[str, Any]:
    files = task["files"]
    with os.fdopen(os.dup(files[0]), "rb") as file:
        file.seek(0)
        model = read_graph(file.read(), files[2] if len(files) > 2 else None)
    name, shape = the_input(model.graph)
    output, notes = keep_output(model, task["output"])
    size, multiple = _size(shape, task)
    content = model.SerializeToString(deterministic=True)
    with os.fdopen(os.dup(files[1]), "wb") as file:
        file.write(content)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes = len(model.graph.node)
    del model
    graph = _Graph(content, name, task["num_classes"])
    del content
    sizes = [size] if size else [_rounded(each, multiple) for each in _SIZES]
    scores, stride = _try_sizes(graph, sizes, multiple)
    batches = shape[0] is None and _takes_batches(graph, sizes[0])
    architecture = {
        "num_classes": task["num_classes"],
        "input": name,
        "output": output,
        "scores": scores,
        "size": size,
        "multiple_of": multiple,
        "batches": batches,
    }
    return {"architecture": architecture, "opset": opset, "nodes": nodes, "stride": stride, "notes": notes}


def _size(shape: list[int | None], task: dict[str, Any]) -> tuple[tuple[int, int] | None, int]:
    """(height, width) of all images, or None, and what sides must be multiples of."""
    fixed, asked = shape[2:], task["size"]
    if (fixed[0] is None) != (fixed[1] is None):
        raise GraphFault(
            f"has one side fixed, of {fixed[0] or fixed[1]} pixels; export it with both fixed, or both free"
        )
    if fixed[0] is not None:
        if asked and list(asked) != fixed:
            raise GraphFault(f"takes images of {fixed[1]}x{fixed[0]} alone; leave --size out")
        asked = fixed
    if asked and task["multiple_of"] != 1:
        raise GraphFault(f"takes images of {asked[1]}x{asked[0]}, to which all are resized; leave --multiple-of out")
    return (tuple(asked) if asked else None), task["multiple_of"]


def _rounded(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


class _Graph:
    """The graph in ONNX Runtime."""

    def __init__(self, content: bytes, name: str, num_classes: int) -> None:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = MOST_CPUS
        options.log_severity_level = 4
        self._name, self.num_classes = name, num_classes
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise GraphFault(
                f"is not one that ONNX Runtime {onnxruntime.__version__} runs ({first_line(error)})"
            ) from error

    def run(self, count: int, size: tuple[int, int]) -> npt.NDArray[Any]:
        """Its output for `count` images of noise."""
        images = np.random.default_rng(0).uniform(-2, 2, (count, 3, *size)).astype(np.float32)
        (values,) = self._session.run(None, {self._name: images})
        if not isinstance(values, np.ndarray):
            raise GraphFault("gives no array of numbers")
        return values


def _try_sizes(graph: _Graph, sizes: list[tuple[int, int]], multiple: int) -> tuple[str, float]:
    """What the output is, and its stride. Raises GraphFault where it does not follow the image's size."""
    scores, stride = "", 0.0
    for index, size in enumerate(sizes):
        shown = f"{size[1]}x{size[0]}"
        try:
            values = graph.run(1, size)
        except GraphFault:
            raise
        except Exception as error:
            if index == 0:
                raise GraphFault(
                    f"does not run on images of {shown} ({first_line(error)}); export it again, or give --size if it"
                    " takes one size alone"
                ) from error
            raise GraphFault(
                f"runs on images of {sizes[0][1]}x{sizes[0][0]} but not of {shown} ({first_line(error)}); give"
                " --multiple-of 32, or --size, if it takes only such"
            ) from error
        scores = _kind(values, graph.num_classes)
        cells = values.shape[-2:]
        if index == 0:
            stride = size[0] / cells[0]
            if cells == (1, 1) and size != (1, 1):
                raise GraphFault(f"gives one cell for an image of {shown}: it classifies images, and has no masks")
        expected = [side / stride for side in size]
        if any(abs(cell - wanted) >= 1.001 for cell, wanted in zip(cells, expected, strict=True)):
            raise GraphFault(
                f"gives {cells[1]}x{cells[0]} cells for an image of {shown}, where"
                f" {expected[1]:.4g}x{expected[0]:.4g} would cover it; export it with free height and width, or give"
                " --size as it was exported"
            )
    return scores, stride


def _kind(values: npt.NDArray[Any], num_classes: int) -> str:
    shape = list(values.shape)
    whole = values.dtype.kind in "iu"
    if whole and (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise GraphFault(
                f"gives classes {values.min()} to {values.max()}, where the label set has {num_classes}, from 0; give"
                " the label set that it was trained with"
            )
        return "classes"
    if len(shape) != 4 or values.dtype != np.float32:
        raise GraphFault(
            f"gives {values.dtype} of shape {shape[:8]}, not scores [N, classes, h, w], float32, or classes [N, h, w]:"
            " choose another output with --output-name, or export a segmentation network"
        )
    if shape[1] != num_classes:
        hint = (
            "; export it with channels first"
            if shape[3] == num_classes
            else "; give the label set that it was trained with"
        )
        raise GraphFault(f"scores {shape[1]} classes, where the label set has {num_classes}{hint}")
    if not np.isfinite(values).all():
        raise GraphFault("gives scores that are not finite numbers; its weights are damaged")
    sums = values.sum(1)
    is_probable = num_classes > 1 and values.min() >= 0 and bool((abs(sums - 1) < 1e-3).all())
    return "probabilities" if is_probable else "logits"


def _takes_batches(graph: _Graph, size: tuple[int, int]) -> bool:
    """Whether two images at once give what each gives alone."""
    try:
        values = graph.run(2, size)
    except Exception:
        return False
    return bool(values.shape[0] == 2)


if __name__ == "__main__":
    main()
