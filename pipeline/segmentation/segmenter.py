"""Segment one shard: fetch -> decode -> predict -> encode -> put -> commit, with the stages overlapped.

Knows nothing of Ray: the pool puts a `Segmenter` into an actor and calls `process` from two threads, so that one
shard's loading overlaps the other's end. I/O runs in threads, codecs in their own processes, the model in one place
at a time.

Batches depend on the shard alone, never on timing: images are taken in plan order and grouped by shape. So the same
shard gives the same bytes however fast the storage answered.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from fcn_core import LabelSet, Predictor, PredictorSettings, Segmentation
from fcn_core.inference.fit import snapped
from pipeline.actors.buffer import Reservation, Share
from pipeline.actors.inference import MakeModel, ModelThread
from pipeline.actors.model_files import load_tried
from pipeline.actors.outcome import KILLED, MAX_EXAMPLES, ErrorExample, ShardOutcome, error_reason
from pipeline.actors.read_ahead import EXPANSION, ReadAhead
from pipeline.actors.stage_clock import StageClock
from pipeline.codec.processes import CodecPool, DatedImage
from pipeline.codec.taken_at import TakenAt
from pipeline.errors import (
    ImageError,
    ShardRefused,
    StorageError,
    TakenOver,
)
from pipeline.logfmt import key_values
from pipeline.outputs.features import Features, write_features
from pipeline.outputs.identity import Recipe
from pipeline.outputs.lease import is_superseded
from pipeline.outputs.mask_formats import MaskFormatName, mask_format
from pipeline.outputs.mask_formats.base import MaskTarget, MaskWriter, PredictedMask
from pipeline.outputs.reconfirm import earlier_rows
from pipeline.outputs.results import MACHINE_ERRORS, ResultRow, commit_shard, tally
from pipeline.outputs.shard import Shard
from pipeline.segmentation.features import PredictorWithFeatures
from pipeline.segmentation.rows import identity_columns, segmented
from pipeline.sources.opening import open_source
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmenterSpec:
    """All that an actor needs to know, small enough to send anywhere. Holds no secret: nodes resolve their own."""

    source: str
    output: str
    run_id: str
    recipe: Recipe
    settings: PredictorSettings
    max_pixels: int
    codec_workers: int
    image_timeout: float
    image_memory: int
    masks: MaskFormatName = "objects"
    io_threads: int = 32
    buffer_bytes: int = 1 << 30
    max_side: int | None = None
    generation: int = 0
    lease: int | None = None
    """The number of the driver's lease, where it has one: whoever has a higher one does this work by now."""
    follow_links: bool = False
    log_images: bool = False
    features: bool = False


@dataclass(frozen=True)
class _Loaded:
    index: int
    entry: ObjectInfo
    image: DatedImage
    memory: Reservation


@dataclass(frozen=True)
class _Fetched:
    """An image, or why it is none, and its entry with the size that it has: of a row of a Parquet file the plan knows
    it about."""

    entry: ObjectInfo
    image: DatedImage | ImageError


class Segmenter:
    """One model on one device, with its codecs and its connections to storage."""

    def __init__(self, spec: SegmenterSpec, files: Mapping[str, bytes], make_model: MakeModel = Predictor) -> None:
        """`files` are the bundle's, as `put_model` has handed them on: an int8 graph is not tried here.

        Raises DeviceError when this machine cannot do what `spec.settings` says, StorageError when it cannot reach
        source or output: better here, once, than as an error row for every image.
        """
        bundle = load_tried(files)
        self.spec = spec
        self.labels: LabelSet = bundle.labels.of_masks(spec.settings.void_below)
        self.source = open_source(spec.source, follow_links=spec.follow_links)
        self.output = open_store(spec.output)
        self.source.check_readable()
        self.output.check_readable()
        self._clock = StageClock()
        self._codecs = CodecPool(
            workers=spec.codec_workers,
            memory_limit_bytes=spec.image_memory,
            timeout_seconds=spec.image_timeout,
            max_pixels=spec.max_pixels,
        )
        self._codecs.warm_up()
        try:
            make = PredictorWithFeatures if spec.features else make_model
            self._model = ModelThread(bundle, spec.settings, self._clock, make)
        except BaseException:
            self._codecs.close()
            raise
        self._reader = ReadAhead(spec.io_threads, spec.buffer_bytes)
        self._savers = ThreadPoolExecutor(spec.io_threads, "save")
        self._progress: dict[int, int] = {}

    def process(self, shard: Shard) -> ShardOutcome:
        """Segment every image of `shard` and commit it.

        An image that cannot be segmented becomes a row with a reason. Raises StorageUnavailable when the storage does
        not answer, in which case nothing is committed and the shard can be tried again, anywhere; and TakenOver where
        another driver has the output by now.
        """
        started = time.monotonic()
        rows: dict[int, ResultRow] = {}
        features: dict[int, Features] = {}
        saves: deque[tuple[int, Future[ResultRow | PredictedMask]]] = deque()
        target = MaskTarget(self.output, self.spec.recipe, self.labels, shard, self.spec.generation)
        writer, singly = mask_format(self.spec.masks).writer(target), mask_format("objects").writer(target)
        self._progress[shard.number] = 0

        def finish(index: int, row: ResultRow) -> None:
            rows[index] = row
            self._progress[shard.number] += 1

        def take(index: int, saved: ResultRow | PredictedMask) -> None:
            if isinstance(saved, ResultRow):
                finish(index, saved)
            elif writer.add(index, saved):
                finish(index, saved.row)  # the writer will say where the mask is
            else:
                saves.append((index, self._savers.submit(self._write, singly, saved)))

        try:
            for index, row in earlier_rows(self.output, self.spec.recipe, shard).items():
                finish(index, row)
            with self._reader.buffer.share() as share, self.source.expecting(shard.entries):
                images = self._load_in_order(shard, set(rows), finish, share)
                settings = self.spec.settings
                batches = group_by_shape(images, settings.batch_size, self.spec.buffer_bytes // 4, snap=settings.snap)
                is_full = self._reader.buffer.is_full
                for batch, results in self._model.predict_each(batches, lambda item: item.image, is_full):
                    for item, result in zip(batch, results, strict=True):
                        if isinstance(result, ImageError):
                            item.memory.release()
                            finish(item.index, self._error_row(item.entry, result))
                            continue
                        if result.features is not None:
                            features[item.index] = result.features
                        item.memory.resize(result.mask.nbytes)
                        about = item.image.orientation, item.image.taken_at
                        job = self._savers.submit(self._save, item.entry, about, result, item.memory, writer)
                        saves.append((item.index, job))
                    del batch, item, result, results  # their pixels, while the next batch is awaited
                    while saves and (len(saves) > self.spec.io_threads * 2 or saves[0][1].done()):
                        index, save = saves.popleft()
                        take(index, save.result())
                while saves:
                    index, save = saves.popleft()
                    take(index, save.result())
            rows |= self._finish(writer, singly)
            with self._clock("commit"):
                ordered = [rows[index] for index in range(len(shard.entries))]
                if not shard.insist:
                    refuse_if_of_the_moment(ordered)
                if self.spec.lease is not None and is_superseded(self.output, self.spec.lease):
                    raise TakenOver(self.output.uri)
                if self.spec.features:
                    seen = [(rows[index].key, rows[index].etag, each) for index, each in sorted(features.items())]
                    write_features(self.output, self.spec.run_id, shard.number, self.spec.recipe.model_id, seen)
                table = commit_shard(self.output, self.spec.run_id, shard.number, ordered)
        finally:
            self._progress.pop(shard.number, None)
        outcome = summarize(shard.number, table, self._clock.take(), self._clock.take_bytes())
        outcome = replace(outcome, attempt=shard.attempt, seconds=time.monotonic() - started)
        log.info("%s", key_values(run=self.spec.run_id, **outcome.for_log()))
        return replace(outcome, image_lines=_image_lines(table)) if self.spec.log_images else outcome

    def probe(self, entry: ObjectInfo) -> None:
        """All of one image's work but the writing: fetch, decode, predict, encode. Raises what goes wrong."""
        with self._reader.buffer.alone(_guess(entry)) as reservation:
            image = self._load(entry, reservation).image
            if isinstance(image, ImageError):
                raise image
            result = self._model.predict_one(image)
            self._codecs.encode_now(result.mask, self.labels)

    def progress(self) -> dict[int, int]:
        """Images finished so far in each shard at work."""
        return dict(self._progress)

    def busy_seconds(self) -> float:
        """How long the model has been at work so far."""
        return self._clock.total("predict")

    def close(self) -> None:
        """End the codec processes and the threads."""
        self._reader.close()
        self._savers.shutdown(wait=False, cancel_futures=True)
        self._model.close()
        self._codecs.close()

    def _load_in_order(
        self, shard: Shard, finished: Container[int], finish: Callable[[int, ResultRow], None], share: Share
    ) -> Iterator[_Loaded]:
        """Decoded images in plan order, read ahead as far as threads and buffer allow; failures go to `finish`."""
        wanted: list[tuple[int, ObjectInfo]] = []
        for index, entry in enumerate(shard.entries):
            if index in finished:
                continue
            if entry.key in shard.culprits:
                finish(index, self._error_row(entry, ImageError("killed_worker", KILLED)))
            else:
                wanted.append((index, entry))
        loaded = self._reader.in_order(
            wanted, lambda item: _guess(item[1]), lambda item, reservation: self._load(item[1], reservation), share
        )
        for (index, listed), reservation, fetched in loaded:
            entry, image = (fetched.entry, fetched.image) if isinstance(fetched, _Fetched) else (listed, fetched)
            if isinstance(image, ImageError | StorageError):
                reservation.release()
                finish(index, self._error_row(entry, image))
                continue
            yield _Loaded(index, entry, image, reservation)
            del fetched, image  # its pixels, while the next one is awaited

    def _load(self, entry: ObjectInfo, reservation: Reservation) -> _Fetched:
        if entry.size > self.spec.image_memory:
            raise ImageError(
                "file_too_large",
                f"The file has {entry.size:,} bytes, more than the {self.spec.image_memory:,} that one image may take.",
            )
        with self._clock("fetch"):
            data = self.source.get(entry.key, size=entry.size, etag=entry.etag)
        self._clock.moved(read=len(data))
        self._reader.buffer.wait_for_room(reservation)
        entry = replace(entry, size=len(data))
        try:
            with self._clock("decode"):
                image = self._codecs.decode_now(data, self.spec.max_side)
        except ImageError as error:
            return _Fetched(entry, error)
        reservation.resize(image.pixels.nbytes)
        return _Fetched(entry, image)

    def _save(
        self,
        entry: ObjectInfo,
        about: tuple[int, TakenAt | None],
        result: Segmentation,
        memory: Reservation,
        writer: MaskWriter,
    ) -> ResultRow | PredictedMask:
        """The image's row; or its mask, where that is written with others."""
        try:
            with self._clock("encode"):
                png = self._codecs.encode_now(result.mask, self.labels)
            self._clock.moved(written=len(png))
            return self._write(writer, segmented(entry, self.spec.recipe, *about, result, png, self.labels))
        except ImageError as error:
            return self._error_row(entry, error)
        finally:
            memory.release()

    def _write(self, writer: MaskWriter, image: PredictedMask) -> ResultRow | PredictedMask:
        with self._clock("put"):
            return writer.write(image) or image

    def _finish(self, writer: MaskWriter, singly: MaskWriter) -> dict[int, ResultRow]:
        """Have the writer write what it holds; what it could not is written one by one. Returns the rows."""
        with self._clock("put"):
            rows, rest = writer.finish()
        written = self._savers.map(lambda image: self._write(singly, image), rest.values())
        for index, row in zip(rest, written, strict=True):
            assert isinstance(row, ResultRow), "an object is written at once"
            rows[index] = row
        return rows

    def _error_row(self, entry: ObjectInfo, error: ImageError | StorageError) -> ResultRow:
        reason, message = error_reason(error)
        return ResultRow(**identity_columns(entry, self.spec.recipe), status="error", error=reason, message=message)


def refuse_if_of_the_moment(rows: Sequence[ResultRow]) -> None:
    """Raise ShardRefused where not one image could be read, and each for a reason that may be this machine's alone."""
    if rows and all(row.error in MACHINE_ERRORS for row in rows):
        raise ShardRefused(f"none of {len(rows)} images could be read; {rows[0].key}: {rows[0].message}")


def _guess(entry: ObjectInfo) -> int:
    return max(1 << 20, entry.size * EXPANSION)


def group_by_shape(
    images: Iterable[_Loaded], batch_size: int, limit_bytes: int, *, snap: int = 1
) -> Iterator[list[_Loaded]]:
    """Batches of images of one shape, at most `batch_size` each, from a stream in plan order. Shapes that are padded to
    the same multiples of `snap` are one.

    When more than `limit_bytes` are held back waiting for company, the group whose first image came first goes out
    unfilled. Depends only on the order and shapes of the images, so equal shards are batched alike.
    """

    def shape(item: _Loaded) -> tuple[int, int]:
        height, width = item.image.pixels.shape[:2]
        return snapped(height, snap), snapped(width, snap)

    groups: dict[tuple[int, int], list[_Loaded]] = {}
    held = 0
    for item in images:
        group = groups.setdefault(shape(item), [])
        group.append(item)
        held += item.image.pixels.nbytes
        while groups and (len(group) == batch_size or held > limit_bytes):
            ready = group if len(group) == batch_size else next(iter(groups.values()))
            del groups[shape(ready[0])]
            held -= sum(member.image.pixels.nbytes for member in ready)
            yield ready
            if ready is group:
                break
    yield from groups.values()


def _image_lines(table: pa.Table) -> tuple[dict[str, str], ...]:
    """A line per row, in the order of keys: what it became and where its mask is, or why it has none."""
    rows = table.select(["key", "status", "mask_key", "error", "message"]).to_pylist()
    return tuple({name: str(value) for name, value in row.items() if value is not None} for row in rows)


def summarize(
    shard: int, table: pa.Table, stage_seconds: Mapping[str, float], moved: tuple[int, int] = (0, 0)
) -> ShardOutcome:
    """The outcome of a committed shard, from the rows that were committed (which may be a rival's)."""
    rows = table.select(["key", "status", "error", "message", "width", "height"]).to_pylist()
    failed = [row for row in rows if row["status"] != "ok"]
    return ShardOutcome(
        shard=shard,
        images=len(rows),
        ok=len(rows) - len(failed),
        errors=Counter(str(row["error"]) for row in failed),
        examples=tuple(
            ErrorExample(str(row["key"]), str(row["error"]), str(row["message"])) for row in failed[:MAX_EXAMPLES]
        ),
        pixels=sum(int(row["width"]) * int(row["height"]) for row in rows if row["status"] == "ok"),
        tally=tally(table),
        stage_seconds=stage_seconds,
        read_bytes=moved[0],
        written_bytes=moved[1],
    )
