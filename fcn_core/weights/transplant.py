"""Weights from elsewhere: reading tensor files, and moving what fits from one network to another.

The one thing to know: nothing is skipped in silence. Every transplant returns a report of what matched, what
the source had that the network did not take, and what the network has that it did not get.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fcn_core.errors import WeightsError
from fcn_core.text.printable import printable
from fcn_core.weights.caffemodel import caffe_tensors, read_caffemodel
from fcn_core.weights.torchfile import load_torch_file

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TransplantReport:
    """What became of each tensor, by name. Names in `skipped` are the source's, the others the network's.

    `skipped` also says why; `missing` keep the values they had. `origins` has, for those of `matched` that were called
    or shaped otherwise in the source, that name and shape.
    """

    matched: Mapping[str, Shape]
    skipped: Mapping[str, tuple[Shape, str]]
    missing: Mapping[str, Shape]
    origins: Mapping[str, tuple[str, Shape]] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line in all, one for each layer that matched, and one for each tensor that did not."""
        lines = [f"matched {len(self.matched)}, skipped {len(self.skipped)}, missing {len(self.missing)} tensors"]
        for layer, names in groupby(self.matched, key=_layer_of):
            lines.append(f"  matched {printable(layer)}: {', '.join(self._match(name) for name in names)}")
        lines += [f"  skipped {printable(name)} {list(shape)}: {why}" for name, (shape, why) in self.skipped.items()]
        lines += [f"  missing {printable(name)} {list(shape)}: kept as it was" for name, shape in self.missing.items()]
        return "\n".join(lines)

    def _match(self, name: str) -> str:
        shape = self.matched[name]
        text = f"{name.rpartition('.')[2]} {list(shape)}"
        if name in self.origins:
            source, before = self.origins[name]
            text += f" from {printable(source)}" + (f" {list(before)}" if before != shape else "")
        return text


def transplant(
    model: nn.Module, state: Mapping[str, Tensor], renames: Mapping[str, str] | None = None
) -> TransplantReport:
    """Copy into `model`, in place, each tensor of `state` that it has under the same name with the same shape.

    `renames` maps names of the source to names of the network. A fully connected layer [out, in] (Caffe before 2015:
    [1, 1, out, in]) becomes the convolution it equals where the network has one with so many outputs and weights
    (paper, section 4.1). Values are converted to the network's dtype and device. Use it as it is for FCN-32s -> 16s ->
    8s, whose layers share names.

    Raises WeightsError if nothing matches at all.
    """
    targets = model.state_dict()
    matched: dict[str, Shape] = {}
    skipped: dict[str, tuple[Shape, str]] = {}
    origins: dict[str, tuple[str, Shape]] = {}
    for source, tensor in state.items():
        shape = tuple(tensor.shape)
        name = (renames or {}).get(source, source)
        if name not in targets:
            skipped[source] = (shape, "the network has no such tensor")
            continue
        target = targets[name]
        wanted = tuple(target.shape)
        if shape != wanted and not _is_same_convolution(shape, wanted):
            skipped[source] = (shape, f"the network's {name} is {list(wanted)}")
            continue
        if tensor.is_floating_point() != target.is_floating_point():
            skipped[source] = (shape, f"its values are {tensor.dtype}, the network's {target.dtype}")
            continue
        if name in matched:
            skipped[source] = (shape, f"{name} is there already, from {printable(origins.get(name, (name,))[0])}")
            continue
        with torch.no_grad():
            target.copy_(tensor.reshape(wanted))
        matched[name] = wanted
        if (name, wanted) != (source, shape):
            origins[name] = (source, shape)
    if not matched:
        raise WeightsError(
            f"none of the {len(state)} tensors fits the network (the first are {list(state)[:3]},"
            f" it expects names like {list(targets)[:3]}); check that the weights are for this architecture"
        )
    missing = {name: tuple(tensor.shape) for name, tensor in targets.items() if name not in matched}
    return TransplantReport(matched, skipped, missing, origins)


def _is_same_convolution(shape: Shape, target: Shape) -> bool:
    """Whether a fully connected layer's weights are those of a convolution of the shape `target`."""
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return len(shape) == 2 and len(target) == 4 and shape[0] == target[0] and math.prod(shape) == math.prod(target)


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]


def _largest_part(content: Any) -> Any:
    """Of a checkpoint without tensors of its own, the mapping that holds the most; `content` where there is none."""
    if not isinstance(content, Mapping) or any(isinstance(value, Tensor) for value in content.values()):
        return content
    counts = {
        key: sum(isinstance(value, Tensor) for value in part.values())
        for key, part in content.items()
        if isinstance(part, Mapping)
    }
    return content[max(counts, key=lambda key: counts[key])] if any(counts.values()) else content


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU: `.safetensors`, Caffe's `.caffemodel`, or what torch.save wrote.

    Of a torch checkpoint, `model_state_dict`, `state_dict` or `model` is taken where there is one, else the part that
    has the most tensors, and a leading `module.` is dropped from names. Nothing is unpickled: code inside torch files
    never runs, and Caffe's files are data. Raises WeightsError for a file that is missing, damaged, or holds no named
    tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}; check the path")
    if path.suffix in (".caffemodel", ".binaryproto"):
        return caffe_tensors(read_caffemodel(path))
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
            raise WeightsError(f"{path} is not a safetensors file ({error}); copy or download it again") from error
    content = load_torch_file(path)
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    else:
        content = _largest_part(content)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not named tensors; save a state_dict")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        # One stored value can be shown as a million; whoever believes the shape would pay for it.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise WeightsError(
                f"{path}: {printable(name)} {list(tensor.shape)} has fewer values than its shape; save a copy"
            )
    if not tensors:
        raise WeightsError(f"{path} holds no tensors (its first keys are {list(content)[:3]}); save a state_dict")
    return tensors
