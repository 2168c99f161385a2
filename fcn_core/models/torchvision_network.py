"""What torchvision's segmentation networks have in common: a backbone, a head, and scores resized to the image.

The one thing to know: parameters are named as in torchvision and the forward pass is its own, so published weights run
unchanged. Auxiliary classifiers, which only help training, are left out.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach
from fcn_core.models.backbones.resnet import bottleneck_layers
from fcn_core.models.network import Network
from fcn_core.models.upsampling import Upsampling
from fcn_core.torchvision_package import load_torchvision

AS_IT_IS = "torchvision's network as it is"


class TorchvisionNetwork(Network):
    """One of torchvision's networks on the architecture's backbone.

    New weights are torchvision's own random ones, so an untrained network does not score 0.
    """

    def __init__(self, architecture: Architecture, family: str) -> None:
        """family: what torchvision's builder is called, before "_BACKBONE"."""
        load_torchvision()
        from torchvision.models import get_model  # here, as in fcn_core.models.backbones.resnet.ResNet

        super().__init__(architecture)
        model = get_model(
            f"{family}_{architecture.backbone}",
            weights=None,
            weights_backbone=None,
            num_classes=architecture.num_classes,
            **({} if family == "lraspp" else {"aux_loss": False}),
        )
        self.backbone = model.backbone
        self.classifier = model.classifier
        for layer in self.classifier.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = architecture.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of normalised images x [N, 3, H, W]; H and W at least 1."""
        return F.interpolate(self.scores(x), size=x.shape[-2:], mode="bilinear", align_corners=False)

    def deepest(self, x: Tensor) -> Tensor:
        *_, last = self.backbone(x).values()
        assert isinstance(last, Tensor)
        return last

    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        height, width = size
        return Upsampling.resized((self.cells(height, self.stride), self.cells(width, self.stride)), size)

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.backbone.parameters()


class FarSighted(TorchvisionNetwork):
    """A network whose head averages over the whole image, so that only the first part of its backbone can be tiled."""

    def __init__(self, architecture: Architecture, family: str) -> None:
        super().__init__(architecture, family)
        is_resnet = "layer2" in self.backbone
        self.shallow_strides = (8,) if is_resnet else (4,)
        self._near = 1 + list(self.backbone).index("layer2" if is_resnet else "3")

    @abstractmethod
    def head(self, features: dict[str, Tensor]) -> Tensor:
        """Scores from the backbone's maps, by torchvision's names for them."""

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        for layer in self._near_stages():
            x = layer(x)
        return (x,)

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        (x,) = maps
        features = {}
        for name, layer in islice(self.backbone.items(), self._near, None):
            x = layer(x)
            if name in self.backbone.return_layers:
                features[self.backbone.return_layers[name]] = x
        return self.head(features)

    def reach(self) -> int:
        return receptive_reach(self._near_layers())

    def _near_stages(self) -> Iterable[nn.Module]:
        return islice(self.backbone.values(), self._near)

    def _near_layers(self) -> Iterator[nn.Module]:
        for name, stage in islice(self.backbone.items(), self._near):
            yield from bottleneck_layers(stage) if name.startswith("layer") else stage.modules()
