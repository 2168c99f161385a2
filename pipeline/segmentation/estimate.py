"""What a labelling job would do, ask for and cost, before it is done: `fcn segment --dry-run`.

Lists and selects as the job would, and sends ten of its images through the model and the codec on this machine. Nothing
is written: no lease, no plan, no mask; what the ten images gave is dropped.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from fcn_core import Predictor
from fcn_core.errors import DeviceError
from fcn_core.render import SheetTile, shrink
from pipeline.actors import cluster
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError, InputError, StorageError
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs import runs
from pipeline.outputs.lease import HEARTBEAT_SECONDS
from pipeline.outputs.lost_masks import lost_masks
from pipeline.outputs.mask_formats import MaskFormatName, mask_format
from pipeline.outputs.order import overtaken_by
from pipeline.outputs.plan import EARLIER, IMAGES_PER_PART, choose_shard_size
from pipeline.outputs.runs import RunRecord
from pipeline.report.changes import LOOK_BACK, of_other_variant
from pipeline.report.make import pictures_shown
from pipeline.report.pictures import GALLERY_BYTES, SIDE, layers_of
from pipeline.report.samples import RandomRows
from pipeline.segmentation.choice import container_filter
from pipeline.segmentation.job import MAX_AHEAD
from pipeline.segmentation.prepare import Inputs, ResolvedJob, check_inputs, resolve
from pipeline.segmentation.prices import Prices, RunCost, cost_of, read_prices
from pipeline.segmentation.selection import DoneIndex, SelectionCounts, nothing_chosen, select
from pipeline.segmentation.sources import objects_of
from pipeline.segmentation.where import kept_images
from pipeline.sources.expansion import Opened
from pipeline.sources.range_scanner import WINDOW_BYTES
from pipeline.storage.batches import LISTING_SCHEMA, to_batches, to_infos
from pipeline.storage.store import ObjectInfo

PROBED = 10
"""Images of the selection, by chance, that are sent through."""

LISTED_AT_ONCE = 1000
IO_THREADS = 32
ROW_BYTES = 420
"""A row of results and its part of class_areas, as Parquet holds them: about so much."""


@dataclass(frozen=True)
class Requests:
    """Requests to storage by the kinds that services price."""

    get: int
    put: int
    list: int

    def __add__(self, other: "Requests") -> "Requests":
        return Requests(self.get + other.get, self.put + other.put, self.list + other.list)


PAGE_BYTES = 100_000
"""A report without its pictures, about."""

REPORT = Requests(get=2, put=1, list=1)
"""What a report asks however many images it shows: the run's record, the page, the runs before."""

ONCE = Requests(get=3, put=12, list=12)
"""What a run asks however many its images are: checks, lease, plan, records, totals; about so much."""


@dataclass(frozen=True)
class Probe:
    """What the probed images took here, in seconds per image, and gave, in bytes of mask; each a mean.

    `failed` of the `images` have no mask, and no part in the means.
    """

    images: int
    failed: int
    fetch: float
    decode: float
    predict: float
    encode: float
    mask_bytes: float
    picture_bytes: float = 0.0
    """Of an image in the report."""


@dataclass(frozen=True)
class Estimate:
    """A job, foreseen. What needs a probe is None where there was none; `notes` say why, and what was assumed."""

    selection: SelectionCounts
    masks: str
    shards: int
    shard_size: int
    requests: Requests
    probe: Probe | None
    written_bytes: int | None
    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    images_per_second: float | None
    seconds: float | None
    cost: RunCost
    notes: tuple[str, ...]

    @property
    def images(self) -> int:
        """Images that would be labelled."""
        return self.selection.selected


def estimate(
    job: SegmentJob, prices: Prices | None = None, on_phase: Callable[[str], None] = lambda name: None
) -> Estimate:
    """Foresee what `segment(job)` would do. Writes nothing under the job's output.

    `prices` are by default those that come with the program. Raises what `segment` raises before any work.
    """
    prices = prices or read_prices()
    on_phase("checking inputs")
    inputs = check_inputs(job, writes=False)
    with ExitStack() as stack:
        if cluster.is_remote(job.ray_address):
            on_phase("connecting to Ray")
            stack.enter_context(cluster.connect(job.ray_address))
        resolved = resolve(job, inputs)
    on_phase("listing")
    opened = Opened()
    counts, chosen = _select(job, inputs, resolved, opened)
    size = job.shard_size or choose_shard_size(
        min(counts.selected, MAX_AHEAD, resolved.largest_shard * resolved.pool.actors * 8),
        resolved.pool.actors,
        resolved.largest_shard,
    )
    shards = math.ceil(counts.selected / size)
    actors = max(1, min(resolved.pool.actors, shards))
    probe, notes = None, [*resolved.notes, *_unfinished(inputs, resolved)]
    if chosen:
        on_phase(f"sending {len(chosen)} images through")
        try:
            probe = send_through(job, inputs, resolved, chosen)
        except DeviceError as error:
            notes.append(f"no images were sent through: this machine is not like the actors' ({error})")
    rate = None
    if probe is not None and probe.failed < probe.images:
        rate = actors * actor_rate(probe, resolved)
        notes.append(
            f"the time is that of {actors} actor(s) as fast as this machine, each with {resolved.pool.cpus:g} CPU and "
            f"{resolved.pool.gpus:g} GPU to itself, once they have started; images were predicted one at a time"
        )
    older = list(islice(runs.records(inputs.output), LOOK_BACK))
    earlier = of_other_variant(older, resolved.recipe.name, job.source)
    seconds = counts.selected / rate if rate else (0.0 if not counts.selected else None)
    requests = count_requests(job, counts, shards, seconds or 0.0, len(older), earlier, opened)
    if opened.containers:
        notes.append(
            f"{counts.in_containers:,} of the images are in {opened.containers:,} containers, which are read "
            "twice: for the plan, and for their images"
        )
    written = None
    if probe is not None:
        good = counts.selected * (1 - probe.failed / probe.images)
        written = written_bytes(counts.selected, good / max(1, counts.selected) * probe.mask_bytes, job.masks)
        if not job.no_report and counts.selected:
            pictures, _ = pictures_shown(round(good), compared=bool(earlier))
            written += PAGE_BYTES + min(GALLERY_BYTES, round(pictures * probe.picture_bytes))
    asked = {"get": requests.get, "put": requests.put, "list": requests.list}
    cost = cost_of(prices, asked, written or 0, seconds, actors, resolved.pool.cpus, resolved.pool.gpus)
    if seconds is not None and cost.machines is None:
        notes.append("no kind of machine in the prices is large enough for an actor")
    return Estimate(
        counts, job.masks, shards, size, requests, probe, written, actors, resolved.pool.cpus, resolved.pool.gpus,
        rate, seconds, cost, tuple(notes),
    )  # fmt: skip


def _select(
    job: SegmentJob, inputs: Inputs, resolved: ResolvedJob, opened: Opened
) -> tuple[SelectionCounts, list[ObjectInfo]]:
    """What the job would take, counted, and a few of it by chance."""
    counts = SelectionCounts()
    some = RandomRows(PROBED, seed=0)
    lost = lost_masks(inputs.output, resolved.recipe) if job.repair else ()
    done = DoneIndex.of(inputs.output, resolved.recipe, retry_errors=job.retry_errors, lost=lost)
    opens = container_filter(job.include, job.exclude)
    objects = objects_of(inputs.source, job.key_list, opens=opens, opened=opened, image_column=job.image_column)
    listing = to_batches(objects)
    ask = inputs.source if job.key_list is not None else None
    classes = inputs.bundle.labels.names
    with kept_images(inputs.output, resolved.recipe, classes, job.where, retry_errors=job.retry_errors) as kept:
        for batch in select(
            listing,
            include=job.include,
            exclude=job.exclude,
            done=done,
            counts=counts,
            limit=job.limit,
            ask=ask,
            kept=kept.look_up,
        ):
            some.offer(_to_segment(batch))
    nobodys = nothing_chosen(counts, inputs.source.uri, job.include, job.exclude)
    if nobodys is not None and not job.allow_empty:
        raise InputError(f"{nobodys}; --allow-empty makes that no error")
    rows = some.rows()
    return replace(counts), [] if rows is None else [info for part in rows.to_batches() for info in to_infos(part)]


def _unfinished(inputs: Inputs, resolved: ResolvedJob) -> list[str]:
    for record in runs.records(inputs.output):
        if record.job_digest == resolved.job_digest:
            if record.state == "finished" or overtaken_by(inputs.output, record.run_id) is not None:
                return []
            return [f"run {record.run_id} is unfinished and would be continued"]
    return []


def _to_segment(batch: pa.RecordBatch) -> pa.Table:
    """Without the reconfirmed images, whose rows are there."""
    table = pa.Table.from_batches([batch])
    if EARLIER[0].name in batch.schema.names:
        table = table.filter(pc.is_null(table[EARLIER[0].name]))
    return table.select(LISTING_SCHEMA.names)


def send_through(job: SegmentJob, inputs: Inputs, resolved: ResolvedJob, entries: list[ObjectInfo]) -> Probe:
    """Fetch, decode, predict and encode a few images one by one, and time it; the first goes twice, to warm up.

    Raises DeviceError when this machine cannot do what the actors will.
    """
    predictor = Predictor(inputs.bundle, resolved.settings)
    spent = [0.0] * 4
    size = failed = drawn = 0
    with CodecPool(
        workers=1, memory_limit_bytes=job.image_memory, timeout_seconds=job.image_timeout, max_pixels=job.max_pixels
    ) as codecs:
        for number, entry in enumerate([entries[0], *entries]):
            marks = [time.perf_counter()]
            try:
                data = inputs.source.get(entry.key, size=entry.size, etag=entry.etag)
                marks.append(time.perf_counter())
                image = codecs.decode_now(data, job.max_side)
                marks.append(time.perf_counter())
                mask = predictor.predict([image.pixels], sizes=[image.size])[0].mask
                marks.append(time.perf_counter())
                png = codecs.encode_now(mask, predictor.labels)
                marks.append(time.perf_counter())
            except (ImageError, StorageError):
                failed += number > 0
                continue
            if number:
                spent = [total + end - start for total, start, end in zip(spent, marks, marks[1:], strict=False)]
                size += len(png)
                if not job.no_report:
                    tile = shrink(SheetTile(entry.key, image.pixels, mask), SIDE)
                    drawn += sum(len(layer.uri) for layer in layers_of(tile, predictor.labels))
    good = max(1, len(entries) - failed)
    fetch, decode, predict, encode = (seconds / good for seconds in spent)
    return Probe(len(entries), failed, fetch, decode, predict, encode, size / good, drawn / good)


def actor_rate(probe: Probe, resolved: ResolvedJob) -> float:
    """Images per second of one actor in which stages overlap, each stage as fast as it was in the probe.

    On a CPU the model and the codecs share the cores, so their work adds up; a GPU works beside them.
    """
    codec = probe.decode + probe.encode
    if resolved.settings.device == "cpu":
        busy = probe.predict + codec / resolved.pool.cpus
    else:
        busy = max(probe.predict, codec / resolved.codec_workers)
    return 1 / max(busy, 2 * probe.fetch / IO_THREADS, 1e-6)


def written_bytes(images: int, mask_bytes: float, masks: MaskFormatName) -> int:
    """What a job leaves in storage, about: masks of so many bytes each, as `masks` has them, and rows."""
    return round(images * (mask_bytes + mask_format(masks).overhead_bytes + ROW_BYTES))


def count_requests(
    job: SegmentJob,
    counts: SelectionCounts,
    shards: int,
    seconds: float,
    older: int = 0,
    earlier: Sequence[RunRecord] = (),
    opened: Opened | None = None,
) -> Requests:
    """What the job would ask of storage: for images, shards, listing, what is live, and the report, which looks at
    `older` runs and compares with those in `earlier`. `opened` are the containers that were opened to list their
    members.
    """
    images = counts.selected
    opened = opened or Opened()
    objects = max(0, counts.listed - opened.members + opened.containers)
    listing = Requests(opened.requests, 0, math.ceil(objects / LISTED_AT_ONCE))
    if not images:
        return listing + ONCE
    beats = math.ceil(seconds / HEARTBEAT_SECONDS)  # each looks for another driver, and says that this one lives
    live = math.ceil(seconds / runs.PROGRESS_SECONDS) + beats
    # Each shard begins with a span of its own, and so does each container.
    spans = 0
    if counts.in_containers:
        begun = min(counts.in_containers, shards + opened.containers)
        spans = math.ceil(counts.bytes_in_containers / WINDOW_BYTES) + begun
    report = Requests(0, 0, 0)
    if not job.no_report:
        _, pictures = pictures_shown(images, compared=bool(earlier))
        before = older + sum(run.shards for run in earlier)
        report = REPORT + Requests(shards + pictures + before, 0, math.ceil(shards / LISTED_AT_ONCE) + len(earlier))
    return (
        ONCE
        + report
        + listing
        + Requests(
            get=images - counts.in_containers + spans,
            put=mask_format(job.masks).puts(images, shards) + 2 * shards + math.ceil(images / IMAGES_PER_PART) + live,
            # A shard looks before its commit whether another driver took over.
            list=shards + 2 * math.ceil(shards / LISTED_AT_ONCE) + beats,
        )
    )
