"""The authors' FCN-AlexNet, layer by layer as in their Caffe file.

The one thing to know: this is the original AlexNet as Caffe has it (96 channels, two groups, local response
normalisation after pooling), not torchvision's. Geometry and names are those of `padded_vgg`: conv1 pads by 100,
nothing after it makes up for borders, and the scores are cropped by a fixed offset.

Source: shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet.
"""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach, scaled
from fcn_core.models.initialization import initialize
from fcn_core.models.network import Network, crop
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.strips import in_row_strips
from fcn_core.models.upsampling import Upsampling, bilinear_transposed, bilinear_weight
from fcn_core.normalization import CAFFE

_KERNEL, _STRIDE, _OFFSET = 63, 32, 18  # of the last upsampling


class PaddedAlexNet(Network):
    """FCN-32s on the authors' AlexNet. The upsampling is bilinear and not trained, as theirs."""

    border = 100  # all of conv1's padding
    shallow_strides = (32,)

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        classes, head = architecture.num_classes, architecture.head_width
        c1, c2, c3, c4, c5 = (scaled(channels, architecture.width) for channels in (96, 256, 384, 384, 256))
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc6 = nn.Conv2d(c5, head, 6)
        self.fc7 = nn.Conv2d(head, head, 1)
        self.dropout = nn.Dropout(architecture.dropout)
        self.score_fr = nn.Conv2d(head, classes, 1)
        self.upscore = bilinear_transposed(classes, _KERNEL, stride=_STRIDE).requires_grad_(False)
        initialize(self.named_children())

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        return crop(self.upscore(self.scores(x)), _OFFSET, (x.shape[-2], x.shape[-1]))

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """pool5 of images with their border."""
        norm1 = normalize(self.pool(F.relu(self.conv1(x))))
        norm2 = normalize(self.pool(F.relu(self.conv2(norm1))))
        conv3 = F.relu(self.conv3(norm2))
        conv4 = F.relu(self.conv4(conv3))
        pool5 = self.pool(F.relu(self.conv5(conv4)))
        return (pool5,)

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        pool5, channels = maps[0], self.architecture.head_width
        return in_row_strips(self._classify, pool5, rows=pool5.shape[-2] - 5, above=0, below=5, channels=channels)

    def _classify(self, pool5: Tensor) -> Tensor:
        """The classifier's end as convolutions: class scores at stride 32."""
        fc6 = self.dropout(F.relu(self.fc6(pool5)))
        fc7 = self.dropout(F.relu(self.fc7(fc6)))
        score_fr: Tensor = self.score_fr(fc7)
        return score_fr

    def reach(self) -> int:
        return receptive_reach(
            [self.conv1, self.pool, self.conv2, self.pool, self.conv3, self.conv4, self.conv5, self.pool]
        )

    def cells(self, pixels: int, stride: int) -> int:
        """Fewer than pixels / stride: conv1 has no padding but the border, so a cell begins where all of it fits."""
        cells = (pixels - 11) // 4 + 1
        for _ in range(3):
            cells = -(-(cells - 3) // 2) + 1  # pools round up
        return cells

    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        rows, columns = (self.cells(pixels + 2 * self.border, 32) - 5 for pixels in size)
        return Upsampling.transposed((rows, columns), size, kernel=_KERNEL, stride=_STRIDE, crop=_OFFSET)

    def fixed_state(self) -> dict[str, Tensor]:
        return {"upscore.weight": bilinear_weight(self.architecture.num_classes, _KERNEL)}

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            yield from layer.parameters()


def normalize(x: Tensor) -> Tensor:
    """Local response normalisation, [N, C, H, W] to the same, over each channel and two on either side: Caffe's LRN
    with local_size 5, alpha 1e-4, beta 0.75, as F.local_response_norm computes it, which a CPU cannot in bfloat16.
    """
    channels = x.shape[1]
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    total = squares[:, :channels]
    for first in range(1, 5):
        total = total + squares[:, first : first + channels]
    return x / (1 + 1e-4 / 5 * total) ** 0.75


SPEC = NetworkSpec(
    build=PaddedAlexNet,
    stride=32,
    backbones=("alexnet",),
    geometry="padded",
    normalization=CAFFE,
    summary="the authors' FCN-AlexNet (96 channels, groups, LRN)",
    fixed={"upsampling": ("transposed", "the authors' network as it is, with transposed convolutions")},
    published={
        "alexnet": (Published("PASCAL VOC seg11valid (736 images)", "shelhamer/fcn.berkeleyvision.org", 48.0),),
    },
)
