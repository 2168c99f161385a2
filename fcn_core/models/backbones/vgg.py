"""VGG-16, with or without batch normalisation: the paper's backbone.

The one thing to know: pools round up, so that odd sizes lose nothing; the convolutions keep sizes anyway.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from fcn_core.models.backbones.base import Backbone, BackboneSpec, Features, scaled
from fcn_core.models.initialization import initialize

_CONVS_PER_STAGE = (2, 2, 3, 3, 3)
_CHANNELS = (64, 128, 256, 512, 512)


class VGG16(Backbone):
    """The 13 convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D), up to pool5.

    Parameters are named as in torchvision's vgg16 and vgg16_bn (`features.0.weight`, ...). `width` multiplies the
    channels, which are rounded to multiples of 8 and at least 8.
    """

    head_kernel = 7

    def __init__(self, width: float = 1.0, *, batch_norm: bool = False) -> None:
        super().__init__()
        stages = [scaled(channels, width) for channels in _CHANNELS]
        self.channels = (stages[2], stages[3], stages[4])
        layers: list[nn.Module] = []
        taps: list[int] = []
        incoming = 3
        for convs, outgoing in zip(_CONVS_PER_STAGE, stages, strict=True):
            for _ in range(convs):
                layers.append(nn.Conv2d(incoming, outgoing, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outgoing))
                layers.append(nn.ReLU(inplace=True))
                incoming = outgoing
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            taps.append(len(layers))
        self.features = nn.Sequential(*layers)
        self._taps = taps[-3:]
        initialize(self.features.named_children())

    def body(self, x: Tensor) -> Features:
        pools = []
        start = 0
        for tap in self._taps:
            x = self.features[start:tap](x)
            pools.append(x)
            start = tap
        return Features(*pools)

    def near_layers(self) -> Iterable[nn.Module]:
        return self.features


_FULLY_CONNECTED = {"classifier.0": "fc6", "classifier.3": "fc7"}


def _first_kernel(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    first = state.get("features.0.weight")
    return () if first is None else tuple(first.shape[2:])


def _has_batch_norm(state: Mapping[str, Tensor]) -> bool:
    return "features.1.running_mean" in state


VGG16_SPEC = BackboneSpec(
    build=VGG16,
    head_width=4096,
    summary="the paper's backbone",
    weights="VGG16_Weights.IMAGENET1K_V1",
    is_of=lambda state: _first_kernel(state) == (3, 3) and not _has_batch_norm(state),
    fully_connected=_FULLY_CONNECTED,
    authors_name="VGG16 with the authors' names (Caffe, pytorch-fcn)",
    authors_tensors=("conv1_1.weight",),
    authors_layers={
        "conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_2": 12, "conv3_3": 14,
        "conv4_1": 17, "conv4_2": 19, "conv4_3": 21, "conv5_1": 24, "conv5_2": 26, "conv5_3": 28,
    },
)  # fmt: skip

VGG16_BN_SPEC = BackboneSpec(
    build=lambda width: VGG16(width, batch_norm=True),
    head_width=4096,
    summary="VGG16 with batch norm: easier to train",
    weights="VGG16_BN_Weights.IMAGENET1K_V1",
    is_of=_has_batch_norm,
    fully_connected=_FULLY_CONNECTED,
)
