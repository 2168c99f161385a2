"""What is particular to one network, as data; each stands beside its class, and `networks` lists them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from fcn_core.models.backbones import BackboneName
from fcn_core.normalization import Normalization

Geometry = Literal["same", "padded", "torchvision"]


@dataclass(frozen=True)
class Published:
    """Scores in percent, as published; None where the source gives none. `source`: whose, and for which weights."""

    data: str
    source: str
    mean_iou: float
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    frequency_weighted_iou: float | None = None


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that is particular to one network.

    build: makes it, a `network.Network` with fresh weights, from its Architecture. stride: pixels per cell of its
    scores, before the last upsampling. strides: where a backbone makes it another. backbones: those it runs on, the
    default first. normalization: the input of a new network. summary: a few words for the list of networks; where the
    geometry is "same", the backbone's are added.

    defaults: of an Architecture's fields, where they are not the usual ones. fixed: fields that have only one value,
    with the reason, which completes "ARCH is ...". stages: the networks that the paper trains one after the other to
    get this one, itself last; empty where it is never trained so. input_scales: fixed factors before score layers.

    published: scores, and weights: torchvision's published weights of the whole network, by backbone; these are found
    under the name WEIGHTS_NAME_BACKBONE.
    """

    build: Callable[[Any], nn.Module]
    stride: int
    backbones: tuple[BackboneName, ...]
    geometry: Geometry
    normalization: Normalization
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    input_scales: Mapping[str, float] = field(default_factory=dict)
    published: Mapping[BackboneName, tuple[Published, ...]] = field(default_factory=dict)
    weights: Mapping[BackboneName, str] = field(default_factory=dict)
    weights_name: str = "fcn"
    strides: Mapping[BackboneName, int] = field(default_factory=dict)
