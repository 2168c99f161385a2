"""`fcn model import NET.onnx`: a bundle of somebody's whole network."""

import re
from pathlib import Path
from typing import Literal

from fcn_core.text.printable import printable
from pipeline.cli.common import DONE
from pipeline.errors import InputError

_SIDE = 1 << 14
Numbers = tuple[float, float, float]


def import_onnx_file(
    file: Path,
    directory: Path,
    *,
    labels: str | None,
    mean: Numbers | None,
    std: Numbers | None,
    channel_order: Literal["rgb", "bgr"],
    size: str | None,
    multiple_of: int,
    output: str | None,
    overwrite: bool,
) -> int:
    """Examine the graph, write the bundle, and say what was found."""
    from fcn_core.labels import find_labels
    from fcn_core.normalization import Normalization
    from fcn_core.weights.importing import describe_normalization
    from fcn_core.weights.onnx_file import import_onnx

    if labels is None:
        raise InputError(
            "give --labels: a label set or .json file with the classes that the graph scores, in its order"
        )
    if mean is None or std is None:
        raise InputError(
            "give --mean and --std, as the network was trained: an ONNX file does not say what its input is, and with"
            " another masks are almost, but not quite, right"
        )
    if not 1 <= multiple_of <= 1024:
        raise InputError(f"--multiple-of is between 1 and 1024, not {multiple_of}")
    in_bytes = max(*map(abs, mean), *std) > 1
    # pydantic, too, refuses what is not finite or not positive.
    if not all(value > 0 for value in std):
        raise InputError(f"--std is three positive numbers, not {' '.join(f'{value:g}' for value in std)}")
    normalization = Normalization(channel_order=channel_order, scale=1.0 if in_bytes else 1 / 255, mean=mean, std=std)
    imported = import_onnx(
        file,
        find_labels(labels),
        normalization,
        size=_size(size),
        multiple_of=multiple_of,
        output=output,
    )
    bundle, found = imported.bundle, imported.found
    bundle.save(directory, overwrite=overwrite)
    print(f"{printable(file.name)} is an ONNX graph of {found.nodes} operators, opset {found.opset}")
    for note in found.notes:
        print(printable(note))
    print(f"input: {describe_normalization(normalization)}")
    kept = found.architecture
    print(printable(f"output {kept.output}: {kept.scores}, one cell for {found.stride:g} pixels"))
    if kept.scores == "classes":
        print("it names a class and no probabilities: every confidence will be 1, and nothing can be ranked by it")
    print(
        f"{directory}: {kept.title}, labels {printable(bundle.labels.name)} ({bundle.labels.num_classes} classes),"
        f" model_id {bundle.model_id}; complete"
    )
    return DONE


def _size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of "WIDTHxHEIGHT"."""
    if text is None:
        return None
    numbers = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text, re.ASCII)
    if not numbers or max(map(int, numbers.groups())) > _SIDE:
        raise InputError(f"--size is width x height in pixels, like 512x512, each at most {_SIDE}, not {text!r}")
    return int(numbers[2]), int(numbers[1])
