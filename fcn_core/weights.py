"""Weights from elsewhere: reading tensor files, and moving what fits from one network to another.

The one thing to know: nothing is skipped in silence. Every transplant returns a report of what matched, what
the source had that the network did not take, and what the network has that it did not get.
"""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fcn_core.errors import WeightsError
from fcn_core.fcn import FCN

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TransplantReport:
    """What became of each tensor, by name. Names in `skipped` are the source's, the others the network's.

    `skipped` also says why; `missing` keep the values they had.
    """

    matched: Mapping[str, Shape]
    skipped: Mapping[str, tuple[Shape, str]]
    missing: Mapping[str, Shape]

    def __str__(self) -> str:
        lines = [f"matched {len(self.matched)}, skipped {len(self.skipped)}, missing {len(self.missing)} tensors"]
        lines += [f"  skipped {name} {list(shape)}: {why}" for name, (shape, why) in self.skipped.items()]
        lines += [f"  missing {name} {list(shape)}: kept as it was" for name, shape in self.missing.items()]
        return "\n".join(lines)


def transplant(
    model: nn.Module, state: Mapping[str, Tensor], renames: Mapping[str, str] | None = None
) -> TransplantReport:
    """Copy into `model`, in place, each tensor of `state` that it has under the same name with the same
    shape.

    `renames` maps names of the source to names of the network; a tensor whose number of elements fits a
    renamed target is viewed in its shape (a fully connected layer as the convolution it equals). Values are
    converted to the network's dtype and device. Use it as it is for FCN-32s -> 16s -> 8s, whose layers share
    names.

    Raises WeightsError if nothing matches at all.
    """
    targets = model.state_dict()
    matched: dict[str, Shape] = {}
    skipped: dict[str, tuple[Shape, str]] = {}
    for source, tensor in state.items():
        shape = tuple(tensor.shape)
        name = (renames or {}).get(source, source)
        if name not in targets:
            skipped[source] = (shape, "the network has no such tensor")
            continue
        target = targets[name]
        if tuple(target.shape) != shape and (name == source or target.numel() != tensor.numel()):
            skipped[source] = (shape, f"the network's {name} is {list(target.shape)}")
            continue
        with torch.no_grad():
            target.copy_(tensor.reshape(target.shape))
        matched[name] = tuple(target.shape)
    if not matched:
        raise WeightsError(
            f"none of the {len(state)} tensors fits the network (the first are {list(state)[:3]},"
            f" it expects names like {list(targets)[:3]}); check that the weights are for this architecture"
        )
    missing = {name: tuple(tensor.shape) for name, tensor in targets.items() if name not in matched}
    return TransplantReport(matched, skipped, missing)


def load_vgg16_classifier(model: FCN, state: Mapping[str, Tensor]) -> TransplantReport:
    """Start a network from an ImageNet classifier: torchvision's `vgg16` weights, or just their `features.*`.

    The convolutions go to the backbone. The first two fully connected layers become the convolutions fc6 and
    fc7 (paper, section 4.1) where the network has VGG's own 4096 channels, and are skipped, as the report
    says, where it has not. The classifier's last layer scores ImageNet classes and is never taken.
    """
    renames = {name: f"backbone.{name}" for name in state if name.startswith("features.")}
    for layer, name in (("classifier.0", "fc6"), ("classifier.3", "fc7")):
        renames |= {f"{layer}.{part}": f"{name}.{part}" for part in ("weight", "bias")}
    return transplant(model, state, renames)


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The named tensors of a file, on the CPU: `.safetensors`, or what torch.save wrote.

    Of a torch checkpoint, `model_state_dict` or `state_dict` is taken where there is one, and a leading
    `module.` is dropped from names. Torch files are read with `weights_only=True`: code inside them never
    runs. Raises WeightsError for a file that is missing, damaged, or holds no named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}; check the path")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged, or holds Python objects besides tensors, which are never loaded;"
            " save the state_dict alone (torch.save(model.state_dict(), ...)) or as .safetensors"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise WeightsError(f"{path} is not a readable weight file ({error}); copy or download it again") from error
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not named tensors; save a state_dict")
    tensors = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors (its first keys are {list(content)[:3]}); save a state_dict")
    return tensors
