"""Cross-validation: a training for each fold of the training split, validated on the fold that it leaves out.

The one thing to know: each fold is a run of its own below OUTPUT/NAME, like any other. So the same command resumes the
one that was stopped, finds those before it finished, and makes the table when the last one is.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fcn_core.metrics import Scores
from pipeline.data.datasets import open_catalog, whole_split
from pipeline.data.groups import parse_part
from pipeline.errors import InputError
from pipeline.jobs.held_out import MOST_FOLDS, fold_parts
from pipeline.jobs.train import TrainJob
from pipeline.storage.opening import open_store
from pipeline.training.job import train
from pipeline.training.observer import TrainObserver
from pipeline.training.plan import pin_dataset
from pipeline.training.store import TrainStore

TABLE = "cross_validation.json"


class FoldScores(BaseModel):
    """One fold: its images, the training that left them out, and what its best model scores on them."""

    model_config = ConfigDict(frozen=True)

    fold: int
    train_images: int
    val_images: int
    uri: str
    model_id: str | None
    scores: Scores | None


class Spread(BaseModel):
    """Mean and sample standard deviation over the folds that have a value; None where there are too few."""

    model_config = ConfigDict(frozen=True)

    mean: float | None
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        found = [value for value in values if value is not None]
        mean = statistics.fmean(found) if found else None
        return cls(mean=mean, deviation=statistics.stdev(found) if len(found) > 1 else None)


class CrossValidation(BaseModel):
    """cross_validation.json: a row per fold, and mean and spread of the scores, those of each class by its name."""

    model_config = ConfigDict(frozen=True)

    split: str
    by: str
    folds: tuple[FoldScores, ...]
    mean_iou: Spread
    pixel_accuracy: Spread
    class_iou: dict[str, Spread]


@dataclass(frozen=True)
class CrossValidationReport:
    """What a call of `cross_validate` did. `table` is None until all folds are trained; `uri`: where they are."""

    state: Literal["finished", "interrupted"]
    uri: str
    folds_done: int
    table: CrossValidation | None


def cross_validate(
    job: TrainJob,
    folds: int,
    by: str = "image",
    observer: TrainObserver | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CrossValidationReport:
    """Cut `train_split` into so many folds of nearly equal size, and train once for each on all others.

    `by` says what is kept together: image (nothing), folder, prefix, or a column of the manifest. `val_split` takes no
    part. Raises what `train` raises, and InputError before the first step for folds that cannot be made.
    """
    observer = observer or TrainObserver()
    if not 2 <= folds <= MOST_FOLDS:
        raise InputError(f"{folds} folds cannot be trained; give 2 to {MOST_FOLDS}")
    if parse_part(job.train_split) is not None:
        raise InputError(
            f"train_split {job.train_split} is a part of a split already, which folds cannot be cut from; give the "
            "whole split, and leave groups out of val_split"
        )
    place = open_store(job.output).at(job.name)
    if TrainStore(place).load_run() is not None:
        raise InputError(f"{place.uri} holds a training; give the cross-validation another --name")
    jobs = [_fold_job(job, place.uri, number, folds, by) for number in range(1, folds + 1)]
    first = pin_dataset(jobs[0])
    jobs = [each.model_copy(update={"dataset": first.dataset}) for each in jobs]
    images = _images(jobs)
    done: list[FoldScores] = []
    for number, each in enumerate(jobs, 1):
        observer.note(
            f"fold {number} of {folds}: {images[number - 1][0]} images to train on, "
            f"{images[number - 1][1]} to validate on"
        )
        report = train(each, observer, should_stop)
        if report.state != "finished":
            return CrossValidationReport("interrupted", place.uri, len(done), None)
        done.append(
            FoldScores(
                fold=number,
                train_images=images[number - 1][0],
                val_images=images[number - 1][1],
                uri=report.uri,
                model_id=report.model_id,
                scores=report.scores,
            )
        )
    table = _table(job.train_split, by, done, open_catalog(first).labels.names)
    place.put(TABLE, table.model_dump_json(indent=1).encode())
    return CrossValidationReport("finished", place.uri, len(done), table)


def _fold_job(job: TrainJob, output: str, number: int, folds: int, by: str) -> TrainJob:
    try:
        to_train, to_validate = fold_parts(job.train_split, by, number, folds)
    except ValueError as error:
        raise InputError(str(error)) from error
    changes = {"name": f"fold-{number}-of-{folds}", "output": output, "train_split": to_train, "val_split": to_validate}
    return job.model_copy(update=changes)


def _images(jobs: list[TrainJob]) -> list[tuple[int, int]]:
    """Images to train and to validate on, by fold; all that cannot be made of the data set is found here."""
    catalog = open_catalog(jobs[0])
    return [
        (len(whole_split(catalog, job.train_split)), len(whole_split(catalog, job.val_split or ""))) for job in jobs
    ]


def _table(split: str, by: str, folds: list[FoldScores], classes: tuple[str, ...]) -> CrossValidation:
    scored = [fold.scores for fold in folds if fold.scores is not None]
    return CrossValidation(
        split=split,
        by=by,
        folds=tuple(folds),
        mean_iou=Spread.of(scores.mean_iou for scores in scored),
        pixel_accuracy=Spread.of(scores.pixel_accuracy for scores in scored),
        class_iou={
            name: Spread.of(scores.per_class_iou[index] for scores in scored) for index, name in enumerate(classes)
        },
    )
