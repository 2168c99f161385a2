"""Target: the safetensors files of bundles and checkpoints. Their tensors come out, or an error of one line.

Digests are made to fit, as whoever makes a bundle up would do.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache

import safetensors.torch
import torch

from fcn_core.bundle import ModelBundle, _model_id
from fcn_core.errors import BundleError, CheckpointError
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Architecture
from fcn_core.models.description import MODEL_FILE, WEIGHTS_FILE, parse_description
from fcn_core.training import checkpoint

LARGEST_BYTES = 32_768
MEMORY_MB = 1024


@cache
def _bundle() -> ModelBundle:
    labels = LabelSet(name="one", names=("a",), palette=((0, 0, 0),))
    shape = Architecture(arch="fcn32s", backbone="alexnet", num_classes=1, width=0.001, head_width=1)
    return ModelBundle.new(shape, labels)


def seeds() -> Iterable[bytes]:
    yield _bundle().to_files()[WEIGHTS_FILE]
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
    yield safetensors.torch.save({"a": torch.zeros(2, 3)})
    yield safetensors.torch.save({str(kind): torch.zeros(2, dtype=kind) for kind in kinds}, {"format": "pt"})
    yield safetensors.torch.save({"a": torch.tensor(1.0), "b": torch.zeros(0)})


def check(data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    description = parse_description(_bundle().to_files()[MODEL_FILE], "fuzzed")
    found = _model_id(description.architecture, description.labels, description.normalization, digest)
    changed = description.model_copy(update={"weights_sha256": digest, "model_id": found})
    text = changed.model_dump_json(exclude={"int8"})
    try:
        bundle = ModelBundle.from_files({MODEL_FILE: text.encode(), WEIGHTS_FILE: data})
    except BundleError as error:
        _check_refusal(str(error))
    else:
        assert bundle.model_id == found
        assert all(torch.isfinite(tensor).all() for tensor in bundle.state.values())
    state = {"format_version": 1, "tensors_sha256": digest, "state": {"a": {"$tensor": "a"}}}
    try:
        loaded = checkpoint.from_files(
            {checkpoint.STATE_FILE: json.dumps(state).encode(), checkpoint.TENSORS_FILE: data}
        )
    except CheckpointError as error:
        _check_refusal(str(error))
    else:
        assert loaded["a"].numel() * loaded["a"].element_size() <= len(data)


def _check_refusal(text: str) -> None:
    assert "\n" not in text, text
    assert len(text) < 2000, text
