"""Score one shard of a data set: fetch -> decode -> predict -> compare, with reading ahead of the model.

Knows nothing of Ray: the pool puts an `Evaluator` into an actor. Images go through the codec workers, as they do when
a bucket is labelled; a file that makes trouble is that example's error.

The one thing to know: batches are those of `fcn_core.inference.evaluation`, consecutive examples of the data
set, and shards begin where batches do. So the scores are those of one process, to the last bit, on any number of
actors.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fcn_core import PredictorSettings, Segmentation
from fcn_core.data.datasets import Pairs
from fcn_core.data.mask_coding import MaskError
from fcn_core.errors import DataError
from fcn_core.labels import VOID
from fcn_core.metrics import ConfusionMatrix
from fcn_core.render import SheetTile
from fcn_core.trained_on import pixel_digest
from pipeline.actors.buffer import Reservation, Share
from pipeline.actors.inference import ModelThread
from pipeline.actors.model_files import load_tried
from pipeline.actors.outcome import KILLED, ErrorExample, ShardOutcome, error_reason
from pipeline.actors.read_ahead import EXPANSION, ReadAhead
from pipeline.actors.stage_clock import StageClock
from pipeline.codec.images import Decoded
from pipeline.codec.processes import CodecPool
from pipeline.data.stored_files import StoredFiles
from pipeline.errors import ImageError, StorageError
from pipeline.evaluation.files import ClassScore, ExampleRow, images_table
from pipeline.evaluation.gallery import Gallery, ScoredExample
from pipeline.logfmt import key_values
from pipeline.numbers import score
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

log = logging.getLogger(__name__)

GUESSED_BYTES = 4 << 20
"""What an example is taken to need before it is fetched: the data set does not say how large its files are."""


@dataclass(frozen=True)
class EvaluatorSpec:
    """All that an actor needs to know beside model and data set. `shard_size` is a multiple of the batch size."""

    run_id: str
    settings: PredictorSettings
    shard_size: int
    worst: int
    max_pixels: int
    codec_workers: int
    image_timeout: float
    image_memory: int
    io_threads: int = 32
    buffer_bytes: int = 1 << 30


@dataclass(frozen=True)
class ShardScores:
    """What the driver hears of a shard.

    `table`: one row an example in the data set's order (IMAGES_SCHEMA); `confusion`: over those that are ok;
    `images`: their pixel digests.
    """

    outcome: ShardOutcome
    table: pa.Table
    confusion: ConfusionMatrix
    images: tuple[bytes, ...]
    worst: tuple[ScoredExample, ...]


@dataclass(frozen=True)
class _Loaded:
    """An example in memory, and what it is told apart by."""

    index: int
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    image_sha256: str
    truth_sha256: str
    memory: Reservation


@dataclass
class _Tally:
    """A shard's scores while they come in."""

    confusion: ConfusionMatrix
    gallery: Gallery
    rows: dict[int, ExampleRow] = field(default_factory=dict)
    errors: list[ErrorExample] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    pixels: int = 0


class Evaluator:
    """One model on one device and one data set, with its codecs."""

    def __init__(self, spec: EvaluatorSpec, files: Mapping[str, bytes], dataset: Pairs) -> None:
        """`files` are the bundle's, as `put_model` has handed them on: an int8 graph is not tried here.

        Raises DeviceError when this machine cannot do what `spec.settings` says, StorageError when it cannot reach the
        data set.
        """
        self.spec = spec
        self.dataset = dataset
        if isinstance(dataset.read, StoredFiles):
            # Better here, once, than as an error row for every example.
            dataset.read.places.root.check_readable()
        bundle = load_tried(files)
        self._names = bundle.labels.names
        self._clock = StageClock()
        self._model = ModelThread(bundle, spec.settings, self._clock)
        self._codecs = CodecPool(
            workers=spec.codec_workers,
            memory_limit_bytes=spec.image_memory,
            timeout_seconds=spec.image_timeout,
            max_pixels=spec.max_pixels,
        )
        self._reader = ReadAhead(spec.io_threads, spec.buffer_bytes)
        self._progress: dict[int, int] = {}

    def process(self, shard: Shard) -> ShardScores:
        """Score every example of `shard`; one that cannot be scored becomes a row with a reason.

        Raises StorageUnavailable when the storage does not answer: the shard can be tried again, anywhere.
        """
        started = time.monotonic()
        labels = self.dataset.labels
        tally = _Tally(ConfusionMatrix(labels.num_classes, labels.ignore_index), Gallery(self.spec.worst, labels))
        self._progress[shard.number] = 0

        def finish(index: int, row: ExampleRow) -> None:
            tally.rows[index] = row
            self._progress[shard.number] += 1
            if row.error is not None:
                tally.errors.append(ErrorExample(row.image, row.error, row.message or ""))

        try:
            with self._reader.buffer.share() as share:
                batches = self._batches(shard, finish, share)
                is_full = self._reader.buffer.is_full
                for batch, results in self._model.predict_each(batches, lambda item: Decoded(item.image, 1), is_full):
                    for example, result in zip(batch, results, strict=True):
                        if isinstance(result, ImageError):
                            finish(example.index, self._error_row(example.index, result))
                        else:
                            with self._clock("score"):
                                finish(example.index, self._score(example, result, tally))
                        example.memory.release()
                    del batch, example, result, results  # their pixels, while the next batch is awaited
        finally:
            self._progress.pop(shard.number, None)
        rows = [row for _, row in sorted(tally.rows.items())]
        outcome = ShardOutcome(
            shard=shard.number,
            images=len(rows),
            ok=len(rows) - len(tally.errors),
            errors=_count(tally.errors),
            examples=tuple(tally.errors),
            pixels=tally.pixels,
            stage_seconds=self._clock.take(),
            read_bytes=self._clock.take_bytes()[0],
            attempt=shard.attempt,
            seconds=time.monotonic() - started,
        )
        log.info("%s", key_values(run=self.spec.run_id, **outcome.for_log()))
        return ShardScores(outcome, images_table(rows), tally.confusion, tuple(tally.images), tally.gallery.examples())

    def probe(self, entry: ObjectInfo) -> None:
        """All of one example's work: fetch, decode, predict. Raises what goes wrong."""
        index = next(index for index, pair in enumerate(self.dataset.pairs) if pair.image == entry.key)
        with self._reader.buffer.alone(GUESSED_BYTES) as reservation:
            self._model.predict_one(Decoded(self._load(index, reservation).image, 1))

    def progress(self) -> dict[int, int]:
        """Examples finished so far in each shard at work."""
        return dict(self._progress)

    def busy_seconds(self) -> float:
        """How long the model has been at work so far."""
        return self._clock.total("predict")

    def close(self) -> None:
        """End the codec processes and the threads."""
        self._reader.close()
        self._model.close()
        self._codecs.close()

    def _batches(
        self, shard: Shard, finish: Callable[[int, ExampleRow], None], share: Share
    ) -> Iterator[list[_Loaded]]:
        """The shard's batches as the data set is cut into them; what cannot be loaded goes to `finish`."""
        first = shard.number * self.spec.shard_size
        wanted = []
        for index, entry in enumerate(shard.entries, first):
            if entry.key in shard.culprits:
                finish(index, self._error_row(index, ImageError("killed_worker", KILLED)))
            else:
                wanted.append(index)
        size = self.spec.settings.batch_size
        batch: list[_Loaded] = []
        for index, reservation, example in self._reader.in_order(wanted, lambda _: GUESSED_BYTES, self._load, share):
            if batch and batch[0].index // size != index // size:
                yield batch
                batch = []
            if isinstance(example, ImageError | StorageError):
                reservation.release()
                finish(index, self._error_row(index, example))
            else:
                batch.append(example)
            del example  # its pixels, while the next one is awaited
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _load(self, index: int, reservation: Reservation) -> _Loaded:
        """Runs in a reader's thread. Raises ImageError for whatever is wrong with image or mask."""
        pair = self.dataset.pairs[index]
        with self._clock("fetch"):
            try:
                data = self.dataset.read(pair.image)
            except (OSError, KeyError) as error:
                raise ImageError("missing", f"{pair.image} cannot be read ({error}).") from error
        self._clock.moved(read=len(data))
        if len(data) > self.spec.image_memory:
            raise ImageError(
                "file_too_large",
                f"The file has {len(data):,} bytes, more than the {self.spec.image_memory:,} that one image may take.",
            )
        reservation.resize(max(GUESSED_BYTES, len(data) * EXPANSION))
        self._reader.buffer.wait_for_room(reservation)
        with self._clock("decode"):
            image = self._codecs.decode_now(data).pixels
        with self._clock("truth"):
            truth = self._truth(index)
        if truth.shape != image.shape[:2]:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, truth.shape)]
            raise ImageError("size_mismatch", f"The image is {sizes[0]}, its mask {pair.mask} is {sizes[1]}.")
        reservation.resize(image.nbytes + 2 * truth.nbytes)
        return _Loaded(index, image, truth, hashlib.sha256(data).hexdigest(), _digest_of_truth(truth), reservation)

    def _truth(self, index: int) -> npt.NDArray[np.uint8]:
        try:
            return self.dataset.mask(index)
        except DataError as error:
            cause = error.__cause__
            if isinstance(cause, MaskError):
                reason = f"mask_{cause.fault}"
            else:
                reason = "mask_illegal_values" if cause is None else "mask_missing"
            raise ImageError(reason, f"{error}.") from error

    def _score(self, example: _Loaded, found: Segmentation, tally: _Tally) -> ExampleRow:
        """Count one example in, and show it to the gallery."""
        matrix = ConfusionMatrix(tally.confusion.num_classes, tally.confusion.ignore_index)
        matrix.update(example.truth, found.mask)
        tally.confusion.add(matrix)
        tally.pixels += found.mask.size
        tally.images.append(pixel_digest(example.image))
        scores = matrix.scores()
        pair = self.dataset.pairs[example.index]
        if scores.mean_iou is not None:
            note = f"mean IoU {score(scores.mean_iou)}, pixel accuracy {score(scores.pixel_accuracy)}"
            shown = np.where(found.mask == VOID, self.dataset.labels.ignore_index, found.mask).astype(np.uint8)
            tile = SheetTile(pair.name, example.image, shown, note, example.truth)
            tally.gallery.offer(scores.mean_iou, example.index, tile)
        return ExampleRow(
            name=pair.name,
            image=pair.image,
            mask=pair.mask,
            status="ok",
            width=found.mask.shape[1],
            height=found.mask.shape[0],
            labelled_pixels=scores.pixels,
            pixel_accuracy=scores.pixel_accuracy,
            mean_iou=scores.mean_iou,
            classes=_classes(matrix, self._names),
            confidence=found.confidence,
            image_sha256=example.image_sha256,
            truth_sha256=example.truth_sha256,
        )

    def _error_row(self, index: int, error: ImageError | StorageError) -> ExampleRow:
        pair = self.dataset.pairs[index]
        reason, message = error_reason(error)
        return ExampleRow(pair.name, pair.image, pair.mask, status="error", error=reason, message=message)


def _classes(matrix: ConfusionMatrix, names: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """The classes that are in an example's truth or prediction."""
    truths, intersections, unions = matrix.truths, matrix.intersections, matrix.unions
    return tuple(
        ClassScore(int(k), names[k], int(truths[k]), int(intersections[k]), int(unions[k]))
        for k in np.flatnonzero(unions)
    )


def _digest_of_truth(truth: npt.NDArray[np.uint8]) -> str:
    """Of what the mask says, not of the file: the same truth in another coding or compression is the same."""
    digest = hashlib.sha256(f"{truth.shape[1]}x{truth.shape[0]}\n".encode())
    digest.update(np.ascontiguousarray(truth).data)
    return digest.hexdigest()


def _count(errors: list[ErrorExample]) -> dict[str, int]:
    reasons = sorted(error.reason for error in errors)
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
