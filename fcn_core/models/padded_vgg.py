"""The authors' FCN-32s, 16s, 8s and 8s at-once on VGG16, layer by layer as in their Caffe files.

The one thing to know: the geometry is "padded". conv1_1 pads the image by 100 pixels, fc6 is not padded, and score maps
are cropped by fixed offsets until they lie over the image. The authors' weights give the authors' scores here and
nowhere else; it costs almost twice as much as "same" geometry (`fcn`). Layers, and so weights, have the names
that Caffe files and pytorch-fcn use.

Source: shelhamer/fcn.berkeleyvision.org, voc-fcn{32s,16s,8s,8s-atonce}.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach, scaled
from fcn_core.models.initialization import initialize
from fcn_core.models.network import Network, crop
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.networks import network_spec
from fcn_core.models.strips import in_row_strips
from fcn_core.models.upsampling import Upsampling, bilinear_transposed, bilinear_weight
from fcn_core.normalization import CAFFE


class _Last(NamedTuple):
    """The last upsampling: its layer's name, kernel and stride, and where the image begins in what it gives."""

    name: str
    kernel: int
    stride: int
    offset: int


_LAST = {32: _Last("upscore", 64, 32, 19), 16: _Last("upscore16", 32, 16, 27), 8: _Last("upscore8", 16, 8, 31)}
_POOL4_OFFSET, _POOL3_OFFSET = 5, 9


class PaddedFCN(Network):
    """FCN-32s, 16s, 8s or 8s at-once in the authors' geometry.

    At-once scales pool4 by 0.01 and pool3 by 0.0001 before they are scored, which lets all three streams learn from
    the start. The transposed convolutions are bilinear and not trained, as in the authors' nets. The last one's
    weights are in the state, as in the authors' files, but have to be bilinear: `upsampling` describes them.
    """

    border = 99  # conv1_1 pads by 100: one pixel as every 3x3 convolution, the others here, so that tiles can

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        classes, head = architecture.num_classes, architecture.head_width
        c1, c2, c3, c4, c5 = (scaled(channels, architecture.width) for channels in (64, 128, 256, 512, 512))
        scales = network_spec(architecture.arch).input_scales
        self._pool4_scale, self._pool3_scale = scales.get("score_pool4", 1.0), scales.get("score_pool3", 1.0)
        self._last = _LAST[self.stride]

        self.conv1_1 = nn.Conv2d(3, c1, 3, padding=1)
        self.conv1_2 = nn.Conv2d(c1, c1, 3, padding=1)
        self.conv2_1 = nn.Conv2d(c1, c2, 3, padding=1)
        self.conv2_2 = nn.Conv2d(c2, c2, 3, padding=1)
        self.conv3_1 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv3_2 = nn.Conv2d(c3, c3, 3, padding=1)
        self.conv3_3 = nn.Conv2d(c3, c3, 3, padding=1)
        self.conv4_1 = nn.Conv2d(c3, c4, 3, padding=1)
        self.conv4_2 = nn.Conv2d(c4, c4, 3, padding=1)
        self.conv4_3 = nn.Conv2d(c4, c4, 3, padding=1)
        self.conv5_1 = nn.Conv2d(c4, c5, 3, padding=1)
        self.conv5_2 = nn.Conv2d(c5, c5, 3, padding=1)
        self.conv5_3 = nn.Conv2d(c5, c5, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.fc6 = nn.Conv2d(c5, head, 7)
        self.fc7 = nn.Conv2d(head, head, 1)
        self.dropout = nn.Dropout(architecture.dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        self.shallow_strides: tuple[int, ...] = (32,)
        if self.stride <= 16:
            self.score_pool4 = nn.Conv2d(c4, classes, 1)
            self.upscore2 = bilinear_transposed(classes, 4, stride=2)
            self.shallow_strides += (16,)
        if self.stride <= 8:
            self.score_pool3 = nn.Conv2d(c3, classes, 1)
            self.upscore_pool4 = bilinear_transposed(classes, 4, stride=2)
            self.shallow_strides += (8,)
        self.add_module(self._last.name, bilinear_transposed(classes, self._last.kernel, stride=self._last.stride))
        for layer in self.children():
            if isinstance(layer, nn.ConvTranspose2d):
                layer.requires_grad_(False)
        initialize(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        upscore = self.get_submodule(self._last.name)
        return crop(upscore(self.scores(x)), self._last.offset, (x.shape[-2], x.shape[-1]))

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """pool5 of images with their border, and as far as they are used the scores of pool4 and pool3."""
        pool1 = self._stage(x, self.conv1_1, self.conv1_2)
        pool2 = self._stage(pool1, self.conv2_1, self.conv2_2)
        pool3 = self._stage(pool2, self.conv3_1, self.conv3_2, self.conv3_3)
        pool4 = self._stage(pool3, self.conv4_1, self.conv4_2, self.conv4_3)
        pool5 = self._stage(pool4, self.conv5_1, self.conv5_2, self.conv5_3)
        maps: tuple[Tensor, ...] = (pool5,)
        if self.stride <= 16:
            maps += (self.score_pool4(pool4 * self._pool4_scale),)
        if self.stride <= 8:
            maps += (self.score_pool3(pool3 * self._pool3_scale),)
        return maps

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        pool5, channels = maps[0], self.architecture.head_width
        scores = in_row_strips(self._classify, pool5, rows=pool5.shape[-2] - 6, above=0, below=6, channels=channels)
        if self.stride <= 16:
            upscore2 = self.upscore2(scores)
            scores = upscore2 + crop(maps[1], _POOL4_OFFSET, upscore2.shape[-2:])  # fuse_pool4
        if self.stride <= 8:
            upscore_pool4 = self.upscore_pool4(scores)
            scores = upscore_pool4 + crop(maps[2], _POOL3_OFFSET, upscore_pool4.shape[-2:])  # fuse_pool3
        return scores

    def _classify(self, pool5: Tensor) -> Tensor:
        """The classifier's end as convolutions: class scores at stride 32."""
        fc6 = self.dropout(F.relu(self.fc6(pool5)))
        fc7 = self.dropout(F.relu(self.fc7(fc6)))
        score_fr: Tensor = self.score_fr(fc7)
        return score_fr

    def _stage(self, x: Tensor, *convs: nn.Module) -> Tensor:
        for conv in convs:
            x = F.relu(conv(x), inplace=True)
        pooled: Tensor = self.pool(x)
        return pooled

    def reach(self) -> int:
        layers: list[nn.Module] = []
        for stage in range(1, 6):
            layers += [layer for name, layer in self.named_children() if name.startswith(f"conv{stage}_")]
            layers.append(self.pool)
        return receptive_reach(layers)

    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        rows, columns = (self._score_cells(pixels) for pixels in size)
        _, kernel, stride, offset = self._last
        return Upsampling.transposed((rows, columns), size, kernel=kernel, stride=stride, crop=offset)

    def _score_cells(self, pixels: int) -> int:
        """Cells of the scores along an axis: fc6 takes off 6, and a transposed convolution makes 2n + 2 of n."""
        cells = self.cells(pixels + 2 * self.border, 32) - 6
        for _ in range(len(self.shallow_strides) - 1):
            cells = 2 * cells + 2
        return cells

    def fixed_state(self) -> dict[str, Tensor]:
        return {f"{self._last.name}.weight": bilinear_weight(self.architecture.num_classes, self._last.kernel)}

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        for name, layer in self.named_children():
            if name.startswith("conv"):
                yield from layer.parameters()


_AUTHORS_DATA = "PASCAL VOC seg11valid (736 images)"
_AUTHORS = "shelhamer/fcn.berkeleyvision.org"
_PAPER_DATA = "PASCAL VOC 2011 val subset"
_PAPER = "CVPR 2015, table 2"


def _spec(
    stride: int,
    summary: str,
    published: tuple[Published, ...],
    stages: tuple[str, ...] = (),
    scales: Mapping[str, float] | None = None,
) -> NetworkSpec:
    return NetworkSpec(
        build=PaddedFCN,
        stride=stride,
        backbones=("vgg16",),
        geometry="padded",
        normalization=CAFFE,
        summary=f"the authors' {summary}",
        fixed={"upsampling": ("transposed", "the authors' network as it is, with transposed convolutions")},
        stages=stages,
        input_scales=scales or {},
        published={"vgg16": published},
    )


FCN32S_PADDED = _spec(
    32,
    "FCN-32s",
    (
        Published(_AUTHORS_DATA, _AUTHORS, 63.63, 90.48, 76.48, 83.46),
        Published(_PAPER_DATA, _PAPER, 59.4, 89.1, 73.3, 81.4),
    ),
    stages=("fcn32s_padded",),
)

FCN16S_PADDED = _spec(
    16,
    "FCN-16s",
    (
        Published(_AUTHORS_DATA, _AUTHORS, 65.01, 91.00, 78.07, 84.26),
        Published(_PAPER_DATA, _PAPER, 62.4, 90.0, 75.7, 83.0),
    ),
    stages=("fcn32s_padded", "fcn16s_padded"),
)

FCN8S_PADDED = _spec(
    8,
    "FCN-8s",
    (
        Published(_AUTHORS_DATA, _AUTHORS, 65.51, 91.22, 77.61, 84.54),
        Published(_PAPER_DATA, _PAPER, 62.7, 90.3, 75.9, 83.2),
    ),
    stages=("fcn32s_padded", "fcn16s_padded", "fcn8s_padded"),
)

FCN8S_ATONCE_PADDED = _spec(
    8,
    "FCN-8s trained in one go, pools scaled by fixed factors",
    (Published(_AUTHORS_DATA, _AUTHORS, 65.40, 91.13, 78.50, 84.43),),
    scales={"score_pool4": 0.01, "score_pool3": 0.0001},
)
