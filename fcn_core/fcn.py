"""Fully convolutional networks (Long, Shelhamer and Darrell, CVPR 2015): FCN-32s, FCN-16s and FCN-8s.

The one thing to know: the geometry is "same". Where the authors pad the image by 100 pixels and crop what
comes out, every layer here keeps ceil(size / stride) cells, so any image from 1x1 works, nothing is computed
for padding, and maps of different strides line up by cropping only at the bottom and right.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fcn_core.backbones import BACKBONES, Features

STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}


class Architecture(BaseModel):
    """Everything that decides a network's layers and their shapes.

    `width` multiplies the backbone's channels, `head_width` is the number of channels of fc6 and fc7.
    `upsampling` is how the coarser scores are doubled before they are fused: "transposed", learned from a
    bilinear start as in the paper, or "interpolate", fixed bilinear.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["fcn32s", "fcn16s", "fcn8s"] = "fcn8s"
    backbone: Literal["vgg16"] = "vgg16"
    num_classes: int = Field(ge=1, le=255)
    width: float = Field(default=1.0, gt=0, le=4, allow_inf_nan=False)
    head_width: int = Field(default=4096, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    upsampling: Literal["transposed", "interpolate"] = "transposed"

    @property
    def stride(self) -> int:
        """Pixels per cell of the network's scores, before the last upsampling: 32, 16 or 8."""
        return STRIDES[self.arch]


class FusionInputs(NamedTuple):
    """All the fusion needs of an image: pool5 [N, C5, h, w], and class scores of the finer pools it uses."""

    pool5: Tensor
    score_pool4: Tensor | None
    score_pool3: Tensor | None


class FCN(nn.Module):
    """FCN-32s, 16s or 8s over a backbone; layers carry the paper's names.

    New score layers are zero, so an untrained network scores every class 0 everywhere; the rest is
    Kaiming-normal.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.stride = architecture.stride
        classes, head = architecture.num_classes, architecture.head_width

        self.backbone = BACKBONES[architecture.backbone](architecture.width)
        pool3, pool4, pool5 = self.backbone.channels
        self.fc6 = nn.Conv2d(pool5, head, 7, padding=3)
        self.fc7 = nn.Conv2d(head, head, 1)
        self.dropout = nn.Dropout(architecture.dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        if self.stride <= 16:
            self.upscore2 = _double(architecture)
            self.score_pool4 = nn.Conv2d(pool4, classes, 1)
        if self.stride <= 8:
            self.upscore_pool4 = _double(architecture)
            self.score_pool3 = nn.Conv2d(pool3, classes, 1)

        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d):
                if name.startswith("score"):
                    nn.init.zeros_(layer.weight)
                else:
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these convolutions all have one

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        return final_upsample(self.scores(x), self.stride, (x.shape[-2], x.shape[-1]))

    def scores(self, x: Tensor) -> Tensor:
        """Class scores [N, num_classes, ceil(H/stride), ceil(W/stride)], before the last upsampling."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Features:
        """The backbone's maps at strides 8, 16 and 32."""
        features: Features = self.backbone(x)
        return features

    def head(self, features: Features) -> Tensor:
        """Scores from features: everything that is not backbone."""
        return self.fuse(self.fusion_inputs(features))

    def fusion_inputs(self, features: Features) -> FusionInputs:
        """Score the finer pools. This works cell by cell, so tiles need not keep their wide maps."""
        return FusionInputs(
            pool5=features.stride32,
            score_pool4=self.score_pool4(features.stride16) if self.stride <= 16 else None,
            score_pool3=self.score_pool3(features.stride8) if self.stride <= 8 else None,
        )

    def fuse(self, inputs: FusionInputs) -> Tensor:
        """The paper's figure 3, coarse to fine: scores of fc7, doubled plus pool4's, doubled plus pool3's."""
        fc6 = self.dropout(F.relu(self.fc6(inputs.pool5)))
        fc7 = self.dropout(F.relu(self.fc7(fc6)))
        scores: Tensor = self.score_fr(fc7)
        if inputs.score_pool4 is not None:
            scores = _crop_like(self.upscore2(scores), inputs.score_pool4) + inputs.score_pool4
        if inputs.score_pool3 is not None:
            scores = _crop_like(self.upscore_pool4(scores), inputs.score_pool3) + inputs.score_pool3
        return scores


def build(architecture: Architecture) -> FCN:
    """A network with fresh random weights, in training mode."""
    return FCN(architecture)


def final_upsample(scores: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Scores [N, C, h, w] to logits [N, C, H, W], size = (H, W): bilinear times stride, cropped at bottom and
    right.

    Centres are at half pixels (a cell's centre is the middle of its stride x stride pixels) and edges are
    clamped. It has no parameters: the paper also keeps the last upsampling bilinear (section 4.3).
    """
    height, width = size
    if stride > 1:
        scores = F.interpolate(scores, scale_factor=stride, mode="bilinear", align_corners=False)
    return scores[..., :height, :width]


def _double(architecture: Architecture) -> nn.Module:
    """The layer that doubles a score map's resolution, [N, C, h, w] to [N, C, 2h, 2w]."""
    if architecture.upsampling == "interpolate":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    classes = architecture.num_classes
    layer = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = torch.outer(taps, taps)  # bilinear: the weights of the nearest two cells, for both of the new pixels
    with torch.no_grad():
        layer.weight.copy_(torch.eye(classes)[:, :, None, None] * kernel)
    return layer


def _crop_like(coarse: Tensor, fine: Tensor) -> Tensor:
    """Pools round up, so a doubled map may be one cell larger, which is at the bottom and right."""
    return coarse[..., : fine.shape[-2], : fine.shape[-1]]
