"""What a network is, as data: which layers it has, and their shapes.

The one thing to know: an Architecture is part of a model's identity (model_id). Defaults are filled in when it is
made, by network and backbone, so its JSON always says everything and stays valid when a default changes.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

SameArch = Literal["fcn32s", "fcn16s", "fcn8s"]
PaddedArch = Literal["fcn32s_padded", "fcn16s_padded", "fcn8s_padded", "fcn8s_atonce_padded", "fcn_alexnet_padded"]
ArchName = Literal[SameArch, PaddedArch, "tv_fcn"]
BackboneName = Literal["vgg16", "vgg16_bn", "alexnet", "resnet50", "resnet101", "mobilenet_v3_large"]
Doubling = Literal["transposed", "interpolate"]

SAME_ARCHS: tuple[SameArch, ...] = get_args(SameArch)
PADDED_ARCHS: tuple[PaddedArch, ...] = get_args(PaddedArch)
ARCHS: tuple[ArchName, ...] = (*SAME_ARCHS, *PADDED_ARCHS, "tv_fcn")
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)

STRIDES: dict[ArchName, int] = {
    "fcn32s": 32,
    "fcn16s": 16,
    "fcn8s": 8,
    "fcn32s_padded": 32,
    "fcn16s_padded": 16,
    "fcn8s_padded": 8,
    "fcn8s_atonce_padded": 8,
    "fcn_alexnet_padded": 32,
    "tv_fcn": 8,
}

_VGG16_ONLY: tuple[BackboneName, ...] = ("vgg16",)
BACKBONES_OF: dict[ArchName, tuple[BackboneName, ...]] = {
    **dict.fromkeys(SAME_ARCHS, BACKBONES),
    **dict.fromkeys(PADDED_ARCHS, _VGG16_ONLY),
    "fcn_alexnet_padded": ("alexnet",),
    "tv_fcn": ("resnet50", "resnet101"),
}
"""The backbones a network can stand on, the default first."""

HEAD_WIDTHS: dict[BackboneName, int] = {
    "vgg16": 4096,
    "vgg16_bn": 4096,
    "alexnet": 4096,
    "resnet50": 512,
    "resnet101": 512,
    "mobilenet_v3_large": 240,
}
"""Default channels of fc6 and fc7: those of the classifier's fully connected layers, and where it has none, a quarter
of the backbone's channels, as torchvision's FCN head has."""


class Architecture(BaseModel):
    """Everything that decides a network's layers and their shapes.

    `arch` is the network and its geometry: "fcn32s", "fcn16s", "fcn8s" ("same" geometry, on any backbone),
    "..._padded" (the authors' nets, layer by layer) or "tv_fcn" (torchvision's fcn_resnet50 and 101). `width`
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
        usual: dict[str, Any] = {"backbone": BACKBONES_OF[arch][0]}
        backbone = values.get("backbone", usual["backbone"])
        if backbone in BACKBONES:
            usual["head_width"] = HEAD_WIDTHS[backbone]
        if arch == "tv_fcn":
            usual |= {"dropout": 0.1, "upsampling": "interpolate"}
        return usual | values

    @field_validator("backbone")
    @classmethod
    def _backbone_of_arch(cls, backbone: BackboneName, info: ValidationInfo) -> BackboneName:
        arch = info.data.get("arch")  # missing if that is wrong itself
        if arch and backbone not in BACKBONES_OF[arch]:
            raise ValueError(f"{arch} stands on {' or '.join(BACKBONES_OF[arch])}")
        return backbone

    @field_validator("width")
    @classmethod
    def _width_of_backbone(cls, width: float, info: ValidationInfo) -> float:
        backbone = info.data.get("backbone")
        if backbone in ("resnet50", "resnet101") and width != 1:
            raise ValueError(f"{backbone} has no other width than 1")
        return width

    @field_validator("head_width")
    @classmethod
    def _head_of_arch(cls, head_width: int, info: ValidationInfo) -> int:
        if info.data.get("arch") == "tv_fcn" and head_width != 512:
            raise ValueError("tv_fcn is torchvision's network as it is, with a head of 512")
        return head_width

    @field_validator("upsampling")
    @classmethod
    def _upsampling_of_arch(cls, upsampling: Doubling, info: ValidationInfo) -> Doubling:
        arch = info.data.get("arch")
        if arch in PADDED_ARCHS and upsampling != "transposed":
            raise ValueError(f"{arch} is the authors' network as it is, with transposed convolutions")
        if arch == "tv_fcn" and upsampling != "interpolate":
            raise ValueError("tv_fcn is torchvision's network as it is, which interpolates")
        return upsampling

    @property
    def stride(self) -> int:
        """Pixels per cell of the network's scores, before the last upsampling: 32, 16 or 8."""
        return STRIDES[self.arch]
