"""A model in 8-bit integers: about twice as fast on a CPU, and a few pixels in a thousand change.

The one thing to know: how values are rounded is decided by what the network computes of a few dozen of the user's own
images (post-training quantization by NNCF; nothing is trained). Some of them are kept out of that, and what the int8
model says of these, compared with the float model, is its measured agreement.
"""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fcn_core.bundle import Int8Graph, ModelBundle
from fcn_core.errors import DataError, ExportError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.engines.openvino_engine import to_graph
from fcn_core.inference.extras import require
from fcn_core.inference.onnx_quantize import quantized_onnx
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.reporting_packages import import_nncf, import_openvino
from fcn_core.inference.settings import resolve_settings
from fcn_core.models.description import INT8_FILES

PACKAGES = ("openvino", "nncf")
"""What quantizing needs beyond PyTorch: the extra `quantize`."""

FEWEST_IMAGES = 4


@dataclass(frozen=True)
class Int8Agreement:
    """images: how many were compared, none of which took part in calibration. equal_pixels: the share of their pixels
    to which the int8 model and the float one in float32 give the same class.
    """

    images: int
    equal_pixels: float


def quantize(bundle: ModelBundle, images: Sequence[Image]) -> tuple[ModelBundle, Int8Agreement]:
    """The bundle in int8, and how well it agrees. images: RGB, each uint8 [H, W, 3] of any size, at least 4.

    An imported ONNX graph becomes another one. Every fourth image is kept for the comparison, the others calibrate. The
    agreement is in the new bundle's provenance too. Raises ExportError if packages are missing or the bundle is int8
    already, DataError for too few images.
    """
    require_packages()
    if bundle.int8 is not None:
        raise ExportError(f"model {bundle.model_id} is int8 already; quantize the float model that it was made of")
    if len(images) < FEWEST_IMAGES:
        raise DataError(f"calibration needs at least {FEWEST_IMAGES} images, not {len(images)}; a few dozen are good")
    held_out = images[::4]
    calibrating = [image for index, image in enumerate(images) if index % 4]
    notes = {"float_model_id": bundle.model_id, "calibration_images": len(calibrating), "tool": _tool()}
    float_model = replace(bundle, scores={}, provenance={**bundle.provenance, "int8": notes})
    if bundle.onnx is None:
        made = replace(float_model, int8=_serialize(_quantized(bundle, calibrating)))
    else:
        made = replace(float_model, onnx=quantized_onnx(bundle, calibrating))
    agreement = agree(bundle, made, held_out)
    notes |= {"compared_images": agreement.images, "equal_pixels": agreement.equal_pixels}
    return made, agreement


def agree(bundle: ModelBundle, other: ModelBundle, images: Sequence[Image]) -> Int8Agreement:
    """How often `other`, in int8, says the same as the float bundle in float32."""
    exact = resolve_settings(device="cpu", precision="float32", engine="openvino", kind=bundle.kind)
    float32 = Predictor(bundle, exact)
    # First, as of a network whose scores overflow OpenVINO cannot compile the int8 form, and says so in its own words.
    expected = [float32.predict([image])[0].mask for image in images]
    int8 = Predictor(other, resolve_settings(device="cpu", engine="openvino", kind=other.kind))
    equal = sum(
        int((mask == int8.predict([image])[0].mask).sum()) for image, mask in zip(images, expected, strict=True)
    )
    return Int8Agreement(len(images), equal / sum(image.shape[0] * image.shape[1] for image in images))


def require_packages() -> None:
    """Raises ExportError if a package that quantizing needs is not installed."""
    require("int8", PACKAGES, "quantize")


def _quantized(bundle: ModelBundle, images: Sequence[Image]) -> Any:
    nncf = import_nncf()

    logging.getLogger("nncf").setLevel(logging.ERROR)
    data = nncf.Dataset(images, lambda image: np.ascontiguousarray(image)[None])
    # Scores and what is added up of them decide between classes, and cost next to nothing: they stay as they are.
    scores = nncf.IgnoredScope(patterns=[r".*score.*"], validate=False)
    return nncf.quantize(to_graph(bundle, named=True), data, subset_size=len(images), ignored_scope=scores)


def _serialize(graph: Any) -> Int8Graph:
    openvino = import_openvino()

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in INT8_FILES]
        openvino.serialize(graph, *paths)
        return Int8Graph(*(path.read_bytes() for path in paths))


def _tool() -> str:
    nncf = import_nncf()
    openvino = import_openvino()

    return f"NNCF {nncf.__version__}, OpenVINO {openvino.__version__.split('-')[0]}"
