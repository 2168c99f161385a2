"""What a network is, as data: which layers it has, and their shapes.

The one thing to know: an Architecture is part of a model's identity (model_id). Defaults are filled in when it is
made, by network and backbone, so its JSON always says everything and stays valid when a default changes.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from fcn_core.models.backbones import BACKBONES, BackboneName, backbone_spec
from fcn_core.models.networks import ARCHS, ArchName, network_spec

Doubling = Literal["transposed", "interpolate"]


class Architecture(BaseModel):
    """Everything that decides a network's layers and their shapes.

    `arch` is the network and its geometry: "fcn32s", "fcn16s", "fcn8s" ("same" geometry, on any backbone),
    "..._padded" (the authors' nets, layer by layer) or "tv_..." (torchvision's networks as they are). `width`
    multiplies the backbone's channels, `head_width` is the number of channels of fc6 and fc7. `upsampling` is how the
    coarser scores are doubled before they are fused: "transposed", learned from a bilinear start as in the paper, or
    "interpolate", fixed bilinear.

    Left out, `backbone`, `head_width`, `dropout` and `upsampling` are what the network usually has. Combinations that
    do not exist are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: ArchName = "fcn8s"
    backbone: BackboneName = "vgg16"
    num_classes: int = Field(ge=1, le=255)
    width: float = Field(default=1.0, gt=0, le=4, allow_inf_nan=False)
    head_width: int = Field(default=4096, ge=1, le=1 << 16)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    upsampling: Doubling = "transposed"

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        arch = values.get("arch", "fcn8s")
        if arch not in ARCHS:
            return values  # the field's own validation says so
        spec = network_spec(arch)
        usual: dict[str, Any] = {"backbone": spec.backbones[0]}
        backbone = values.get("backbone", usual["backbone"])
        if backbone in BACKBONES:
            usual["head_width"] = backbone_spec(backbone).head_width
        return usual | dict(spec.defaults) | values

    @field_validator("backbone")
    @classmethod
    def _backbone_of_arch(cls, backbone: BackboneName, info: ValidationInfo) -> BackboneName:
        arch = info.data.get("arch")  # missing if that is wrong itself
        if arch and backbone not in network_spec(arch).backbones:
            raise ValueError(f"{arch} runs on {' or '.join(network_spec(arch).backbones)}")
        return backbone

    @field_validator("width")
    @classmethod
    def _width_of_backbone(cls, width: float, info: ValidationInfo) -> float:
        backbone = info.data.get("backbone")
        if backbone and width != 1 and not backbone_spec(backbone).has_widths:
            raise ValueError(f"{backbone} has no other width than 1")
        return width

    @field_validator("width", "head_width", "dropout", "upsampling")
    @classmethod
    def _as_the_network_is(cls, value: Any, info: ValidationInfo) -> Any:
        arch = info.data.get("arch")
        fixed = network_spec(arch).fixed if arch else {}
        only, reason = fixed.get(info.field_name or "", (value, ""))
        if value != only:
            raise ValueError(f"{arch} is {reason}")
        return value

    @property
    def title(self) -> str:
        """A few words for people."""
        return f"{self.arch} on {self.backbone}"

    @property
    def stride(self) -> int:
        """Pixels per cell of the network's scores, before the last upsampling: 32, 16 or 8."""
        spec = network_spec(self.arch)
        return spec.strides.get(self.backbone, spec.stride)
