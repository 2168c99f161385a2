"""What the same tensor is called elsewhere: Caffe, pytorch-fcn, torchvision and our own networks.

The one thing to know: names alone decide what a file is and which tensor goes where. Shapes are compared later, by
whoever copies, so that a wrong guess here is found and told there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from fcn_core.models.backbones import BACKBONES, BackboneName, backbone_spec

_TORCHVISIONS = {
    "classifier.0.project.0.weight": "deeplabv3",
    "classifier.low_classifier.weight": "lraspp",
    "classifier.4.weight": "fcn",
}
"""Tensors by which torchvision's segmentation networks are recognised; the first that is there counts."""

_WRAPPERS = 5
"""Modules around a network that are looked into."""


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
    for name in BACKBONES:
        spec = backbone_spec(name)
        if spec.authors_name and all(tensor in state for tensor in spec.authors_tensors):
            return Family(spec.authors_name, name, authors_input=True)
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    # torchvision's segmentation networks on MobileNetV3 have its `features` as their backbone.
    spelled = (bare, {f"features.{name}": tensor for name, tensor in bare.items()})
    found = (name for names in spelled for name in BACKBONES if backbone_spec(name).is_of(names))
    backbone = next(found, None)
    if backbone is None:
        return None
    family = next((family for tensor, family in _TORCHVISIONS.items() if prefix and tensor in state), None)
    if family is not None:
        return Family(f"torchvision's {family}_{backbone}", backbone, authors_input=False)
    kind = "a network of this library" if prefix else "torchvision's classifier"
    return Family(f"{kind} on {backbone}" if prefix else f"{kind} {backbone}", backbone, authors_input=False)


def unwrapped(state: Mapping[str, Tensor]) -> tuple[str, Mapping[str, Tensor]]:
    """The tensors by the names that their network gives them, and the prefix that wrappers put before these.

    Lightning, torch.compile and segmentation_models_pytorch hold a network as a part of another module: `model.`,
    `_orig_mod.`, `encoder.`. Tensors that are not the network's (of a loss, of a decoder) are left out. Where two
    networks are found, or none, the tensors come back as they were, with no prefix.
    """
    level = {"": state}
    for _ in range(_WRAPPERS):
        known = {prefix: part for prefix, part in level.items() if recognize(part) is not None}
        if known:
            return next(iter(known.items())) if len(known) == 1 else ("", state)
        below: dict[str, dict[str, Tensor]] = {}
        for prefix, part in level.items():
            for name, tensor in part.items():
                wrapper, dot, rest = name.partition(".")
                if dot:
                    below.setdefault(f"{prefix}{wrapper}.", {})[rest] = tensor
        level = dict(below)
    return "", state


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
    candidates = [source, f"backbone.{source}", f"backbone.{source.removeprefix('features.')}"]
    spec = backbone_spec(backbone) if backbone else None
    authors_layers = spec.authors_layers if spec else {}
    if layer in authors_layers:
        candidates.append(f"backbone.features.{authors_layers[layer]}.{part}")
    for theirs, index in authors_layers.items():
        if layer.removeprefix("backbone.") == f"features.{index}":
            candidates.append(f"{theirs}.{part}")
    fully_connected = spec.fully_connected if spec else {}
    if layer in fully_connected:
        # Never its own name: torchvision's fcn_resnet has a classifier.0 and .4 too, which are other things.
        candidates = [f"{fully_connected[layer]}.{part}"]
    if layer.endswith("_sem"):  # the semantic one of the two heads of the authors' SIFT Flow nets
        candidates.append(f"{layer.removesuffix('_sem')}.{part}")
    return candidates
