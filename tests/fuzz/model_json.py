"""Target: a model.json, as that of a bundle and as a label set. A description comes out, or an error of one line."""

import json
from collections.abc import Iterable

import numpy as np

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError, LabelError
from fcn_core.labels import LabelSet, encode_mask, parse_labels
from fcn_core.models.architecture import Architecture
from fcn_core.models.description import INT8_FILES, MODEL_FILE, parse_description
from fcn_core.normalization import CAFFE
from fcn_core.text.json_text import parse_json

MEMORY_MB = 1024


def seeds() -> Iterable[bytes]:
    labels = LabelSet(name="roofs", names=("other", "roof"), palette=((0, 0, 0), (200, 10, 10)))
    bundle = ModelBundle.new(
        Architecture(arch="fcn32s", backbone="alexnet", num_classes=2, width=0.01, head_width=1), labels, CAFFE
    )
    text = bundle.to_files()[MODEL_FILE]
    yield text
    values = json.loads(text)
    int8 = {"engine": "openvino", "sha256": dict.fromkeys(INT8_FILES, "0" * 64)}
    yield json.dumps({**values, "format_version": 2, "int8": int8}).encode()
    yield json.dumps({**values, "scores": {"mean_iou": 0.5, "of": [1, None, {"deep": [[[]]]}]}}).encode()
    for arch, backbone in (("fcn8s", "vgg16"), ("fcn_alexnet_padded", "alexnet"), ("fcn16s", "mobilenet_v3_large")):
        yield json.dumps({**values, "architecture": {"arch": arch, "backbone": backbone, "num_classes": 2}}).encode()
    yield labels.model_dump_json().encode()
    yield b'{"name": "roofs", "names": ["other", "roof"]}'


def check(data: bytes) -> None:
    try:
        description = parse_description(data, "fuzzed")
    except BundleError as error:
        _check_refusal(str(error))
    else:
        assert description.architecture.num_classes >= 1
        assert parse_json(description.model_dump_json().encode())
        assert description.most_bytes > 0
    try:
        labels = parse_labels(data, "fuzzed")
    except LabelError as error:
        _check_refusal(str(error))
    else:
        encode_mask(np.zeros((2, 2), np.uint8), labels)


def _check_refusal(text: str) -> None:
    assert "\n" not in text, text
    assert len(text) < 2000, text
