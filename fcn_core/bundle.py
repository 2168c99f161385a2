"""A model as files: `model.safetensors` (the weights) and `model.json` (all else that prediction depends on).

The one thing to know: `model_id` is a digest of architecture, labels, normalisation and weights. Two bundles
with the same id predict the same; provenance and scores are notes about a model and do not change it. Loading
verifies everything, and nothing is ever unpickled. An int8 bundle has its quantized graph beside the float weights, in
two more files, and an id of its own. Beside a model that was trained here lies a note of the images it has seen, which
loading does not need. An imported ONNX graph lies in `model.onnx`, instead of the weights.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fcn_core.bundle_folder import read_bundle, write_bundle
from fcn_core.errors import BundleError
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build, build_without_values
from fcn_core.models.description import (
    FORMAT_VERSION,
    INT8_FILES,
    INT8_FORMAT_VERSION,
    MODEL_FILE,
    ONNX_FORMAT_VERSION,
    REMEDY,
    TRAINED_ON_FILE,
    WEIGHTS_FILE,
    AnyArchitecture,
    Int8Description,
    ModelDescription,
    ModelKind,
    TrainedOnDescription,
    parse_description,
)
from fcn_core.models.int8_graph.check import check_graph
from fcn_core.models.network import Network
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture
from fcn_core.models.state_check import check_finite, check_state
from fcn_core.normalization import IMAGENET, Normalization
from fcn_core.text.printable import printable
from fcn_core.trained_on import DIGEST_BYTES, MOST_DIGESTS, TrainedOn


@dataclass(frozen=True)
class Int8Graph:
    """A network quantized to 8-bit integers: an OpenVINO graph from pixels to scores, as the contents of INT8_FILES."""

    graph: bytes
    values: bytes

    def files(self) -> dict[str, bytes]:
        """File name to content."""
        return dict(zip(INT8_FILES, (self.graph, self.values), strict=True))

    @cached_property
    def description(self) -> Int8Description:
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in self.files().items()}
        return Int8Description(engine="openvino", sha256=digests)


@dataclass(frozen=True)
class ModelBundle:
    """A network with its weights, and all that is needed to use it right.

    `state` is the network's state_dict on the CPU and must not be changed afterwards. `provenance` (where the
    model came from) and `scores` (how good it was) are JSON-able notes. `int8` is the graph that predicts instead, in
    a bundle that `fcn_core.inference.quantize` made; the weights are then those it was made of. `onnx` is an imported
    graph, whose `architecture` is an OnnxArchitecture and `state` empty. `graph_tried` says that this graph has been
    run in a process of its own already (`fcn_core.inference.graph_trial`, `fcn_core.inference.onnx_trial`).
    `trained_on`: the images it was trained on, itself or the model it was started from, as far as that is known.
    """

    architecture: AnyArchitecture
    labels: LabelSet
    normalization: Normalization
    state: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    int8: Int8Graph | None = None
    onnx: bytes | None = None
    graph_tried: bool = field(default=False, compare=False)
    trained_on: TrainedOn | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.architecture.num_classes != self.labels.num_classes:
            raise BundleError(
                f"the network scores {self.architecture.num_classes} classes but label set"
                f" {self.labels.name!r} names {self.labels.num_classes}; use the label set it was"
                " trained with"
            )
        if isinstance(self.architecture, OnnxArchitecture):
            if self.onnx is None or self.state or self.int8 is not None:
                raise BundleError("an imported graph has its ONNX file, and nothing else; import it again")
        elif self.onnx is not None:
            raise BundleError("a network of this library has no ONNX file; import the file as a model of its own")
        else:
            check_state(self.architecture, self.state)

    def __repr__(self) -> str:
        what = f"{self.architecture.title}, {self.labels.num_classes} classes of {printable(self.labels.name)}"
        return f"<ModelBundle {what}{', int8' if self.int8 is not None else ''}>"

    @classmethod
    def new(
        cls,
        architecture: Architecture,
        labels: LabelSet,
        normalization: Normalization = IMAGENET,
        seed: int = 0,
    ) -> "ModelBundle":
        """An untrained model. The same arguments give the same weights; the caller's random state is kept."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(architecture)
        return cls.from_model(model, labels, normalization)

    @classmethod
    def from_model(
        cls,
        model: Network,
        labels: LabelSet,
        normalization: Normalization = IMAGENET,
        *,
        provenance: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
    ) -> "ModelBundle":
        """A snapshot of a network's weights, copied to the CPU: training may go on."""
        state = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
        return cls(model.architecture, labels, normalization, state, dict(provenance or {}), dict(scores or {}))

    @property
    def kind(self) -> ModelKind:
        """What predicts, and so which engines can."""
        if self.onnx is not None:
            return "onnx"
        return "network" if self.int8 is None else "int8"

    @property
    def network_architecture(self) -> Architecture:
        """Raises BundleError for an imported graph, which has layers that this library does not know."""
        if isinstance(self.architecture, OnnxArchitecture):
            raise BundleError(
                f"model {self.model_id} is an imported ONNX graph, which predicts and nothing else: train, quantize or"
                " export it where it comes from, and import the result"
            )
        return self.architecture

    @property
    def model_id(self) -> str:
        """16 hexadecimal digits that stand for everything prediction depends on."""
        int8 = None if self.int8 is None else self.int8.description
        return _model_id(self.architecture, self.labels, self.normalization, self.weights_sha256, int8)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of model.safetensors, or of an imported graph's model.onnx."""
        return hashlib.sha256(self._weights_bytes()).hexdigest()

    def build(self) -> Network:
        """The network with a copy of these weights: float32, on the CPU, in evaluation mode.

        Raises BundleError for an imported graph.
        """
        model = build_without_values(self.network_architecture)
        state = {
            name: tensor.to("cpu", torch.float32 if tensor.is_floating_point() else None, copy=True)
            for name, tensor in self.state.items()
        }
        model.load_state_dict(state, assign=True)
        return model.eval()

    def to_files(self) -> dict[str, bytes]:
        """File name to content. The same model (and notes) gives the same bytes."""
        weights = self._weights_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        int8 = None if self.int8 is None else self.int8.description
        description = ModelDescription(
            format_version={"network": FORMAT_VERSION, "int8": INT8_FORMAT_VERSION, "onnx": ONNX_FORMAT_VERSION}[
                self.kind
            ],
            model_id=_model_id(self.architecture, self.labels, self.normalization, digest, int8),
            weights_sha256=digest,
            architecture=self.architecture,
            labels=self.labels,
            normalization=self.normalization,
            provenance={},
            scores={},
            int8=int8,
            trained_on=None if self.trained_on is None else _describe_images(self.trained_on),
        )
        # The notes go in as they are: pydantic would make null of NaN, where the caller should hear of it.
        absent = {name for name in ("int8", "trained_on") if getattr(description, name) is None}
        values = description.model_dump(mode="json", exclude=absent) | {
            "provenance": dict(self.provenance),
            "scores": dict(self.scores),
        }
        try:
            text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise BundleError(
                f"provenance and scores must be plain JSON values ({error}); leave the others out"
            ) from error
        graph = {} if self.int8 is None else self.int8.files()
        notes = {} if self.trained_on is None else {TRAINED_ON_FILE: self.trained_on.digests}
        return {description.weights_file: weights, **graph, **notes, MODEL_FILE: text.encode() + b"\n"}

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], source: str = "model bundle", *, graph_tried: bool = False
    ) -> "ModelBundle":
        """The bundle with these files, fully verified. `source` is what error messages call it.

        graph_tried: that whoever hands on the files has tried their int8 graph, see `ModelBundle`.

        Raises BundleError for a missing or damaged file, one from another version of the format, or weights that are
        not finite.
        """
        if MODEL_FILE not in files:
            raise _missing(source, MODEL_FILE, (WEIGHTS_FILE,))
        description = parse_description(files[MODEL_FILE], source)
        for name in description.other_files:
            if name not in files:
                raise _missing(source, name, description.other_files)
        weights = files[description.weights_file]
        digest = description.weights_sha256
        graph = {} if description.int8 is None else description.int8.sha256
        for name, promised in {description.weights_file: digest, **graph}.items():
            _check_digest(source, name, files[name], promised)
        found = _model_id(
            description.architecture, description.labels, description.normalization, digest, description.int8
        )
        if found != description.model_id:
            raise BundleError(
                f"{source}: {MODEL_FILE} says model_id {description.model_id}, but its content has {found}:"
                f" it was edited after it was written; {REMEDY}"
            )
        is_onnx = isinstance(description.architecture, OnnxArchitecture)
        state = {} if is_onnx else _read_state(weights, source)
        try:
            bundle = cls(
                architecture=description.architecture,
                labels=description.labels,
                normalization=description.normalization,
                state=state,
                provenance=description.provenance,
                scores=description.scores,
                int8=None if description.int8 is None else Int8Graph(*(files[name] for name in INT8_FILES)),
                onnx=weights if is_onnx else None,
                graph_tried=graph_tried,
                trained_on=_read_images(description.trained_on, files.get(TRAINED_ON_FILE), source),
            )
            if bundle.int8 is not None:
                check_graph(bundle.int8.graph, bundle.int8.values, bundle.labels.num_classes)
        except BundleError as error:
            raise BundleError(f"{source}: {error}") from error
        check_finite(state, source)
        bundle.__dict__["weights_sha256"] = digest  # known: spare serialising the weights again
        return bundle

    def save(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the bundle's files; a reader never sees half a bundle as a whole one.

        A new directory appears complete, by a rename. In an existing one the weights are replaced first and
        model.json last, each by a rename, so that an interrupted overwrite is caught by the digest; other
        files are left alone. Raises BundleError if another model is there and overwrite is False.
        """
        write_bundle(Path(directory), self.to_files(), self.model_id, overwrite=overwrite)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "ModelBundle":
        """The bundle in a directory, fully verified. Raises BundleError as `from_files` does."""
        source = Path(directory)
        return cls.from_files(read_bundle(source), source=str(source))

    def _weights_bytes(self) -> bytes:
        if self.onnx is not None:
            return self.onnx
        # No metadata: safetensors writes it in no fixed order, and model.json holds it anyway.
        return safetensors.torch.save({name: tensor.contiguous() for name, tensor in self.state.items()})


def _read_state(weights: bytes, source: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"{source}: {WEIGHTS_FILE} is not a safetensors file ({error}); {REMEDY}") from error


def _missing(source: str, name: str, others: tuple[str, ...]) -> BundleError:
    return BundleError(f"{source}: {name} is missing; a bundle is {MODEL_FILE} and {' and '.join(others)}")


def _describe_images(trained_on: TrainedOn) -> TrainedOnDescription:
    sha256 = hashlib.sha256(trained_on.digests).hexdigest()
    return TrainedOnDescription(images=trained_on.images, sha256=sha256)


def _read_images(description: TrainedOnDescription | None, content: bytes | None, source: str) -> TrainedOn | None:
    """The note of the images; None where there is none, or its file was not copied along. Raises BundleError."""
    if description is None or content is None:
        return None
    _check_digest(source, TRAINED_ON_FILE, content, description.sha256)
    if len(content) != DIGEST_BYTES * min(description.images, MOST_DIGESTS):
        raise BundleError(
            f"{source}: {TRAINED_ON_FILE} has {len(content)} bytes, which are not the digests of {description.images}"
            f" images; {REMEDY}"
        )
    return TrainedOn(description.images, content)


def _check_digest(source: str, name: str, content: bytes, promised: str) -> None:
    digest = hashlib.sha256(content).hexdigest()
    if digest != promised:
        raise BundleError(
            f"{source}: {name} ({len(content)} bytes) has SHA-256 {digest[:12]}..., but"
            f" {MODEL_FILE} says {promised[:12]}...; {REMEDY}"
        )


def _model_id(
    architecture: AnyArchitecture,
    labels: LabelSet,
    normalization: Normalization,
    weights_sha256: str,
    int8: Int8Description | None = None,
) -> str:
    identity = json.dumps(
        {
            "architecture": architecture.model_dump(mode="json"),
            "labels": labels.model_dump(mode="json"),
            "normalization": normalization.model_dump(mode="json"),
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )
    digests = [weights_sha256] + ([] if int8 is None else [int8.sha256[name] for name in INT8_FILES])
    return hashlib.sha256("\n".join([identity, *digests]).encode()).hexdigest()[:16]
