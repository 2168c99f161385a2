"""Whether weights are those of a network: its tensors, of its shapes, with numbers in them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fcn_core.errors import BundleError
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build_without_values


def check_state(architecture: Architecture, state: Mapping[str, Tensor]) -> None:
    """Raise BundleError, naming the tensors, if a state is not of a network of this architecture."""
    model = build_without_values(architecture)
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    wrong = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing (first: {missing[0]})")
    if extra:
        problems.append(f"{len(extra)} unknown (first: {extra[0]})")
    if wrong:
        name = wrong[0]
        found, needed = list(state[name].shape), list(expected[name].shape)
        problems.append(f"{len(wrong)} of wrong shape (first: {name} is {found}, not {needed})")
    problems += [
        f"{name} is {tensor.dtype}, not {'floating point' if expected[name].is_floating_point() else 'integer'}"
        for name, tensor in state.items()
        if name in expected and tensor.is_floating_point() != expected[name].is_floating_point()
    ][:1]
    if not problems:
        problems += [
            f"{name} is not the bilinear interpolation that this network ends with"
            for name, values in model.fixed_state().items()
            if not torch.allclose(state[name].float(), values, rtol=1e-2, atol=1e-6)  # bfloat16 rounds them
        ]
    if problems:
        raise BundleError(
            f"the weights do not fit the architecture {architecture.arch}/{architecture.backbone}: tensors"
            f" {'; '.join(problems)}; save the network that belongs to these weights"
        )


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise BundleError, naming them, if any of the weights are NaN or infinite: such a network sees one class
    everywhere. `source` is what the message calls the model."""
    bad = [name for name, tensor in state.items() if not _is_finite(tensor)]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise BundleError(
            f"{source}: weights that are NaN or infinite: {', '.join(bad[:3])}{more}; use an earlier checkpoint, or"
            " train again with a lower learning rate"
        )


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # In one pass and without a copy: a NaN is both the least and the greatest.
    return all(math.isfinite(value) for value in torch.aminmax(tensor))
