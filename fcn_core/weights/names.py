"""What the same tensor is called elsewhere: Caffe, pytorch-fcn, torchvision and our own networks.

The one thing to know: names alone decide what a file is and which tensor goes where. Shapes are compared later, by
whoever copies, so that a wrong guess here is found and told there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from fcn_core.models.architecture import BackboneName

_VGG16 = {
    "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
    "conv4_1": 17, "conv4_2": 19, "conv4_3": 21, "conv5_1": 24, "conv5_2": 26, "conv5_3": 28,
}  # fmt: skip
"""The authors' name of each VGG16 convolution, and its index in torchvision's `features`."""

_VGG16_NAMES = {str(index): name for name, index in _VGG16.items()}

_FULLY_CONNECTED = {
    "vgg16": {"classifier.0": "fc6", "classifier.3": "fc7"},
    "vgg16_bn": {"classifier.0": "fc6", "classifier.3": "fc7"},
    "alexnet": {"classifier.1": "fc6", "classifier.4": "fc7"},
}
"""torchvision's fully connected layers that are convolutions in disguise. The last one scores ImageNet's classes."""


@dataclass(frozen=True)
class Family:
    """What some tensors are: `what` in words for people; the backbone they belong to, if that can be told; and
    whether the network takes the authors' input (BGR, 0..255, less a mean) rather than torchvision's.
    """

    what: str
    backbone: BackboneName | None
    authors_input: bool


def recognize(state: Mapping[str, Tensor]) -> Family | None:
    """Whose network these tensors are from, by their names; None if nobody's that we know."""
    if "conv1_1.weight" in state:
        return Family("VGG16 with the authors' names (Caffe, pytorch-fcn)", "vgg16", authors_input=True)
    if "conv1.weight" in state and "conv5.weight" in state:
        return Family("AlexNet with the authors' names (Caffe)", "alexnet", authors_input=True)
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    backbone = _torchvision_backbone({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    if backbone is None:
        return None
    if "classifier.4.weight" in state and prefix:
        return Family(f"torchvision's fcn_{backbone}", backbone, authors_input=False)
    kind = "a network of this library" if prefix else "torchvision's classifier"
    return Family(f"{kind} on {backbone}" if prefix else f"{kind} {backbone}", backbone, authors_input=False)


def _torchvision_backbone(state: Mapping[str, Tensor]) -> BackboneName | None:
    if "layer1.0.conv1.weight" in state:
        return "resnet101" if "layer3.22.conv1.weight" in state else "resnet50"
    if "features.0.0.weight" in state:
        return "mobilenet_v3_large"
    if "features.1.running_mean" in state:
        return "vgg16_bn"
    first = state.get("features.0.weight")
    if first is None:
        return None
    return "alexnet" if tuple(first.shape[2:]) == (11, 11) else "vgg16"


def renames(names: Collection[str], targets: Collection[str], backbone: BackboneName | None) -> dict[str, str]:
    """For each source name that a network with the tensors `targets` calls otherwise: that other name.

    `backbone` is that of the source. Names that have no counterpart are left out.
    """
    found = {}
    for source in names:
        name = next((candidate for candidate in _candidates(source, backbone) if candidate in targets), source)
        if name != source:
            found[source] = name
    return found


def _candidates(source: str, backbone: BackboneName | None) -> list[str]:
    """What a tensor may be called in one of our networks, its own name first."""
    layer, _, part = source.rpartition(".")
    candidates = [source, f"backbone.{source}"]
    if layer in _VGG16:
        candidates.append(f"backbone.features.{_VGG16[layer]}.{part}")
    bare = layer.removeprefix("backbone.")
    if backbone == "vgg16" and bare.startswith("features."):
        index = bare.removeprefix("features.")
        if index in _VGG16_NAMES:
            candidates.append(f"{_VGG16_NAMES[index]}.{part}")
    fully_connected = _FULLY_CONNECTED.get(backbone or "", {})
    if layer in fully_connected:
        # Never its own name: torchvision's fcn_resnet has a classifier.0 and .4 too, which are other things.
        candidates = [f"{fully_connected[layer]}.{part}"]
    if layer.endswith("_sem"):  # the semantic one of the two heads of the authors' SIFT Flow nets
        candidates.append(f"{layer.removesuffix('_sem')}.{part}")
    return candidates
