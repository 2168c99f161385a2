"""Fully convolutional networks (Long, Shelhamer and Darrell, CVPR 2015): FCN-32s, FCN-16s and FCN-8s, on any backbone.

The one thing to know: the geometry is "same". Where the authors pad the image by 100 pixels and crop what comes out
(`padded_vgg` does as they do), every layer here keeps ceil(size / stride) cells, so any image from 1x1 works, nothing
is computed for padding, and maps of different strides line up by cropping only at the bottom and right.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones import BACKBONES, backbone_spec
from fcn_core.models.backbones.base import Backbone, Features
from fcn_core.models.initialization import initialize
from fcn_core.models.network import Network
from fcn_core.models.network_spec import NetworkSpec
from fcn_core.models.strips import in_row_strips
from fcn_core.models.upsampling import Upsampling, bilinear_transposed
from fcn_core.normalization import IMAGENET


class FusionInputs(NamedTuple):
    """All the fusion needs of an image: pool5 [N, C5, h, w], and class scores of the finer pools it uses."""

    pool5: Tensor
    score_pool4: Tensor | None = None
    score_pool3: Tensor | None = None


class FCN(Network):
    """FCN-32s, 16s or 8s over a backbone; layers carry the paper's names.

    pool3, pool4 and pool5 are the backbone's maps at strides 8, 16 and 32, whatever its own layers are called. New
    score layers are zero, so an untrained network scores every class 0 everywhere; the rest is Kaiming-normal.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        classes, head = architecture.num_classes, architecture.head_width

        self.backbone: Backbone = backbone_spec(architecture.backbone).build(architecture.width)
        pool3, pool4, pool5 = self.backbone.channels
        kernel = self.backbone.head_kernel
        self.fc6 = nn.Conv2d(pool5, head, kernel, padding=kernel // 2)
        self._fc6_skip = 1 - kernel % 2  # an even kernel gives a cell too many; without the first, it looks ahead more
        self.fc7 = nn.Conv2d(head, head, 1)
        self.dropout = nn.Dropout(architecture.dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        if self.stride <= 16:
            self.upscore2 = _double(architecture)
            self.score_pool4 = nn.Conv2d(pool4, classes, 1)
        if self.stride <= 8:
            self.upscore_pool4 = _double(architecture)
            self.score_pool3 = nn.Conv2d(pool3, classes, 1)
        strides = (32, 16, 8)[: (32, 16, 8).index(self.stride) + 1]
        self.shallow_strides = strides if self.backbone.stem_stride is None else (self.backbone.stem_stride,)
        initialize(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        return final_upsample(self.scores(x), self.stride, (x.shape[-2], x.shape[-1]))

    def features(self, x: Tensor) -> Features:
        """The backbone's maps at strides 8, 16 and 32."""
        features: Features = self.backbone(x)
        return features

    def deepest(self, x: Tensor) -> Tensor:
        return self.features(x).stride32

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
        pool5, near = inputs.pool5, self.backbone.head_kernel // 2
        channels = self.architecture.head_width
        scores = in_row_strips(self._classify, pool5, rows=pool5.shape[-2], above=near, below=near, channels=channels)
        if inputs.score_pool4 is not None:
            scores = _crop_like(self.upscore2(scores), inputs.score_pool4) + inputs.score_pool4
        if inputs.score_pool3 is not None:
            scores = _crop_like(self.upscore_pool4(scores), inputs.score_pool3) + inputs.score_pool3
        return scores

    def _classify(self, pool5: Tensor) -> Tensor:
        """The classifier's end as convolutions: class scores at stride 32."""
        fc6 = self.dropout(F.relu(self.fc6(pool5)[..., self._fc6_skip :, self._fc6_skip :]))
        fc7 = self.dropout(F.relu(self.fc7(fc6)))
        score_fr: Tensor = self.score_fr(fc7)
        return score_fr

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """The backbone's stem if it has one; otherwise all that is fused."""
        if self.backbone.stem_stride is not None:
            return (self.backbone.stem(x),)
        return tuple(part for part in self.fusion_inputs(self.features(x)) if part is not None)

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        if self.backbone.stem_stride is not None:
            return self.head(self.backbone.body(maps[0]))
        return self.fuse(FusionInputs(*maps))

    def reach(self) -> int:
        return self.backbone.reach()

    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        height, width = size
        return Upsampling.half_pixel((-(-height // self.stride), -(-width // self.stride)), size, self.stride)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return self.backbone.parameters()


def final_upsample(scores: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Scores [N, C, h, w] to logits [N, C, H, W], size = (H, W): bilinear times stride, cropped at bottom and right.

    Centres are at half pixels (a cell's centre is the middle of its stride x stride pixels) and edges are clamped. It
    has no parameters: the paper also keeps the last upsampling bilinear (section 4.3).
    """
    height, width = size
    if stride > 1:
        scores = F.interpolate(scores, scale_factor=stride, mode="bilinear", align_corners=False)
    return scores[..., :height, :width]


def _double(architecture: Architecture) -> nn.Module:
    """The layer that doubles a score map's resolution, [N, C, h, w] to [N, C, 2h, 2w]."""
    if architecture.upsampling == "interpolate":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return bilinear_transposed(architecture.num_classes, 4, stride=2, padding=1)


def _crop_like(coarse: Tensor, fine: Tensor) -> Tensor:
    """Strides round up, so a doubled map may be one cell larger, which is at the bottom and right."""
    return coarse[..., : fine.shape[-2], : fine.shape[-1]]


def _spec(stride: int, summary: str, *stages: str) -> NetworkSpec:
    return NetworkSpec(
        build=FCN,
        stride=stride,
        backbones=BACKBONES,
        geometry="same",
        normalization=IMAGENET,
        summary=summary,
        stages=stages,
    )


FCN32S = _spec(32, "one stream", "fcn32s")
FCN16S = _spec(16, "two streams, pool4 fused", "fcn32s", "fcn16s")
FCN8S = _spec(8, "three streams, pool4 and pool3 fused", "fcn32s", "fcn16s", "fcn8s")
