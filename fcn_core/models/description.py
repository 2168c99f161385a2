"""model.json: all that prediction depends on besides the weights, checked as it is read."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from fcn_core.errors import BundleError, FcnError
from fcn_core.labels import LabelSet
from fcn_core.metrics import with_current_names
from fcn_core.models.architecture import Architecture
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture
from fcn_core.normalization import Normalization
from fcn_core.text.json_text import LARGEST_BYTES, parse_json
from fcn_core.text.printable import printable
from fcn_core.trained_on import DIGEST_BYTES, MOST_DIGESTS

FORMAT_VERSION = 1
INT8_FORMAT_VERSION = 2
ONNX_FORMAT_VERSION = 3
WEIGHTS_FILE = "model.safetensors"
MODEL_FILE = "model.json"
TRAINED_ON_FILE = "trained_on.bin"
"""Which images a model was trained on (`fcn_core.trained_on`): digests of 8 bytes, sorted. A note, like the scores."""

INT8_FILES = ("openvino_int8.xml", "openvino_int8.bin")
"""The graph of an int8 bundle, and the values of its constants."""

ONNX_FILE = "model.onnx"
"""The graph and weights of an imported model, instead of WEIGHTS_FILE."""

ModelKind = Literal["network", "int8", "onnx"]
"""What predicts: a network of ours, its quantized graph, or an imported graph."""

ModelId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}\z")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\z")]

LARGEST_DESCRIPTION = LARGEST_BYTES
LARGEST_GRAPH = 16 << 20
LARGEST_ONNX = 2 << 30
REMEDY = "copy the bundle again or use another"


class Int8Description(BaseModel):
    """What model.json says of a quantized graph: who computes it, and the SHA-256 of each of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["openvino"]
    sha256: dict[str, Sha256]

    @model_validator(mode="after")
    def _all_files(self) -> Self:
        if self.sha256.keys() != set(INT8_FILES):
            raise ValueError(f"sha256 must be of {' and '.join(INT8_FILES)}, not of {', '.join(self.sha256) or 'none'}")
        return self


class TrainedOnDescription(BaseModel):
    """What model.json says of TRAINED_ON_FILE: how many images there were, and the file's SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = Field(ge=0)
    sha256: Sha256


def _family(architecture: Any) -> str:
    arch = architecture.get("arch") if isinstance(architecture, dict) else getattr(architecture, "arch", None)
    return "onnx" if arch == "onnx" else "network"


AnyArchitecture = Annotated[
    Annotated[Architecture, Tag("network")] | Annotated[OnnxArchitecture, Tag("onnx")], Discriminator(_family)
]


class ModelDescription(BaseModel):
    """What model.json holds: all of a bundle but its weights and graphs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1, 2, 3]
    model_id: ModelId
    weights_sha256: Sha256
    architecture: AnyArchitecture
    labels: LabelSet
    normalization: Normalization
    provenance: dict[str, Any]
    scores: Annotated[dict[str, Any], BeforeValidator(with_current_names)]
    int8: Int8Description | None = None
    trained_on: TrainedOnDescription | None = None

    @model_validator(mode="after")
    def _version_says_int8(self) -> Self:
        if (self.format_version == INT8_FORMAT_VERSION) != (self.int8 is not None):
            raise ValueError(f"format version {INT8_FORMAT_VERSION} is of int8 bundles, and only of these")
        if (self.format_version == ONNX_FORMAT_VERSION) != isinstance(self.architecture, OnnxArchitecture):
            raise ValueError(f"format version {ONNX_FORMAT_VERSION} is of imported ONNX graphs, and only of these")
        return self

    @property
    def weights_file(self) -> str:
        """The file that weights_sha256 is of."""
        return ONNX_FILE if isinstance(self.architecture, OnnxArchitecture) else WEIGHTS_FILE

    @property
    def other_files(self) -> tuple[str, ...]:
        """The bundle's files beside model.json and notes."""
        return (self.weights_file,) if self.int8 is None else (self.weights_file, *INT8_FILES)

    @property
    def notes_files(self) -> tuple[str, ...]:
        """Files that a bundle is whole without."""
        return () if self.trained_on is None else (TRAINED_ON_FILE,)

    def most_bytes_of(self, name: str) -> int:
        """More than the file of this name can need: whoever reads one asks its size first."""
        return DIGEST_BYTES * MOST_DIGESTS if name == TRAINED_ON_FILE else self.most_bytes

    @property
    def most_bytes(self) -> int:
        """More than any of `other_files` can need for its network."""
        if isinstance(self.architecture, OnnxArchitecture):
            return LARGEST_ONNX
        from fcn_core.models.building import build_without_values  # of PyTorch

        state = build_without_values(self.architecture).state_dict()
        return int(8 * sum(tensor.numel() for tensor in state.values()) + LARGEST_GRAPH)


def parse_description(data: bytes, source: str) -> ModelDescription:
    """What the bytes of a model.json say; `source` is what error messages call the bundle. Raises BundleError.

    That its model_id is the digest of the rest is for `ModelBundle.from_files` to check: it takes the weights.
    """
    try:
        values = parse_json(data)
    except ValueError as error:
        raise BundleError(f"{source}: {MODEL_FILE} is not JSON ({error}); {REMEDY}") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if version not in (FORMAT_VERSION, INT8_FORMAT_VERSION, ONNX_FORMAT_VERSION):
        raise BundleError(
            f"{source}: {MODEL_FILE} has format version {version!r:.40}, this program reads {FORMAT_VERSION} to"
            f" {ONNX_FORMAT_VERSION};"
            " use the program version that wrote it, or save the model anew"
        )
    try:
        return ModelDescription.model_validate(values)
    except (ValidationError, FcnError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = printable(f"{_place(first['loc'])}: {first['msg']}")
        else:
            reason = str(error)
        raise BundleError(f"{source}: {MODEL_FILE} is not valid ({reason}); {REMEDY}") from error


def _place(location: tuple[int | str, ...]) -> str:
    """The dotted name of a value, without the kind of architecture that it was taken for."""
    tagged = len(location) > 1 and location[0] == "architecture" and location[1] in ("network", "onnx")
    return ".".join(str(part) for part in (location[:1] + location[2:] if tagged else location))
