"""What an evaluation leaves behind: one row per example, the scores, the confusion matrix.

    OUTPUT/images.parquet    one row per example
    OUTPUT/confusion.csv     true classes by predicted classes, in pixels
    OUTPUT/worst.png         the examples with the lowest mean IoU: image, truth, prediction
    OUTPUT/index.html        the page for people
    OUTPUT/scores.json       all of it in numbers, and what was scored on what; written last, removed first

No times or host names inside: equal evaluations give equal bytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from fcn_core import PredictorSettings
from fcn_core.labels import void_name
from fcn_core.metrics import Scores
from pipeline.csv_text import csv_line
from pipeline.errors import StorageError
from pipeline.models.origin import ModelOrigin
from pipeline.outputs.identity import digest
from pipeline.outputs.seal import to_parquet
from pipeline.storage.store import Store

SCORES_FILE, IMAGES_FILE, CONFUSION_FILE, WORST_FILE = "scores.json", "images.parquet", "confusion.csv", "worst.png"
PAGE_FILE = "index.html"

CLASS_SCORE = pa.struct(
    [
        pa.field("class_id", pa.int16(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("truth_pixels", pa.int64(), nullable=False),
        pa.field("intersection_pixels", pa.int64(), nullable=False),
        pa.field("union_pixels", pa.int64(), nullable=False),
    ]
)

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("mask", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("labelled_pixels", pa.int64()),
        pa.field("pixel_accuracy", pa.float64()),
        pa.field("mean_iou", pa.float64()),
        pa.field("classes", pa.list_(CLASS_SCORE)),
        pa.field("confidence", pa.float32()),
        pa.field("image_sha256", pa.string()),
        pa.field("truth_sha256", pa.string()),
    ],
    metadata={"fcn_schema": "evaluation/2"},
)
"""One row per example, in the data set's order. See docs/evaluation.md for what each column means."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class in one example: pixels labelled so, those of them that were found, and those labelled or found."""

    class_id: int
    class_name: str
    truth_pixels: int
    intersection_pixels: int
    union_pixels: int


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """What is known of one example: status "ok" with scores, or "error" with a reason.

    Scores are None where no pixel is labelled. `truth_sha256` is of the class indices, not of the mask file.
    """

    name: str
    image: str
    mask: str
    status: str
    error: str | None = None
    message: str | None = None
    width: int | None = None
    height: int | None = None
    labelled_pixels: int | None = None
    pixel_accuracy: float | None = None
    mean_iou: float | None = None
    classes: tuple[ClassScore, ...] | None = None
    confidence: float | None = None
    image_sha256: str | None = None
    truth_sha256: str | None = None


class BrokenExample(BaseModel):
    """An example that could not be scored: `error` is a stable code, `message` the sentence for a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    error: str
    message: str


class EvaluationRecord(BaseModel):
    """scores.json: which model, on which examples, with which settings, and how good it is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    model: ModelOrigin
    model_id: str
    params_id: str
    """Digest of all settings that can change a mask."""
    settings: PredictorSettings
    dataset: str
    split: str
    classes: tuple[str, ...]
    examples: int
    """Examples that were scored."""
    examples_digest: str
    """Of their image files and their truth, wherever they lie and whatever they are called: see `same_examples`."""
    scores: Scores
    confusion: tuple[tuple[int, ...], ...]
    """Pixels of true class (row) that were given a class (column)."""
    void: tuple[int, ...] = ()
    """Pixels of each true class that were left void, which count as wrong; empty where none was."""
    errors: tuple[BrokenExample, ...] = ()
    trained_on: int | None = None
    """How many of the examples' images the model was trained on, by their pixels; None where it does not say."""

    @property
    def truths(self) -> npt.NDArray[np.int64]:
        """Annotated pixels of each class, int64 [C]."""
        counts = np.array(self.confusion, np.int64).sum(axis=1)
        return np.asarray(counts + np.array(self.void, np.int64)) if self.void else counts

    def same_examples(self, other: "EvaluationRecord") -> bool:
        """Whether both were scored on the same images against the same truth, so that their scores can be compared."""
        return self.examples_digest == other.examples_digest and self.classes == other.classes


def examples_digest(table: pa.Table) -> str:
    """Stands for the examples that were scored: 16 hexadecimal digits, of file contents and truth in any order."""
    columns = (table.column(name).to_pylist() for name in ("image_sha256", "truth_sha256"))
    return digest(sorted([image, truth] for image, truth in zip(*columns, strict=True) if image))


def broken_examples(table: pa.Table) -> tuple[BrokenExample, ...]:
    """The examples that could not be scored, in the table's order."""
    columns = (table.column(name).to_pylist() for name in ("name", "error", "message"))
    return tuple(
        BrokenExample(name=name, error=error, message=message)
        for name, error, message in zip(*columns, strict=True)
        if error
    )


def images_table(rows: Sequence[ExampleRow]) -> pa.Table:
    """`rows` as a table of IMAGES_SCHEMA."""

    def column(name: str) -> list[Any]:
        if name == "classes":
            return [None if row.classes is None else [asdict(score) for score in row.classes] for row in rows]
        return [getattr(row, name) for row in rows]

    return pa.table({name: column(name) for name in IMAGES_SCHEMA.names}, schema=IMAGES_SCHEMA)


def confusion_csv(confusion: npt.NDArray[np.int64], classes: Sequence[str], void: Sequence[int] = ()) -> bytes:
    """True classes down, predicted classes across, in pixels; last what was left void, if anything."""
    across = [*classes, *([void_name(classes)] if void else [])]
    counts = np.column_stack([confusion, void]) if void else confusion
    rows = ([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    return "".join(map(csv_line, (["truth", *across], *rows))).encode()


def write_evaluation(
    output: Store, record: EvaluationRecord, table: pa.Table, worst: bytes | None, page: str | None = None
) -> None:
    """Write an evaluation, replacing one that is there. Whoever finds scores.json finds the files that belong to it."""
    output.delete(SCORES_FILE)
    output.put(IMAGES_FILE, to_parquet(table))
    output.put(CONFUSION_FILE, confusion_csv(np.array(record.confusion, np.int64), record.classes, record.void))
    for name, data in ((WORST_FILE, worst), (PAGE_FILE, None if page is None else page.encode())):
        if data is None:
            output.delete(name)
        else:
            output.put(name, data)
    output.put(SCORES_FILE, record.model_dump_json(indent=2).encode())


def read_evaluation(output: Store) -> EvaluationRecord:
    """The record of an evaluation. Raises ObjectMissing when there is none, StorageError for one that is damaged."""
    try:
        return EvaluationRecord.model_validate_json(output.get(SCORES_FILE))
    except ValidationError as error:
        raise StorageError(
            f"{output.uri}: {SCORES_FILE} is not a record this version reads ({error.errors()[0]['msg']}); "
            "evaluate the model again"
        ) from error
