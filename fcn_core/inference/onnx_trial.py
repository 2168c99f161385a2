"""A stranger's ONNX file, examined in a process of its own: checked, written anew and run once, within limits.

The one thing to know: this process never parses the file. It gets back what was found, as JSON, and the graph as it was
written by the other one.
"""

import os
import stat
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fcn_core.errors import BundleError
from fcn_core.inference.extras import require
from fcn_core.inference.graph_trial import fault, in_memory, run_limited
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture
from fcn_core.text.json_text import parse_json
from fcn_core.text.printable import printable

PACKAGES = ("onnx", "onnxruntime")
"""What imported graphs need beyond PyTorch: the extra `onnx`."""

LARGEST_FILE = (2 << 30) - (1 << 20)
_LONGEST_REPORT = 1 << 16


class Examined(BaseModel):
    """What was found. stride: pixels per cell of the output, as far as images of several sizes tell. notes: sentences
    for people.
    """

    model_config = ConfigDict(frozen=True)

    architecture: OnnxArchitecture
    opset: int
    nodes: int
    stride: float
    notes: tuple[str, ...] = ()


def examine(
    path: Path,
    num_classes: int,
    *,
    size: tuple[int, int] | None = None,
    multiple_of: int = 1,
    output: str | None = None,
) -> tuple[Examined, bytes]:
    """What a .onnx file is, and the graph to keep of it. size: (height, width) of its images.

    Raises BundleError, in one sentence, for a file that cannot be read or is not run here.
    """
    require("an ONNX graph", PACKAGES, "onnx")
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        folder = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleError(f"cannot read {path} ({error.strerror}); check the path and its rights") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a file; give a .onnx file")
        if status.st_size > LARGEST_FILE:
            raise BundleError(f"{path} has {status.st_size} bytes, over the {LARGEST_FILE} that an ONNX file may have")
        wanted = {"size": size, "multiple_of": multiple_of, "output": output}
        size_in_all = status.st_size + _beside(path, folder)
        return _examine(str(path), file, folder, size_in_all, {"num_classes": num_classes, **wanted})
    finally:
        os.close(file)
        os.close(folder)


def _beside(path: Path, folder: int) -> int:
    """Bytes of the files that hold a model's constants: by what exporters call them, net.onnx.data or net.onnx_data."""
    names = [name for name in os.listdir(folder) if name.startswith(path.name) and name != path.name]
    sizes = (os.stat(name, dir_fd=folder, follow_symlinks=False).st_size for name in names)
    return min(sum(sizes), LARGEST_FILE)


def try_onnx(model: bytes, architecture: OnnxArchitecture) -> None:
    """Check and run a bundle's graph once in a process of its own. Raises BundleError if that does not go well."""
    require("an ONNX graph", PACKAGES, "onnx")
    task = architecture.model_dump(include={"num_classes", "size", "multiple_of", "output"})
    file = in_memory("model", model)
    try:
        found, _ = _examine("the model", file, None, len(model), task)
    finally:
        os.close(file)
    if found.architecture != architecture:
        raise BundleError(
            f"the model's graph is {found.architecture.title}, where model.json says {architecture.title}; import it"
            " again"
        )


def _examine(source: str, file: int, folder: int | None, size: int, task: dict[str, Any]) -> tuple[Examined, bytes]:
    written = in_memory("written", b"")
    files = [file, written] + ([] if folder is None else [folder])
    try:
        process = run_limited("fcn_core.inference.onnx_trial_main", files, {**task, "bytes": size}, _LONGEST_REPORT)
        if process.returncode != 0:
            raise BundleError(f"{source}: the ONNX graph {_what_is_wrong(process)}")
        try:
            found = Examined.model_validate(parse_json(process.stdout))
        except (ValueError, ValidationError) as error:
            raise BundleError(f"{source}: the ONNX graph has names that cannot be kept; export it again") from error
        length = os.fstat(written).st_size
        with os.fdopen(os.dup(written), "rb") as content:
            content.seek(0)
            return found, content.read(length)
    finally:
        os.close(written)


def _what_is_wrong(process: Any) -> str:
    said = printable(fault(process, "ONNX Runtime"))
    return said if process.returncode > 0 else f"is of no use: {said}"
