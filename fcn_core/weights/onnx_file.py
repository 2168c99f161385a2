"""Somebody's ONNX file as a model bundle."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fcn_core.bundle import ModelBundle
from fcn_core.inference.onnx_trial import Examined, examine
from fcn_core.labels import LabelSet
from fcn_core.normalization import Normalization


@dataclass(frozen=True)
class ImportedOnnx:
    """The bundle, and what the file was found to be."""

    bundle: ModelBundle
    found: Examined


def import_onnx(
    path: Path,
    labels: LabelSet,
    normalization: Normalization,
    *,
    size: tuple[int, int] | None = None,
    multiple_of: int = 1,
    output: str | None = None,
) -> ImportedOnnx:
    """A bundle of the graph at `path`, which was run once. labels: the classes that it scores, in its order.

    normalization: of its input. size: (height, width) to which images are resized. multiple_of: to which they are
    padded instead. output: the name of an output, where it has several. Raises BundleError, in one sentence, for a file
    that is not run here.
    """
    found, model = examine(path, labels.num_classes, size=size, multiple_of=multiple_of, output=output)
    provenance = {
        "imported_from": path.name,
        "source": f"an ONNX graph of {found.nodes} operators, opset {found.opset}",
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    bundle = ModelBundle(found.architecture, labels, normalization, {}, provenance, onnx=model, graph_tried=True)
    return ImportedOnnx(bundle, found)
