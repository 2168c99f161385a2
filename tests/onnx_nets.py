"""Small segmentation networks as ONNX files: as exporters write them, and as nobody should."""

from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int | str, ...]


def small_onnx(
    end: str = "logits",
    classes: int = 5,
    *,
    shape: Shape = ("n", 3, "h", "w"),
    opset: int = 17,
    output: Shape | None = None,
    seed: int = 0,
) -> Any:
    """Two strided convolutions and a score layer, at stride 4. end: "logits", "softmax", "argmax" or "classes" (a class
    map that no ArgMax ends)."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    kernels = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (classes, 8, 1, 1)}
    constants = [
        numpy_helper.from_array(rng.normal(0, 0.4, kernel).astype(np.float32), name) for name, kernel in kernels.items()
    ]
    strided: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], **strided),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], **strided),
        helper.make_node("Conv", ["c", "w3"], ["scores"]),
    ]
    kind = TensorProto.FLOAT
    dimensions: Shape = ("n", classes, "hs", "ws")
    if end == "softmax":
        nodes.append(helper.make_node("Softmax", ["scores"], ["y"], axis=1))
    elif end in ("argmax", "classes"):
        nodes.append(helper.make_node("ArgMax", ["scores"], ["i"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Abs" if end == "classes" else "Identity", ["i"], ["y"]))
        kind, dimensions = TensorProto.INT64, ("n", "hs", "ws")
    else:
        nodes[-1].output[0] = "y"
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", kind, output or dimensions)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def written(model: Any, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path
