"""Networks of other packages, exported to ONNX as their documentation says: masks are the package's own."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import EngineName, resolve_settings
from fcn_core.labels import LabelSet
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from tests.fcn_core.nets import photo
from tests.requires import requires

requires("onnx", install="'fcn-pipeline[onnx]'")
requires("onnxruntime", install="'fcn-pipeline[onnx]'")

CLASSES = 7
LABELS = LabelSet(name="seven", names=tuple("abcdefg"), palette=tuple((30 * index, 0, 0) for index in range(CLASSES)))
SIZES = [(64, 96), (128, 160), (97, 131)]

Forward = Callable[[Tensor], Tensor]
"""The package's own way from network input [1, 3, H, W] to scores of any size."""


def _lraspp() -> tuple[nn.Module, Forward, int]:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    return network, lambda x: network(x)["out"], 1


def _smp(name: str) -> tuple[nn.Module, Forward, int]:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="not installed: pip install 'fcn-pipeline[models]'")
    network = getattr(smp, name)("resnet18", encoder_weights=None, classes=CLASSES)
    return network, network, 32


def _transformers() -> tuple[nn.Module, Forward, int]:
    transformers = pytest.importorskip("transformers", reason="not installed: pip install 'fcn-pipeline[models]'")
    config = transformers.SegformerConfig(num_labels=CLASSES, depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 64, 128])
    network = transformers.SegformerForSemanticSegmentation(config)
    return network, lambda x: network(pixel_values=x).logits, 1


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Forward, int]]] = {
    "torchvision's LR-ASPP": _lraspp,
    "smp's U-Net": lambda: _smp("Unet"),
    "smp's FPN": lambda: _smp("FPN"),
    "smp's SegFormer": lambda: _smp("Segformer"),
    "transformers' SegFormer": _transformers,
}


class _Scores(nn.Module):
    """One tensor, where the network gives a dictionary; less each class's mean over an image, as of fresh weights one
    class wins everywhere.
    """

    def __init__(self, network: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.network, self._forward = network, forward
        with torch.inference_mode():
            self._usual = forward(_input(photo(*SIZES[0]))).mean((2, 3), keepdim=True).clone()

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images) - self._usual


def _input(image: Any) -> Tensor:
    return IMAGENET.apply(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_equal_the_packages_own_forward_resized_and_arg_max(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, forward, multiple = NETWORKS[name]()
    network.eval()
    scorer = _Scores(network, forward).eval()
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            scorer,
            (torch.zeros(1, 3, 64, 96),),
            path,
            dynamo=False,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "n", 2: "h", 3: "w"}},
        )
    bundle = import_onnx(path, LABELS, IMAGENET, multiple_of=multiple).bundle
    engines: tuple[EngineName, ...] = ("onnxruntime", "openvino")
    for engine in engines:
        predictor = Predictor(bundle, resolve_settings("cpu", "float32", engine=engine, kind="onnx", threads=2))
        for seed, size in enumerate(SIZES):
            image = photo(*size, seed)
            expected = _logits(scorer, image, multiple).argmax(1)[0].numpy()
            assert len(np.unique(expected)) > 1
            assert (predictor.predict([image])[0].mask == expected).mean() >= 0.999


def _logits(forward: Forward, image: Any, multiple: int) -> Tensor:
    """Padded as smp's users do, forward, resized to the image, cropped."""
    height, width = image.shape[:2]
    size = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    padded = np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")
    with torch.inference_mode():
        scores = forward(_input(padded))
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)[..., :height, :width]
