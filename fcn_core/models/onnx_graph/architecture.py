"""How an imported graph is used: which input and output, what comes out, and which sizes it takes.

The one thing to know: it stands where `Architecture` stands in model.json, and is part of the model's identity as that.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

OnnxScores = Literal["logits", "probabilities", "classes"]

LARGEST_SIDE = 1 << 14
LARGEST_MULTIPLE = 1024

TensorName = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class OnnxArchitecture(BaseModel):
    """A graph from normalised images, float32 [N, 3, H, W], to what it says of each class.

    scores: "logits" or "probabilities" [N, num_classes, h, w] at any stride, or "classes", indices [N, H, W] or
    [N, 1, H, W]. size: (height, width) of the images it takes, where it takes one size only. multiple_of: height and
    width must be multiples of it. batches: whether it takes several images at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: Literal["onnx"] = "onnx"
    num_classes: int = Field(ge=1, le=255)
    input: TensorName
    output: TensorName
    scores: OnnxScores
    size: tuple[Side, Side] | None = None
    multiple_of: int = Field(default=1, ge=1, le=LARGEST_MULTIPLE)
    batches: bool = False

    @property
    def title(self) -> str:
        """A few words for people."""
        if self.size:
            sizes = f"resized to {self.size[1]}x{self.size[0]}"
        else:
            sizes = f"padded to multiples of {self.multiple_of}" if self.multiple_of > 1 else "of any size"
        return f"an ONNX graph, {self.scores} of images {sizes}"
