"""Score a model on annotated images it was not trained on: on the same actors, with the same code, as it labels.

`EvaluateJob` is the only definition of the options; `evaluate` does the whole job and can be called from anywhere. The
scores equal those of `fcn_core.inference.evaluation.evaluate` in one process with the same settings, exactly.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fcn_core import LabelSet, ModelBundle
from fcn_core.data.datasets import Pairs
from fcn_core.errors import DataError
from fcn_core.inference.evaluation import check_classes
from fcn_core.inference.settings import require_scores
from fcn_core.metrics import ConfusionMatrix, Scores
from pipeline.actors import cluster
from pipeline.actors.meter import Meter
from pipeline.actors.observer import Observer
from pipeline.actors.placement import Placement, place
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.shard_runner import ShardRunner, ShardWork
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.layouts import Missing
from pipeline.data.references import resolve
from pipeline.errors import InputError, PipelineError, StorageError, StorageUnavailable
from pipeline.evaluation import gallery
from pipeline.evaluation.evaluator import Evaluator, EvaluatorSpec, ShardScores
from pipeline.evaluation.files import (
    IMAGES_FILE,
    PAGE_FILE,
    WORST_FILE,
    BrokenExample,
    EvaluationRecord,
    ExampleRow,
    broken_examples,
    examples_digest,
    images_table,
    write_evaluation,
)
from pipeline.evaluation.gallery import ScoredExample
from pipeline.evaluation.page import evaluation_page
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.models.load import OpenedModel, open_model
from pipeline.numbers import score
from pipeline.outputs.plan import LARGEST_SHARD_CPU, choose_shard_size
from pipeline.outputs.shard import Shard
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store

NAMED_AT_MOST = 10
"""Broken examples that the one sentence names; the observer hears of all of them."""


class BrokenExamples(InputError):
    """Examples of the split cannot be scored. `errors` names all of them."""

    def __init__(self, message: str, errors: tuple[BrokenExample, ...]) -> None:
        super().__init__(message)
        self.errors = errors


class EvaluationStopped(PipelineError):
    """`should_stop` turned true; nothing was written."""


@dataclass(frozen=True)
class EvaluateReport:
    """What a model is worth. `confusion[t, p]`: pixels of true class t that were given class p, int64 [C, C].

    `table` has one row per example (see docs/evaluation.md). `per_image`, `contact_sheet`, `page`: keys under the job's
    output of that table, of the worst images, and of the HTML page; None where nothing was written.
    """

    record: EvaluationRecord
    confusion: npt.NDArray[np.int64]
    table: pa.Table
    per_image: str | None = None
    contact_sheet: str | None = None
    page: str | None = None

    def __repr__(self) -> str:
        record = self.record
        scored = f"model {record.model_id} on {record.examples:,} images of {record.split}"
        return f"<EvaluateReport mean IoU {score(record.scores.mean_iou)}: {scored}>"

    @property
    def scores(self) -> Scores:
        """Over the pixels of the whole split at once."""
        return self.record.scores

    @property
    def images(self) -> int:
        """Examples that were scored."""
        return self.record.examples

    @property
    def errors(self) -> tuple[BrokenExample, ...]:
        """Examples that were not, which only `allow_errors` lets pass."""
        return self.record.errors


def evaluate(
    job: EvaluateJob, observer: Observer | None = None, should_stop: Callable[[], bool] = lambda: False
) -> EvaluateReport:
    """Score a model on a split, and write what there is to know of it under `job.output`, if that is given.

    Raises InputError for what cannot be done as asked (BrokenExamples for examples that cannot be scored), before
    anything is written; EvaluationStopped when `should_stop` turned true; PipelineError when the machinery fails.
    """
    observer = observer or Observer()
    observer.phase("checking inputs")
    job = job.model_copy(update={"dataset": resolve(job.dataset)})
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(ShardRunner(job, Evaluator, observer, "evaluate"))
        inputs = _check_inputs(job, observer)
        if cluster.is_remote(job.ray_address):
            # What the actors' machines can do is asked there, so Ray comes first.
            observer.phase("connecting to Ray")
            stack.enter_context(cluster.connect(job.ray_address, observer.note))
        placement = place(job, on_note=observer.note, kind=inputs.model.bundle.kind)
        for note in placement.notes(inputs.model.bundle.model_id):
            observer.note(note)
        collected = _run(job, inputs, placement, observer, should_stop, runner)
    observer.phase("adding up")
    return _conclude(job, inputs, placement, collected)


@dataclass(frozen=True)
class _Inputs:
    """What an evaluation works with, opened and checked. `labels`: the model's, ignoring what the data set ignores."""

    model: OpenedModel
    dataset: Pairs
    labels: LabelSet
    missing: tuple[ExampleRow, ...]
    output: Store | None


def _check_inputs(job: EvaluateJob, observer: Observer) -> _Inputs:
    model = open_model(job.model, job.registry)
    require_scores(job.void_below, model.bundle.architecture)
    if model.origin.name is not None:
        observer.note(str(model.origin))
    output = _open_output(job.output) if job.output else None
    dataset, missing = _open_split(job)
    for note in _compare_labels(model.bundle, dataset):
        observer.note(note)
    labels = model.bundle.labels.model_copy(update={"ignore_index": dataset.labels.ignore_index})
    return _Inputs(model, dataset, labels, missing, output)


def _open_output(uri: str) -> Store:
    output = open_store(uri)
    try:
        output.check_writable()
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise InputError(str(error)) from error
    return output


def _open_split(job: EvaluateJob) -> tuple[Pairs, tuple[ExampleRow, ...]]:
    """The examples of the split that are there, and a row for each that is not, which is refused unless allowed."""
    options = job.dataset_options()
    if job.allow_errors:
        catalog = open_catalog(options)
        found = catalog.split(job.split)
        if found.missing and found.pairs and not found.duplicates:
            return catalog.pairs(found), tuple(_missing_rows(found.missing))
    return open_dataset(options, job.split), ()


def _missing_rows(missing: Iterable[Missing]) -> Iterator[ExampleRow]:
    for name, items in itertools.groupby(sorted(missing, key=lambda item: item.name), lambda item: item.name):
        where = {item.kind: item.place for item in items}
        message = "; ".join(f"the {kind} {place} is not there" for kind, place in where.items())
        yield ExampleRow(
            name, where.get("image", ""), where.get("mask", ""), status="error", error="missing", message=message
        )


def _compare_labels(bundle: ModelBundle, dataset: Pairs) -> Iterator[str]:
    """Refuse classes that cannot be the model's; a note where only their names differ."""
    try:
        check_classes(bundle, dataset)
    except DataError as error:
        raise InputError(str(error)) from error
    ours, theirs = bundle.labels.names, dataset.labels.names
    if ours == theirs:
        return
    if set(ours) == set(theirs):
        first = next(index for index in range(len(ours)) if ours[index] != theirs[index])
        raise InputError(
            f"the model and the data set have the same classes in another order: {first} is {ours[first]!r} to the "
            f"model and {theirs[first]!r} in the data set; evaluate the model on data with its own label set"
        )
    other = [f"{a!r} is {b!r}" for a, b in zip(ours, theirs, strict=True) if a != b]
    yield (
        f"the model names classes otherwise than the data set ({', '.join(other[:3])}{', ...' if other[3:] else ''}); "
        "they are taken to be the same by their numbers"
    )


def _run(
    job: EvaluateJob,
    inputs: _Inputs,
    placement: Placement,
    observer: Observer,
    should_stop: Callable[[], bool],
    runner: ShardRunner,
) -> "_Collected":
    examples = len(inputs.dataset)
    size = _shard_size(job, examples, placement)
    shards = -(-examples // size)
    run_id = f"evaluate-{job.split}"
    spec = EvaluatorSpec(
        run_id=run_id,
        settings=placement.settings,
        shard_size=size,
        worst=job.worst if inputs.output else 0,
        max_pixels=job.max_pixels,
        codec_workers=placement.codec_workers,
        image_timeout=job.image_timeout,
        image_memory=job.image_memory,
    )
    meter = Meter(run_id, examples, shards, observer, "evaluate")
    collected = _Collected(spec.worst)

    def shard_done(part: ShardScores) -> None:
        collected.add(part)
        meter.shard_done(part.outcome)

    def progressed(state: PoolProgress) -> None:
        meter.update(state)

    work = ShardWork(
        inputs.model.bundle,
        placement.settings,
        spec,
        placement.pool,
        images=examples,
        count=shards,
        shards=lambda: (shard for shard in _shards(inputs.dataset, size) if not collected.has(shard.number)),
        more=(inputs.dataset,),
    )
    if not runner.run("evaluating", work, shard_done, progressed, should_stop):
        raise EvaluationStopped("stopped before every example was scored; nothing was written")
    return collected


def _shard_size(job: EvaluateJob, examples: int, placement: Placement) -> int:
    """Examples per shard: a whole number of batches, so that batches do not depend on it."""
    size = job.shard_size or choose_shard_size(examples, placement.pool.actors, LARGEST_SHARD_CPU)
    batch = placement.settings.batch_size
    return -(-size // batch) * batch


def _shards(dataset: Pairs, size: int) -> Iterator[Shard]:
    """The data set in shards, whose entries carry the keys by which the pool tells images apart."""
    nothing = datetime.fromtimestamp(0, UTC)
    for number, first in enumerate(range(0, len(dataset), size)):
        pairs = dataset.pairs[first : first + size]
        yield Shard(number, tuple(ObjectInfo(pair.image, "", 0, nothing) for pair in pairs))


class _Collected:
    """What the shards gave, in whatever order they came: small numbers of each example, pictures only of the worst."""

    def __init__(self, worst: int) -> None:
        self._size = worst
        self._parts: dict[int, ShardScores] = {}
        self.worst: list[ScoredExample] = []

    def add(self, part: ShardScores) -> None:
        self._parts[part.outcome.shard] = replace(part, worst=())
        self.worst = gallery.worst([*self.worst, *part.worst], self._size)

    def has(self, shard: int) -> bool:
        return shard in self._parts

    def table(self) -> pa.Table:
        """One row per example, in the data set's order."""
        return pa.concat_tables(part.table for _, part in sorted(self._parts.items()))

    def images(self) -> Iterator[bytes]:
        """The pixel digests of all that were scored."""
        return itertools.chain.from_iterable(part.images for part in self._parts.values())

    def confusion(self, classes: int) -> ConfusionMatrix:
        matrix = ConfusionMatrix(classes)
        for part in self._parts.values():
            matrix.add(part.confusion)
        return matrix


def _conclude(job: EvaluateJob, inputs: _Inputs, placement: Placement, collected: _Collected) -> EvaluateReport:
    """Put the shards' scores together, refuse a split with broken examples, and write the rest."""
    table = pa.concat_tables([collected.table(), images_table(inputs.missing)])
    errors = broken_examples(table)
    scored = len(table) - len(errors)
    if errors and not (job.allow_errors and scored):
        raise BrokenExamples(_describe(job, errors, len(table)), errors)
    bundle = inputs.model.bundle
    matrix = collected.confusion(bundle.labels.num_classes)
    record = EvaluationRecord(
        model=inputs.model.origin,
        model_id=bundle.model_id,
        params_id=placement.recipe(bundle.model_id).params_id,
        settings=placement.settings,
        dataset=job.dataset,
        split=job.split,
        classes=bundle.labels.names,
        examples=scored,
        examples_digest=examples_digest(table),
        scores=matrix.scores(),
        confusion=tuple(tuple(counts) for counts in matrix.counts.tolist()),
        void=tuple(matrix.void.tolist()) if matrix.void.any() else (),
        errors=errors,
        trained_on=None if bundle.trained_on is None else bundle.trained_on.count(collected.images()),
    )
    report = EvaluateReport(record, matrix.counts, table)
    if inputs.output is None:
        return report
    title = f"The worst of {scored} images by mean IoU: image, truth, prediction"
    sheet = gallery.draw(collected.worst, inputs.labels, title) if collected.worst else None
    page = evaluation_page(record, table, collected.worst, inputs.labels)
    write_evaluation(inputs.output, record, table, sheet, page)
    return replace(report, per_image=IMAGES_FILE, contact_sheet=WORST_FILE if sheet else None, page=PAGE_FILE)


def _describe(job: EvaluateJob, errors: tuple[BrokenExample, ...], examples: int) -> str:
    named = ", ".join(f"{error.name} ({error.error})" for error in errors[:NAMED_AT_MOST])
    more = f" and {len(errors) - NAMED_AT_MOST} more" if len(errors) > NAMED_AT_MOST else ""
    remedy = "mend them (fcn data check says what is wrong with each)"
    if len(errors) < examples:
        remedy += " or leave them out with --allow-errors"
    return f"{len(errors)} of {examples} examples of split {job.split!r} cannot be scored: {named}{more}; {remedy}"
