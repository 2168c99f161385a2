"""From a weight file of anyone's to a model bundle that predicts with it, or is ready to be trained further.

The one thing to know: a file holds numbers, and a model is more than that. What a file does not say (which input its
network takes, what its classes are) is told from whose names it uses or by the caller, and everything that was decided
is said in the notes. What cannot be right is refused: half a backbone, another last upsampling, values that are no
numbers.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.errors import WeightsError
from fcn_core.labels import PRESETS, LabelSet, preset
from fcn_core.models.architecture import Architecture, Doubling
from fcn_core.models.backbones import BackboneName
from fcn_core.models.building import build
from fcn_core.models.network import Network
from fcn_core.models.networks import ArchName, network_spec
from fcn_core.models.upsampling import bilinear_weight
from fcn_core.normalization import CAFFE, IMAGENET, Normalization
from fcn_core.weights import names as weight_names
from fcn_core.weights.transplant import TransplantReport, read_tensors, transplant

_SCALE_LAYERS = {"score_pool4": "scale_pool4.weight", "score_pool3": "scale_pool3.weight"}
"""Score layers before which Caffe's at-once nets have a layer that multiplies by a fixed factor."""

_TORCHVISIONS_SCORES = ("classifier.4", "classifier.low_classifier", "classifier.high_classifier")
"""Score layers of torchvision's segmentation networks."""

_LAST_UPSAMPLINGS = ("upscore.weight", "upscore16.weight", "upscore8.weight")


@dataclass(frozen=True)
class Imported:
    """`notes` are sentences for people: what the file was taken for, and what was decided. `untrained` are the layers
    that are new and have to be trained before the masks mean anything.
    """

    bundle: ModelBundle
    report: TransplantReport
    notes: tuple[str, ...]
    untrained: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A file that was read. `scales`: factors that its network has before score layers, where that is known."""

    path: Path
    what: str
    state: Mapping[str, Tensor]
    backbone: BackboneName | None
    normalization: Normalization
    bundle: ModelBundle | None
    scales: Mapping[str, Tensor] | None

    @property
    def classes(self) -> int | None:
        """How many classes it scores; None for a classifier or a bare backbone."""
        for name in ("score_fr.weight", "score_fr_sem.weight", *(f"{layer}.weight" for layer in _TORCHVISIONS_SCORES)):
            scores = self.state.get(name)
            if scores is not None and scores.ndim == 4:  # AlexNet's classifier.4 is a fully connected layer
                return int(scores.shape[0])
        return None

    @property
    def score_layers(self) -> list[str]:
        """The tensors that have one entry per class."""
        prefixes = ("score_", "upscore") + (
            tuple(f"{layer}." for layer in _TORCHVISIONS_SCORES) if self.classes else ()
        )
        return [name for name in self.state if name.startswith(prefixes)]


def import_weights(
    path: str | os.PathLike[str],
    arch: ArchName,
    *,
    backbone: BackboneName | None = None,
    labels: LabelSet | None = None,
    normalization: Normalization | None = None,
    width: float | None = None,
    head_width: int | None = None,
    upsampling: Doubling | None = None,
    seed: int = 0,
) -> Imported:
    """A bundle of the network `arch` with what fits of the weights at `path`.

    path: a Caffe model (.caffemodel), a PyTorch checkpoint, a .safetensors file, or one of our bundles (a folder).
    Left out, backbone, width, head_width, upsampling, labels and normalization are those of the file where it tells
    (bundles tell everything), otherwise the network's usual ones, VOC's classes, and the input that the file's family
    takes. Given labels that are not the file's make new score layers. `seed` is for layers that the file does not have.

    Raises WeightsError for a file that cannot be read or does not fit, naming the first mismatch.
    """
    source = _read(Path(path))
    labels, keep_scores = _choose_labels(source, labels)
    architecture = _architecture(source, arch, backbone, labels.num_classes, width, head_width, upsampling)
    notes = [f"{source.path.name} is {source.what}" + (f", scores of {source.classes} classes" * bool(source.classes))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(architecture)

    state = dict(source.state)
    left_out: dict[str, str] = {}
    if not keep_scores and source.classes:
        left_out |= dict.fromkeys(source.score_layers, f"new for the classes of {labels.name}")
        notes.append(f"score layers are made anew for the {labels.num_classes} classes of {labels.name}")
    left_out |= {name: "a fixed factor, not a weight" for name in state if name.startswith("scale_pool")}
    _check_last_upsampling(source, model, left_out, notes)
    held_back = {name: (tuple(state.pop(name).shape), why) for name, why in left_out.items()}
    if keep_scores:
        _rescale(source, architecture, state, notes)

    names = weight_names.renames(state, model.state_dict().keys(), source.backbone)
    try:
        report = transplant(model, state, names)
    except WeightsError as error:
        raise WeightsError(f"{source.path}: {error}") from error
    for name, values in model.fixed_state().items():
        model.get_parameter(name).data.copy_(values)  # a file's rounded ones were close enough
    missing = {name: shape for name, shape in report.missing.items() if name not in model.fixed_state()}
    report = TransplantReport(report.matched, {**report.skipped, **held_back}, missing, report.origins)
    _check_fit(source, architecture, model, report)
    normalization = normalization or source.normalization
    notes.append(f"input: {describe_normalization(normalization)}")
    untrained = tuple(dict.fromkeys(name.rpartition(".")[0] for name in missing if not name.startswith("upscore")))
    bundle = ModelBundle.from_model(
        model.eval(), labels, normalization, provenance=_provenance(source, report, untrained)
    )
    return Imported(bundle, report, tuple(notes), untrained)


def describe_normalization(normalization: Normalization) -> str:
    """The input of a network in words: "BGR 0..255, less the mean (104.007, 116.669, 122.679)"."""
    text = f"{normalization.channel_order.upper()} 0..{255 * normalization.scale:.4g}"
    if any(normalization.mean):
        text += f", less the mean ({', '.join(f'{value:.6g}' for value in normalization.mean)})"
    if normalization.std != (1.0, 1.0, 1.0):
        text += f", divided by ({', '.join(f'{value:.6g}' for value in normalization.std)})"
    return text


def _read(path: Path) -> _Source:
    if path.is_dir():
        return _from_bundle(path)
    prefix, state = weight_names.unwrapped(read_tensors(path))
    family = weight_names.recognize(state)
    if family is None:
        raise WeightsError(
            f"{path} has names of no network that is known here (the first are {list(state)[:3]}); rename its tensors"
            " as Caffe (conv1_1.weight) or torchvision (features.0.weight) have them"
        )
    wrapped = f", its names without {prefix.rstrip('.')}" if prefix else ""
    is_caffe = path.suffix in (".caffemodel", ".binaryproto")
    scales = {layer: state[name] for layer, name in _SCALE_LAYERS.items() if name in state}
    return _Source(
        path=path,
        what=("a Caffe model: " if is_caffe else "a file of tensors: ") + family.what + wrapped,
        state=state,
        backbone=family.backbone,
        normalization=CAFFE if family.authors_input else IMAGENET,
        bundle=None,
        scales=scales if is_caffe else None,  # PyTorch files do not tell: there, scales are code
    )


def _from_bundle(directory: Path) -> _Source:
    bundle = ModelBundle.load(directory)
    architecture = bundle.network_architecture
    scales = network_spec(architecture.arch).input_scales
    return _Source(
        path=directory,
        what=f"a bundle: {architecture.arch} on {architecture.backbone}, classes of {bundle.labels.name}",
        state=bundle.state,
        backbone=architecture.backbone,
        normalization=bundle.normalization,
        bundle=bundle,
        scales={layer: torch.tensor(scale) for layer, scale in scales.items()},
    )


def _choose_labels(source: _Source, labels: LabelSet | None) -> tuple[LabelSet, bool]:
    """The labels of the new model, and whether the source's scores are those of these classes."""
    if source.bundle is not None:
        own = source.bundle.labels
        return (own, True) if labels is None else (labels, labels.names == own.names)
    if labels is not None:
        return labels, source.classes == labels.num_classes
    voc = preset("voc")
    if source.classes not in (None, voc.num_classes):
        raise WeightsError(
            f"{source.path} scores {source.classes} classes, and nothing says which; give a label set of so many"
            f" ({', '.join(PRESETS)}, or a file), or another, for new score layers"
        )
    return voc, source.classes is not None


def _architecture(
    source: _Source,
    arch: ArchName,
    backbone: BackboneName | None,
    num_classes: int,
    width: float | None,
    head_width: int | None,
    upsampling: Doubling | None,
) -> Architecture:
    """What was asked for; what was not, as the source has it; what that does not tell, as usual."""
    if backbone is None and source.backbone in network_spec(arch).backbones:
        backbone = source.backbone
    values: dict[str, Any] = {"arch": arch, "num_classes": num_classes, "backbone": backbone, "upsampling": upsampling}
    known = source.bundle.network_architecture if source.bundle else None
    if known is not None and known.backbone == backbone:
        width = known.width if width is None else width
    fc7 = source.state.get("fc7.weight")
    if head_width is None and "head_width" not in network_spec(arch).fixed and fc7 is not None:
        side = math.isqrt(fc7.numel())  # from as many channels to as many, in whatever shape
        head_width = side if side**2 == fc7.numel() and side else None
    values |= {"width": width, "head_width": head_width}
    try:
        return Architecture.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(f"there is no such network: {first['msg'].removeprefix('Value error, ')}") from error


def _check_last_upsampling(source: _Source, model: Network, left_out: dict[str, str], notes: list[str]) -> None:
    """The last upsampling is bilinear in every network here; see that the source's is so too."""
    for name in _LAST_UPSAMPLINGS:
        for key in (name, name.replace(".", "_sem.")):
            weight = source.state.get(key)
            if weight is None or key in left_out:
                continue
            if not _is_bilinear(weight):
                sentence = (
                    f"{source.path}: {key} {list(weight.shape)} is not the bilinear interpolation, one per class,"
                )
                if name in model.fixed_state():
                    raise WeightsError(
                        f"{sentence} that {model.architecture.arch} ends with, so its masks would be others; import"
                        " it with an arch of another geometry, or with other labels, to train it further"
                    )
                notes.append(f"{sentence} that the network ends with: its masks will differ from those of the source")
            if name not in model.fixed_state():
                left_out[key] = "this network's last upsampling is another, and fixed"


def _is_bilinear(weight: Tensor) -> bool:
    if not weight.is_floating_point() or weight.ndim != 4:
        return False
    classes, size = weight.shape[0], weight.shape[2]
    if weight.shape != (classes, classes, size, size):
        return False
    expected = bilinear_weight(classes, size)
    return torch.allclose(weight.float(), expected, rtol=1e-2, atol=1e-6)  # bfloat16 and float16 round them


def _rescale(source: _Source, architecture: Architecture, state: dict[str, Tensor], notes: list[str]) -> None:
    """Where source and network scale the input of a score layer differently, let the layer's weights make up for it.

    Of PyTorch files it cannot be told: they are taken to scale as the network does.
    """
    if source.scales is None:
        return
    own = network_spec(architecture.arch).input_scales
    for layer in _SCALE_LAYERS:
        weight = state.get(f"{layer}.weight")
        if weight is None:
            continue
        factor = source.scales.get(layer, torch.ones(())).float().flatten() / own.get(layer, 1.0)
        if factor.numel() not in (1, weight.shape[1] if weight.ndim == 4 else 0):
            raise WeightsError(f"{source.path}: the scale of {layer} has {factor.numel()} values, not one per channel")
        if torch.allclose(factor, torch.ones(()), rtol=1e-5, atol=0):
            continue
        state[f"{layer}.weight"] = weight * factor.reshape(1, -1, 1, 1)
        notes.append(f"{layer}: its weights take in the factor by which the source scales what it sees")


def _check_fit(source: _Source, architecture: Architecture, model: Network, report: TransplantReport) -> None:
    """A backbone that is not whole, or not finite, is of no use to anybody."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in _backbone_state(model):
        if name in report.matched:
            continue
        called = {new: old for old, new in weight_names.renames(source.state, shapes.keys(), source.backbone).items()}
        other = source.state.get(called.get(name, name))
        has = "has no such tensor" if other is None else f"has {called.get(name, name)} {list(other.shape)}"
        raise WeightsError(
            f"{source.path} ({source.what}) does not fit {architecture.arch} on {architecture.backbone}: the network's"
            f" {name} is {shapes[name]}, the file {has}; choose the arch and backbone that the file is of"
        )
    state = model.state_dict()
    for name in report.matched:
        if not bool(torch.isfinite(state[name]).all()):
            raise WeightsError(f"{source.path}: {name} holds values that are not numbers; use another file")


def _backbone_state(model: Network) -> Iterator[str]:
    """The names of all that the backbone computes with: its parameters, and the statistics of its batch norms."""
    parameters = {id(parameter) for parameter in model.backbone_parameters()}
    layers = {name.rpartition(".")[0] for name, parameter in model.named_parameters() if id(parameter) in parameters}
    for name in model.state_dict():
        layer, _, part = name.rpartition(".")
        if layer in layers and part != "num_batches_tracked":
            yield name


def _provenance(source: _Source, report: TransplantReport, untrained: tuple[str, ...]) -> dict[str, Any]:
    """Where a bundle came from; its path on somebody's disk is nobody's business."""
    values: dict[str, Any] = {"imported_from": source.path.name, "source": source.what, "matched": len(report.matched)}
    if source.bundle is not None:
        values["source_model_id"] = source.bundle.model_id
    else:
        with source.path.open("rb") as file:
            values["source_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    if untrained:
        values["untrained"] = list(untrained)
    return values
