"""torchvision's fcn_resnet50 and fcn_resnet101 as they are, so that its published weights run unchanged.

The one thing to know: the last two stages are dilated instead of strided, so there is one map, at stride 8, and nothing
to fuse. That costs five times the FCN-8s on the same ResNet (`fcn model list` has the figures).
"""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach
from fcn_core.models.backbones.resnet import bottleneck_layers
from fcn_core.models.network import Network
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.upsampling import Upsampling
from fcn_core.normalization import IMAGENET


class TorchvisionFCN(Network):
    """torchvision's network without its auxiliary classifier; parameters are named as there.

    New weights are torchvision's own random ones, so an untrained network does not score 0.
    """

    shallow_strides = (8,)

    def __init__(self, architecture: Architecture) -> None:
        from torchvision.models import get_model  # here, as in fcn_core.models.backbones.resnet.ResNet

        super().__init__(architecture)
        model = get_model(
            f"fcn_{architecture.backbone}",
            weights=None,
            weights_backbone=None,
            num_classes=architecture.num_classes,
            aux_loss=False,
        )
        self.backbone = model.backbone
        self.classifier = model.classifier
        for layer in self.classifier:
            if isinstance(layer, nn.Dropout):
                layer.p = architecture.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        return F.interpolate(self.scores(x), size=x.shape[-2:], mode="bilinear", align_corners=False)

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """The scores: all layers look less far than a large tile is wide, and their maps are too large to keep."""
        return (self.classifier(self.backbone(x)["out"]),)

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[0]

    def reach(self) -> int:
        backbone = self.backbone
        stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
        blocks = [layer for stage in stages for layer in bottleneck_layers(stage)]
        return receptive_reach([backbone.conv1, backbone.maxpool, *blocks, *self.classifier])

    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        height, width = size
        return Upsampling.resized((self.cells(height, 8), self.cells(width, 8)), size)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.backbone.parameters()


_DATA = "COCO val2017, VOC classes"
_SOURCE = "torchvision, COCO_WITH_VOC_LABELS_V1"

SPEC = NetworkSpec(
    build=TorchvisionFCN,
    stride=8,
    backbones=("resnet50", "resnet101"),
    geometry="torchvision",
    normalization=IMAGENET,
    summary="torchvision's FCN: dilated, stride 8, nothing fused",
    defaults={"dropout": 0.1, "upsampling": "interpolate"},
    fixed={
        "head_width": (512, "torchvision's network as it is, with a head of 512"),
        "upsampling": ("interpolate", "torchvision's network as it is, which interpolates"),
    },
    published={
        "resnet50": (Published(_DATA, _SOURCE, 60.5, 91.4),),
        "resnet101": (Published(_DATA, _SOURCE, 63.7, 91.9),),
    },
    weights={
        "resnet50": "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
        "resnet101": "FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1",
    },
)
