"""How training examples are varied: the options alone, which jobs read without PyTorch. `transform` does it."""

from typing import Self

from pydantic import Field, model_validator

from fcn_core.options import Options


class Augmentation(Options):
    """How training examples are varied. Sizes in pixels."""

    crop_height: int | None = Field(
        384, ge=1, le=65_536, description="height of a training crop, pixels; none: whole images"
    )
    crop_width: int | None = Field(
        384, ge=1, le=65_536, description="width of a training crop, pixels; none: whole images"
    )
    scale_min: float = Field(0.75, gt=0, le=1000, description="smallest random enlargement before the crop")
    scale_max: float = Field(1.5, gt=0, le=1000, description="largest random enlargement before the crop")
    flip: float = Field(0.5, ge=0, le=1, description="how often an example is mirrored left to right")
    brightness: float = Field(0.2, ge=0, le=100, description="largest relative change of brightness; 0 for none")
    contrast: float = Field(0.2, ge=0, le=100, description="largest relative change of contrast; 0 for none")
    saturation: float = Field(0.2, ge=0, le=100, description="largest relative change of saturation; 0 for none")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}: swap them")
        if (self.crop_height is None) != (self.crop_width is None):
            raise ValueError("crop_height and crop_width go together: give both, or neither for whole images")
        return self

    @classmethod
    def none(cls) -> "Augmentation":
        """Whole images as they are."""
        return cls(
            crop_height=None,
            crop_width=None,
            scale_min=1,
            scale_max=1,
            flip=0,
            brightness=0,
            contrast=0,
            saturation=0,
        )
