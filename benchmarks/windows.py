"""What does a large image cost an imported ONNX graph? Memory and time, through overlapping windows.

The graph is one convolution: with a score for each pixel (`--stride 1`) it is the worst that windows meet, for nothing
but scores takes memory. A network of many layers needs what it needs for one window, on top.

    python benchmarks/windows.py                          # 10000x10000, 21 classes, stride 1, windows of 2048
    python benchmarks/windows.py --size 20000x5000 --stride 4 --classes 150
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tiling import peak_gb, predict_one

from fcn_core import LabelSet, ModelBundle, Predictor, resolve_settings
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10000x10000", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--stride", type=int, default=1, help="pixels per score along an axis")
    parser.add_argument("--window", type=int, default=0, help="side of a window; 0: 2048")
    parser.add_argument("--engine", choices=["openvino", "onnxruntime"], default="openvino")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    width, height = (int(side) for side in options.size.split("x"))
    settings = resolve_settings(
        device="cpu", engine=options.engine, kind="onnx", threads=options.threads, window=options.window
    )
    predictor = Predictor(one_layer(options.classes, options.stride), settings)
    print(
        f"{width}x{height} pixels ({width * height / 1e6:.0f} MP), {options.classes} classes, stride {options.stride},"
        f" {options.engine} in {settings.precision}, {settings.threads} threads"
    )
    print(f"peak memory with the model ready: {peak_gb():.2f} GB")
    predict_one(predictor, height, width)


def one_layer(classes: int, stride: int) -> ModelBundle:
    """A graph that scores classes by one convolution, with random weights."""
    side = max(3, stride)
    weights = np.random.default_rng(0).normal(0, 1 / side, (classes, 3, side, side)).astype(np.float32)
    pads = [1] * 4 if stride < 3 else [0] * 4
    layer = helper.make_node("Conv", ["image", "weights"], ["scores"], strides=[stride] * 2, pads=pads)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", ("n", 3, "h", "w")), ("scores", ("n", classes, "rows", "columns")))
    ]
    graph = helper.make_graph([layer], "one layer", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    palette = tuple((index, 0, 0) for index in range(classes))
    labels = LabelSet(name="some", names=tuple(f"class {index}" for index in range(classes)), palette=palette)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return import_onnx(path, labels, IMAGENET, multiple_of=stride).bundle


if __name__ == "__main__":
    main()
