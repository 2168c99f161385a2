"""A training state as two files: tensors in `state.safetensors`, all else in `state.json`. Nothing is pickled.

The one thing to know: `state.json` names the digest of the tensors, and is written last. Whoever finds it whole finds
a whole checkpoint, so it is the commit, on a disk and in a bucket.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from fcn_core.errors import CheckpointError
from fcn_core.text.json_text import parse_json

TENSORS_FILE = "state.safetensors"
STATE_FILE = "state.json"

LARGEST_STATE = 256 << 20
"""Of state.json: all numbers of a long training's curves are in it."""

_FORMAT = 1
_TENSOR = "$tensor"
_REMEDY = "resume from another checkpoint"


def to_files(state: Mapping[str, Any]) -> dict[str, bytes]:
    """File name to content, in the order to write them, of a nested mapping of JSON values and tensors.

    Equal states give equal bytes. Raises CheckpointError for what neither JSON nor safetensors can hold.
    """
    tensors: dict[str, Tensor] = {}
    tree = _flatten(state, "", tensors)
    # Copies, contiguous: safetensors refuses tensors that share memory and knows no memory formats.
    weights = safetensors.torch.save(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    )
    content = {"format_version": _FORMAT, "tensors_sha256": hashlib.sha256(weights).hexdigest(), "state": tree}
    try:
        text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint holds tensors and plain JSON values only ({error})") from error
    return {TENSORS_FILE: weights, STATE_FILE: text.encode() + b"\n"}


def from_files(files: Mapping[str, bytes], source: str = "checkpoint") -> dict[str, Any]:
    """The state that `to_files` was given. Raises CheckpointError when files are missing, damaged or of two minds."""
    for name in (STATE_FILE, TENSORS_FILE):
        if name not in files:
            raise CheckpointError(f"{source}: {name} is missing; {_REMEDY}")
    try:
        content = parse_json(files[STATE_FILE], most_bytes=LARGEST_STATE)
        version, digest, tree = content["format_version"], content["tensors_sha256"], content["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: {STATE_FILE} is damaged ({error}); {_REMEDY}") from error
    if version != _FORMAT:
        raise CheckpointError(
            f"{source}: its format is {version}, this program reads {_FORMAT}; use the one that wrote it"
        )
    if hashlib.sha256(files[TENSORS_FILE]).hexdigest() != digest:
        raise CheckpointError(f"{source}: {TENSORS_FILE} is not the one that {STATE_FILE} was written for; {_REMEDY}")
    try:
        tensors = safetensors.torch.load(files[TENSORS_FILE])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source}: {TENSORS_FILE} is no safetensors file ({error}); {_REMEDY}") from error
    try:
        state = _unflatten(tree, tensors)
    except KeyError as error:
        raise CheckpointError(f"{source}: {TENSORS_FILE} lacks {error}; {_REMEDY}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{source}: {STATE_FILE} holds no state; {_REMEDY}")
    return state


def save(directory: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint folder, replacing one that is there. At every moment the old or the new one is whole.

    A new folder appears by a rename. An old one is moved aside for the instant of the exchange; `load` finds it there.
    """
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
        staged = Path(aside) / "new"
        staged.mkdir()
        for name, content in to_files(state).items():
            with (staged / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        previous = _previous(target)
        if target.exists():
            if previous.exists():
                previous.rename(Path(aside) / "older")
            target.rename(previous)
        staged.rename(target)
        if previous.exists():
            previous.rename(Path(aside) / "old")


def load(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The state in a checkpoint folder. Raises CheckpointError."""
    target = Path(directory)
    for folder in (target, _previous(target)):
        files = {name: (folder / name).read_bytes() for name in (TENSORS_FILE, STATE_FILE) if (folder / name).is_file()}
        if files:
            return from_files(files, str(folder))
    raise CheckpointError(f"{target} holds no checkpoint; check the path")


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        if path in tensors:
            raise CheckpointError(f"two tensors of a checkpoint are both called {path!r}")
        tensors[path] = value
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        strange = next((key for key in value if not isinstance(key, str) or key == _TENSOR), None)
        if strange is not None:
            raise CheckpointError(f"a checkpoint's keys are strings other than {_TENSOR!r}, not {strange!r}")
        return {key: _flatten(item, f"{path}/{key}" if path else key, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_flatten(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
    return value


def _unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return tensors[tree[_TENSOR]]
        return {key: _unflatten(item, tensors) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_unflatten(item, tensors) for item in tree]
    return tree
