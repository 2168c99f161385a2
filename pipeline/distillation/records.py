"""What a distillation keeps under OUTPUT/NAME beside what its parts keep there.

    distil.json        what it was begun as: source, teacher, sample, void_below
    sample.parquet     the images that the teacher segments, as a key list
    labels.json        the teacher's classes
    predictions.json   which run of the predictions the student learns from
    predictions/       the teacher's masks and tables, an output of `fcn segment`
    student/           the training
    int8/              the student in 8-bit integers
    evaluation/        scores of each model against each reference

The one thing to know: each of the four files is written once and never changed, so a distillation that goes on has the
same images, masks and classes as before.
"""

from typing import TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from fcn_core import LabelSet
from pipeline.distillation.sampling import Sample
from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.jobs.distil import DistilJob
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import to_parquet
from pipeline.storage.batches import LISTING_SCHEMA, to_batches
from pipeline.storage.store import Store, create_or_read

RECORD_FILE, SAMPLE_FILE, LABELS_FILE, PREDICTIONS_FILE = (
    "distil.json", "sample.parquet", "labels.json", "predictions.json",
)  # fmt: skip
PREDICTIONS, INT8 = "predictions", "int8"

M = TypeVar("M", bound=BaseModel)


class DistilRecord(BaseModel):
    """distil.json: what the sample and the predictions follow from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    source: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    sample: int
    teacher: str
    """The teacher's model_id."""
    void_below: float
    max_side: int | None


class Predictions(BaseModel):
    """predictions.json: the data set that the student is trained on, and how many images there are in it and were
    sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    sampled: int
    segmented: int


def begin(store: Store, job: DistilJob, source: str, teacher: str) -> DistilRecord:
    """Write what a distillation is begun as, or see that it is the same. Raises InputError where it is another."""
    record = DistilRecord(
        source=source, include=job.include, exclude=job.exclude, sample=job.sample, teacher=teacher,
        void_below=job.teaching.void_below, max_side=job.teaching.max_side,
    )  # fmt: skip
    data = create_or_read(store, RECORD_FILE, record.model_dump_json(indent=2).encode())
    found = _parsed(DistilRecord, data, f"{store.uri}/{RECORD_FILE}")
    for name in DistilRecord.model_fields:
        before, after = getattr(found, name), getattr(record, name)
        if before != after:
            raise InputError(
                f"{store.uri} holds another distillation: {name} was {before!r} and is {after!r}; give this one "
                "another --name, or the old options"
            )
    return found


def write_sample(store: Store, sample: Sample) -> None:
    """Keep the sample, unless there is one already."""
    table = pa.Table.from_batches(to_batches(sample.images), LISTING_SCHEMA)
    create_or_read(store, SAMPLE_FILE, to_parquet(table))


def sampled_keys(store: Store) -> list[str] | None:
    """The keys of the sample, sorted; None before there is one."""
    try:
        data = store.get(SAMPLE_FILE)
    except ObjectMissing:
        return None
    keys: list[str] = read_table(data, f"{store.uri}/{SAMPLE_FILE}", ["key"])["key"].to_pylist()
    return keys


def write_labels(store: Store, labels: LabelSet) -> None:
    """Keep the teacher's classes as a label set that training reads."""
    create_or_read(store, LABELS_FILE, labels.model_dump_json(indent=2).encode())


def read_predictions(store: Store) -> Predictions | None:
    """Which predictions the student learns from; None before the teacher is done."""
    try:
        return _parsed(Predictions, store.get(PREDICTIONS_FILE), f"{store.uri}/{PREDICTIONS_FILE}")
    except ObjectMissing:
        return None


def write_predictions(store: Store, predictions: Predictions) -> Predictions:
    """Keep them, or return those that were kept before."""
    data = create_or_read(store, PREDICTIONS_FILE, predictions.model_dump_json(indent=2).encode())
    return _parsed(Predictions, data, f"{store.uri}/{PREDICTIONS_FILE}")


def _parsed(kind: type[M], data: bytes, name: str) -> M:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise StorageError(f"{name} is no record of this version ({error.errors()[0]['msg']}); delete it") from error
