"""Looks at what the demo's runs left in the bucket: how good the masks are, what is where, what the pictures show.

Everything here is read back from the bucket, as anybody else would: masks from their PNGs, the rest from Parquet.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from rich.table import Table

from fcn_core.labels import LabelSet, Mask, decode_mask
from fcn_core.metrics import ConfusionMatrix, Scores
from fcn_core.render import SheetTile, contact_sheet
from pipeline.codec.processes import CodecPool
from pipeline.numbers import percent
from pipeline.outputs.current import read_current
from pipeline.outputs.masks import read_mask
from pipeline.outputs.results import ClassTotal, class_totals, read_class_totals
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

SHEET_COLUMNS = 3
SHEET_TILES = 12
_MAX_PIXELS = 1 << 24
_TABLES = ("results/", "class_areas/", "class_totals/", "runs/")


@dataclass(frozen=True)
class DemoImage:
    """An image that has a mask. `mean_iou` is its own, against its ground truth."""

    key: str
    mask: Mask
    confidence: float
    mean_iou: float


@dataclass(frozen=True)
class Refused:
    """An image that has none, and why."""

    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class Findings:
    """The state of the bucket: what is labelled, how well, and what could not be."""

    labelled: list[DemoImage]
    refused: list[Refused]
    scores: Scores
    true_shares: list[float]
    totals: list[ClassTotal]


def examine(
    output: Store,
    run_ids: Iterable[str],
    truth: Mapping[str, Mask],
    labels: LabelSet,
    progress: Callable[[float], None],
) -> Findings:
    """Read every current mask and compare it with its ground truth; add up the class areas of the runs.

    `progress` receives the share that is done, 0 to 1. Raises KeyError for a labelled image without ground truth.
    """
    rows = read_current(output, ["status", "error", "message", "mask_key", "confidence"]).to_pylist()
    everything = ConfusionMatrix(labels.num_classes)
    labelled, refused = [], []
    for done, row in enumerate(rows, 1):
        if row["status"] == "ok":
            mask = decode_mask(read_mask(output, row["mask_key"]))
            matrix = ConfusionMatrix(labels.num_classes)
            matrix.update(truth[row["key"]], mask)
            everything.add(matrix)
            labelled.append(DemoImage(row["key"], mask, row["confidence"], matrix.scores().mean_iou or 0.0))
        else:
            refused.append(Refused(row["key"], row["error"], row["message"]))
        progress(done / len(rows))
    in_truth = everything.counts.sum(axis=1)
    runs = [read_class_totals(output, run_id) for run_id in run_ids]
    totals = class_totals(
        labels.names,
        [sum(total.pixels for total in of_class) for of_class in zip(*runs, strict=True)],
        [sum(total.images for total in of_class) for of_class in zip(*runs, strict=True)],
    )
    return Findings(labelled, refused, everything.scores(), (in_truth / max(1, in_truth.sum())).tolist(), totals)


def class_table(findings: Findings) -> Table:
    """What each class covers, in truth and as found, and its IoU; largest first."""
    table = Table()
    for name in ("class", "pixels", "pixel share", "true pixel share", "images", "IoU"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for total in sorted(findings.totals, key=lambda total: -total.pixels):
        iou = findings.scores.per_class_iou[total.class_id]
        table.add_row(
            total.class_name,
            f"{total.pixels:,}",
            percent(total.fraction, 1),
            percent(findings.true_shares[total.class_id], 1),
            f"{total.images}",
            "-" if iou is None else f"{iou:.3f}",
        )
    return table


def refused_table(findings: Findings) -> Table:
    """The images without a mask, and why."""
    table = Table()
    for name in ("image", "reason", "message"):
        table.add_column(name, overflow="fold")
    for row in findings.refused:
        table.add_row(row.key, row.reason, row.message)
    return table


def draw_sheet(findings: Findings, source: Store, labels: LabelSet, title: str) -> Image.Image:
    """The contact sheet: uploads first, then scenes from the most to the least confident, each with its overlay."""
    tiles = []
    with CodecPool(1, max_pixels=_MAX_PIXELS) as codecs:  # uploads are anybody's
        for item in _selection(findings.labelled):
            image = codecs.decode_now(source.get(item.key)).pixels
            note = f"confidence {item.confidence:.2f}, mean IoU {item.mean_iou:.2f}"
            tiles.append(SheetTile(item.key, image, item.mask, note))
    return contact_sheet(tiles, labels, columns=SHEET_COLUMNS, title=title)


def _selection(labelled: list[DemoImage]) -> list[DemoImage]:
    """At most SHEET_TILES of them: the uploads, and scenes spread evenly over the range of confidence."""
    uploads = [item for item in labelled if item.key.startswith("uploads/")]
    scenes = sorted((item for item in labelled if item not in uploads), key=lambda item: -item.confidence)
    places = np.linspace(0, len(scenes) - 1, max(0, min(SHEET_TILES - len(uploads), len(scenes))))
    return uploads + [scenes[round(place)] for place in places]


def copy_tables(output: Store, folder: Path) -> None:
    """All tables and run records of `output`, to a local folder, under the same names."""
    target = open_store(str(folder))
    for prefix in _TABLES:
        for info in output.list(prefix):
            target.put(info.key, output.get(info.key))


def copy_images(source: Store, keys: Iterable[str], folder: Path) -> list[Path]:
    """Some images of the bucket, to a local folder, by their last names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for key in keys:
        paths.append(folder / PurePosixPath(key).name)
        paths[-1].write_bytes(source.get(key))
    return paths
