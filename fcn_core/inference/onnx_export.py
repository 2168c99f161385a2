"""A model as one ONNX file that needs nothing else: bytes of RGB in, logits and mask out, of any size and batch.

The one thing to know: what is written has been run. ONNX Runtime executes the graph at sizes that share no divisor
with the network's strides, and compared with the network itself; one that differs is not written. Normalisation is part
of the graph; label names and colours travel in the file's metadata, and readably in a .json beside it.
"""

import hashlib
import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fcn_core.bundle import ModelBundle
from fcn_core.errors import ExportError
from fcn_core.inference.extras import require
from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.models.network import Network
from fcn_core.normalization import Normalization

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What exporting needs beyond PyTorch: the extra `onnx`."""

OPSET = 18
"""The version of ONNX's operators: ONNX Runtime runs it since 1.14."""

CHECKED_SIZES = ((1, 64, 64), (2, 33, 190), (1, 1, 1), (3, 97, 45), (1, 8, 131))
"""(batch, height, width) at which the graph is compared with the network."""

# Of the largest logit: float32 sums of thousands of products differ by about this much between two libraries.
_TOLERANCE = 1e-4

# Traced at a size at which every crop crops: a slice that keeps all would be left out of the graph.
_TRACED_SIZE = (2, 75, 107)

_INPUT = {"name": "image", "dtype": "uint8", "shape": ["batch", "height", "width", 3], "meaning": "RGB pixels, 0..255"}
_OUTPUTS = [
    {
        "name": "logits",
        "dtype": "float32",
        "shape": ["batch", "classes", "height", "width"],
        "meaning": "scores before softmax",
    },
    {"name": "mask", "dtype": "uint8", "shape": ["batch", "height", "width"], "meaning": "class indices"},
]


@dataclass(frozen=True)
class OnnxReport:
    """What was written. size: of the ONNX file in bytes. worst: the largest difference of a logit from the network's,
    as a share of the largest logit. differing: pixels of all checked masks that differ, all near-ties.
    """

    path: Path
    description: Path
    size: int
    worst: float
    differing: int


def export_onnx(bundle: ModelBundle, path: str | os.PathLike[str]) -> OnnxReport:
    """Write the bundle as an ONNX file, and its description as JSON to the same name plus ".json".

    The graph's input is "image", uint8 [batch, height, width, 3], RGB 0..255. Its outputs are "logits", float32 [batch,
    classes, height, width], and "mask", uint8 [batch, height, width]; batch, height and width are free, from 1 up.
    Existing files are replaced, each by a rename. Raises ExportError if packages are missing, the graph does not
    compute what the network does, or the file cannot be written.
    """
    require_packages()
    if bundle.kind == "onnx":
        raise ExportError(f"model {bundle.model_id} is an ONNX graph already: it is model.onnx in its folder")
    if bundle.int8 is not None:
        raise ExportError(
            f"model {bundle.model_id} is an int8 graph for OpenVINO; export the float model it was made of"
        )
    target = Path(path)
    if not target.parent.is_dir():
        raise ExportError(f"{target.parent} is not a folder; make it, or choose another output")
    module = _Segmenter(bundle.build(), bundle.normalization).eval()
    description = {
        "model_id": bundle.model_id,
        "architecture": bundle.architecture.model_dump(mode="json"),
        "labels": bundle.labels.model_dump(mode="json"),
        "normalization": bundle.normalization.model_dump(mode="json"),
        "input": _INPUT,
        "outputs": _OUTPUTS,
    }
    content = _trace(module, description)
    worst, differing = compare(content, module)
    description["onnx_sha256"] = hashlib.sha256(content).hexdigest()
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    beside = target.with_name(target.name + ".json")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            for file, data in ((target, content), (beside, text.encode())):
                staged = Path(aside) / file.name
                staged.write_bytes(data)
                staged.replace(file)
    except OSError as error:
        raise ExportError(f"cannot write {target} ({error}); check the path and its rights") from error
    return OnnxReport(target, beside, len(content), worst, differing)


def require_packages() -> None:
    """Raises ExportError if a package that exporting needs is not installed."""
    require("ONNX export", PACKAGES, "onnx")


class _Segmenter(nn.Module):
    """From pixels to logits and mask: what the exported graph computes."""

    def __init__(self, network: Network, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self._normalization = normalization

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(self._normalization.apply(image.permute(0, 3, 1, 2)))
        return logits, logits.argmax(1).to(torch.uint8)


def _trace(module: _Segmenter, description: dict[str, Any]) -> bytes:
    """The module as a serialised ONNX model with its description as metadata."""
    axes = {0: "batch", 1: "height", 2: "width"}
    example = torch.zeros((*_TRACED_SIZE, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about the names of axes and the exporter's own internals
        try:
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[str(_INPUT["name"])],
                output_names=[str(output["name"]) for output in _OUTPUTS],
                dynamic_shapes={"image": axes},
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(
                f"PyTorch {torch.__version__} cannot export this network ({str(error).splitlines()[0]});"
                " install the versions in constraints.txt"
            ) from error
    assert program is not None  # it is None only where it was told to write a file
    model = program.model_proto
    for output, declared in zip(model.graph.output, _OUTPUTS, strict=True):
        for dim, name in zip(output.type.tensor_type.shape.dim, declared["shape"], strict=True):
            if name != "classes":
                dim.dim_param = name
    for key, value in description.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def compare(content: bytes, module: nn.Module) -> tuple[float, int]:
    """(worst relative difference of logits, differing pixels) of a serialised graph and the module it was made of.

    Runs both at CHECKED_SIZES. Raises ExportError if logits differ by more than rounding, or a mask elsewhere than at
    a near-tie.
    """
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    worst, differing = 0.0, 0
    for size in CHECKED_SIZES:
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        logits, mask = session.run(["logits", "mask"], {"image": image})
        with torch.inference_mode():
            expected, expected_mask = (part.numpy() for part in module(torch.from_numpy(image)))
        where = f"at batch {size[0]}, {size[1]}x{size[2]}"
        if logits.shape != expected.shape:
            raise ExportError(
                f"the exported graph gives {list(logits.shape)} {where}, the network"
                f" {list(expected.shape)}; nothing was written, please report it"
            )
        scale = float(np.abs(expected).max()) or 1.0
        difference = float(np.abs(logits - expected).max()) / scale
        strange = mask != expected_mask
        # Where masks differ, the two classes must be as good as equal to the network itself.
        chosen, best = (
            np.take_along_axis(expected, labels[:, None].astype(np.int64), 1)[:, 0] for labels in (mask, expected_mask)
        )
        gap = float((best - chosen).max()) / scale
        if not difference <= _TOLERANCE or gap > 2 * _TOLERANCE:
            raise ExportError(
                f"the exported graph differs from the network {where}: logits by {difference:.1e} of the largest;"
                " nothing was written, please report it"
            )
        worst, differing = max(worst, difference), differing + int(strange.sum())
    return worst, differing
