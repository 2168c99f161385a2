"""A labelling job from its options to its report: prepare, finish what was left, plan what is new, run, derive, judge.

`SegmentJob` is the only definition of a job's options: the command line, `--config` files and the Prefect form are made
from it. `segment` does the whole job and can be called from anywhere; it is what makes "the same command again" safe.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa

from pipeline.actors import cluster
from pipeline.actors.meter import Meter
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.actors.shard_runner import ShardRunner, ShardWork
from pipeline.errors import InputError, StorageError, TakenOver
from pipeline.jobs.places import absolute_places
from pipeline.jobs.segment import SegmentJob
from pipeline.numbers import differing_percent
from pipeline.outputs import runs
from pipeline.outputs.compact import compact, is_due
from pipeline.outputs.generation import current_generation
from pipeline.outputs.identity import Identity, Recipe
from pipeline.outputs.index import CommittedResults, read_history
from pipeline.outputs.lease import Lease, WatchStopped
from pipeline.outputs.lost_masks import lost_masks
from pipeline.outputs.order import new_run_id, overtaken_by
from pipeline.outputs.plan import PlanManifest, choose_shard_size, read_manifest, read_shards, require_plan, write_plan
from pipeline.outputs.reconfirm import commit_reconfirmed
from pipeline.outputs.redo import write_where
from pipeline.outputs.results import RunTally, committed_shards, finish_tables, tally
from pipeline.outputs.runs import Counts, ProgressWriter, RunRecord
from pipeline.outputs.standing import begin_attempt, count_committed, counts_of, end_attempt
from pipeline.report.make import write_report
from pipeline.segmentation.choice import container_filter
from pipeline.segmentation.prepare import Inputs, ResolvedJob, check_inputs, resolve
from pipeline.segmentation.run_report import RunReport
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec
from pipeline.segmentation.selection import DoneIndex, SelectionCounts, nothing_chosen, select
from pipeline.segmentation.sources import objects_of
from pipeline.segmentation.where import KeptImages, kept_images
from pipeline.storage.batches import to_batches
from pipeline.storage.store import ObjectInfo

MAX_AHEAD = 1_000_000
"""Listed objects held in memory at most, as Arrow batches of some 100 MB, while the shard size is chosen."""

ABORT_AFTER_IMAGES = 100
"""`abort_error_rate` is not applied before so many images are done: a few bad ones at the start say nothing."""


def segment(
    job: SegmentJob, observer: Observer | None = None, should_stop: Callable[[], bool] = lambda: False
) -> RunReport:
    """Do a labelling job, whole: what an unfinished run of the same job left over, then all that is new.

    Stops early, resumably, when `should_stop` turns true. Raises InputError before any work for what cannot be done as
    asked, and PipelineError when a run fails on its way; the same call again then goes on where it ended.
    """
    observer = observer or Observer()
    with ShardRunner(job, Segmenter, observer) as runner:
        observer.phase("checking inputs")
        inputs = check_inputs(job)
        try:
            held = Lease.acquire(inputs.output, takeover=job.takeover, on_note=observer.note, should_stop=should_stop)
        except WatchStopped:
            return RunReport("interrupted", (), SelectionCounts(), Counts(), job.max_error_rate)
        with held as lease:
            return _Driver(job, inputs, observer, should_stop, lease, runner).work()


class _Stopped(Exception):
    """`should_stop` turned true, or the job gave up. What is committed stays; a plan that was being made does not."""


class _Driver:
    """One call of `segment`, with what its steps share."""

    def __init__(
        self,
        job: SegmentJob,
        inputs: Inputs,
        observer: Observer,
        should_stop: Callable[[], bool],
        lease: Lease,
        runner: ShardRunner,
    ) -> None:
        self._job = job
        self._lease = lease
        self._runner = runner
        self._inputs = inputs
        self._output = inputs.output
        self._observer = observer
        self._asked_to_stop = should_stop
        self._selection = SelectionCounts()
        self._finished: list[RunRecord] = []
        self._overtaken: RunRecord | None = None
        self._reports: list[str] = []
        self._aborted: str | None = None
        self._seen = RunTally()

    def work(self) -> RunReport:
        if not cluster.is_remote(self._job.ray_address):
            return self._work(resolve(self._job, self._inputs, self._observer.note))
        # What the actors' machines can do is asked there, so Ray comes first.
        self._observer.phase("connecting to Ray")
        with cluster.connect(self._job.ray_address, self._observer.note):
            return self._work(resolve(self._job, self._inputs, self._observer.note))

    def _work(self, resolved: ResolvedJob) -> RunReport:
        for note in resolved.notes:
            self._observer.note(note)
        try:
            leftover = None if self._job.fresh else self._unfinished(resolved)
            if leftover is not None:
                self._observer.note(f"resuming run {leftover[0].run_id}")
                self._run(*leftover, resolved)
            planned = self._plan(resolved)
            if planned is not None:
                self._run(*planned, resolved, new=True)
        except _Stopped:
            return self._report("interrupted")
        return self._report("finished")

    def _should_stop(self) -> bool:
        return self._asked_to_stop() or self._lease.lost

    def _check_stop(self) -> None:
        """Raise _Stopped when asked to stop, and TakenOver when another driver took over."""
        if self._lease.lost:
            raise TakenOver(self._output.uri)
        if self._asked_to_stop():
            raise _Stopped

    def _unfinished(self, resolved: ResolvedJob) -> tuple[RunRecord, PlanManifest] | None:
        for record in runs.records(self._output):
            if record.job_digest == resolved.job_digest:
                if record.state == "finished":
                    return None
                manifest = read_manifest(self._output, record.run_id)
                if manifest is None:
                    return None
                newer = overtaken_by(self._output, record.run_id)
                # One that has committed everything is only closed.
                if newer is None or len(committed_shards(self._output, record.run_id)) == manifest.shards:
                    return record, manifest
                self._overtaken = record
                self._observer.note(
                    f"run {record.run_id} is not resumed, because run {newer} has committed since; what it left over "
                    "is planned anew"
                )
                return None
        return None

    def _plan(self, resolved: ResolvedJob) -> tuple[RunRecord, PlanManifest] | None:
        """List, leave out what is done, write the plan of a new run; None when nothing is left to do."""
        job = self._job
        # What a leftover run did counts: towards the limit, and as the retry that was asked for.
        unfinished = [*self._finished, *([self._overtaken] if self._overtaken else [])]
        limit = job.limit
        if limit is not None:
            limit -= sum(record.images for record in self._finished)
            if self._overtaken is not None:
                limit -= counts_of(count_committed(self._output, self._overtaken.run_id)).images
        if limit is not None and limit <= 0:
            return None
        self._observer.phase("listing")
        done = DoneIndex.of(
            self._output,
            resolved.recipe,
            history=self._history(),
            retry_errors=job.retry_errors,
            settled={record.run_id for record in unfinished},
            lost=self._lost(resolved) if job.repair else (),
            on_file=self._check_stop,
        )
        with kept_images(
            self._output,
            resolved.recipe,
            self._inputs.bundle.labels.names,
            job.where,
            retry_errors=job.retry_errors,
        ) as kept:
            return self._plan_of(resolved, done, kept, limit)

    def _plan_of(
        self, resolved: ResolvedJob, done: DoneIndex, kept: KeptImages, limit: int | None
    ) -> tuple[RunRecord, PlanManifest] | None:
        job = self._job
        chosen = select(
            self._watched(to_batches(self._objects())),
            include=job.include,
            exclude=job.exclude,
            done=done,
            counts=self._selection,
            limit=limit,
            ask=self._inputs.source if job.key_list is not None else None,
            kept=kept.look_up,
        )
        # A shard size that fits small jobs needs their number; a job longer than this has the largest size anyway.
        enough = 1 if job.shard_size else min(MAX_AHEAD, resolved.largest_shard * resolved.pool.actors * 8)
        ahead, images = [], 0
        while images < enough and (batch := next(chosen, None)) is not None:
            ahead.append(batch)
            images += len(batch)
        if images < enough:  # all of it
            nobodys = nothing_chosen(self._selection, self._inputs.source.uri, job.include, job.exclude)
            if nobodys is not None and not job.allow_empty:
                raise InputError(f"{nobodys}; --allow-empty makes that no error")
        if not ahead:
            return None
        # The count is cut off, so that how the listing came in batches makes no difference.
        size = job.shard_size or choose_shard_size(min(images, enough), resolved.pool.actors, resolved.largest_shard)
        run_id = new_run_id(self._output)
        manifest = write_plan(self._output, run_id, itertools.chain(ahead, chosen), size)
        if job.where is not None:
            write_where(self._output, run_id, job.where)
        record = RunRecord(
            run_id=run_id,
            state="running",
            job=absolute_places(job).model_dump(mode="json"),  # the record is read from other folders, too
            job_digest=resolved.job_digest,
            model_id=resolved.recipe.model_id,
            params_id=resolved.recipe.params_id,
            model=self._inputs.origin,
            recipe=resolved.recipe.name,
            settings=resolved.settings,
            images=manifest.images,
            shards=manifest.shards,
            # Asked for once the plan is there, and not before: who removes masks counts first and looks for plans then.
            generation=current_generation(self._output),
            started=datetime.now(UTC),
            version=version("fcn-pipeline"),
        )
        return record, manifest

    def _lost(self, resolved: ResolvedJob) -> Collection[Identity]:
        self._observer.phase("looking for lost masks")
        lost = lost_masks(self._output, resolved.recipe, self._check_stop)
        self._observer.note(f"{len(lost):,} images that are done have lost their masks, and are segmented again")
        self._observer.phase("listing")
        return lost

    def _history(self) -> CommittedResults:
        """What is committed; compacted first where reading all of it would take long."""
        history = read_history(self._output)
        if is_due(history):
            self._observer.phase("compacting")
            try:
                compact(self._output, self._check_stop)
            except (StorageError, OSError) as error:
                # Nothing depends on an index; without one the same is read the long way.
                self._observer.note(f"the results could not be compacted ({error}); `fcn compact` tries again")
            else:
                history = read_history(self._output)
            self._observer.phase("listing")
        return history

    def _objects(self) -> Iterator[ObjectInfo]:
        opens = container_filter(self._job.include, self._job.exclude)
        return objects_of(self._inputs.source, self._job.key_list, opens=opens, image_column=self._job.image_column)

    def _watched(self, listing: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in listing:
            self._check_stop()
            yield batch

    def _run(self, record: RunRecord, manifest: PlanManifest, resolved: ResolvedJob, *, new: bool = False) -> None:
        """Work through a plan and close its record. Raises _Stopped when it was stopped on the way."""
        started = time.monotonic()
        record, self._seen = begin_attempt(self._output, record, self._lease.number)
        self._lease.check()  # by now, planning may have taken hours
        (runs.create_record if new else runs.write_record)(self._output, record)
        require_plan(self._output, record.run_id, manifest)

        def close(state: runs.RunState, reason: str | None = None) -> None:
            closed = end_attempt(record, self._seen, time.monotonic() - started, state, reason)
            stages = {name: record.stage_seconds.get(name, 0.0) + more for name, more in meter.stage_seconds.items()}
            stages = {name: round(seconds, 3) for name, seconds in (record.stage_seconds | stages).items()}
            closed = closed.model_copy(update={"lost_output": self._observer.lost_output(), "stage_seconds": stages})
            self._finished.append(closed)
            runs.write_record(self._output, closed)

        meter = Meter(record.run_id, manifest.images, manifest.shards, self._observer)
        try:
            if manifest.reconfirmed:
                self._reconfirm(record, manifest)
            meter.start(counts_of(self._seen), len(self._seen.shards))
            if not self._run_shards(record, manifest, resolved, meter):
                self._check_stop()
                raise _Stopped(self._aborted or "")
            self._observer.phase("writing tables")
            labels = self._inputs.bundle.labels
            finish_tables(self._output, record.run_id, labels.names, record.model_id, record.params_id, self._seen)
            self._lease.check()  # a successor has found all done, and closed the record with an attempt of its own
        except BaseException as error:
            # Another driver's run is not ours to describe, and a record that cannot be written must not hide the error.
            if self._lease.is_held():
                stopped = not isinstance(error, Exception) or isinstance(error, _Stopped)
                with contextlib.suppress(StorageError):
                    # Also what actors committed without being heard.
                    count_committed(self._output, record.run_id, self._seen)
                try:
                    close("interrupted" if stopped else "failed", str(error) or "stopped on request")
                except StorageError as unwritten:
                    self._observer.note(
                        f"the record of run {record.run_id} could not be written ({unwritten}), so it says running "
                        "though it has ended; the same command resumes it once that is mended"
                    )
            raise
        close("finished")
        if not self._job.no_report:
            self._write_report(record.run_id)

    def _write_report(self, run_id: str) -> None:
        """Make the run's HTML report. The run is done: whatever goes wrong here is a note, never a failure."""
        self._observer.phase("making the report")
        try:
            self._reports.append(write_report(self._output, run_id))
        except Exception as error:
            self._observer.note(f"the report of run {run_id} could not be made ({error}); `fcn report` tries again")

    def _reconfirm(self, record: RunRecord, manifest: PlanManifest) -> None:
        """Commit the shards, up to the first that has anything to segment, that only say again what is known.

        Actors do the others. Where all are of this kind no Ray is started, and no model is loaded.
        """
        self._observer.phase("reconfirming")
        recipe = Recipe(record.model_id, record.params_id)
        for shard in read_shards(self._output, record.run_id, manifest, but=set(self._seen.shards)):
            self._check_stop()
            self._lease.check()
            table = commit_reconfirmed(self._output, record.run_id, recipe, shard)
            if table is None:
                return
            self._seen.add(shard.number, tally(table))

    def _run_shards(self, record: RunRecord, manifest: PlanManifest, resolved: ResolvedJob, meter: Meter) -> bool:
        committed = self._seen.shards
        left = manifest.shards - len(committed)
        if not left:
            return True
        spec = SegmenterSpec(
            source=self._inputs.source.uri,
            output=self._output.uri,
            run_id=record.run_id,
            recipe=Recipe(record.model_id, record.params_id),
            settings=resolved.settings,
            max_pixels=self._job.max_pixels,
            codec_workers=resolved.codec_workers,
            image_timeout=self._job.image_timeout,
            image_memory=self._job.image_memory,
            masks=self._job.masks,
            max_side=self._job.max_side,
            generation=record.generation,
            lease=self._lease.number,
            follow_links=self._job.follow_links,
            log_images=self._job.log_images,
            features=self._job.features,
        )
        work = ShardWork(
            self._inputs.bundle,
            resolved.settings,
            spec,
            resolved.pool,
            images=manifest.images - counts_of(self._seen).images,
            count=left,
            shards=lambda: read_shards(self._output, record.run_id, manifest, but=set(committed)),
        )
        writer = ProgressWriter(self._output, runs.progress_key(record.run_id))
        try:
            return self._runner.run(
                "segmenting",
                work,
                on_done=lambda outcome: self._shard_done(meter, outcome),
                on_progress=lambda state: writer.update(meter.update(state)),
                should_stop=lambda: self._aborted is not None or self._should_stop(),
            )
        finally:
            writer.close()

    def _shard_done(self, meter: Meter, outcome: ShardOutcome) -> None:
        meter.shard_done(outcome)
        self._seen.add(outcome.shard, outcome.tally)
        # Of this attempt alone: what made an earlier one end may be mended.
        counts, limit = meter.here, self._job.abort_error_rate
        if counts.images >= ABORT_AFTER_IMAGES and counts.error_rate > limit:
            failed, allowed = differing_percent(counts.error_rate, limit)
            self._aborted = (
                f"{counts.failed} of the first {counts.images} images failed: {failed}, more than abort_error_rate "
                f"{allowed} allows"
            )

    def _report(self, state: runs.RunState) -> RunReport:
        counts = sum((record.counts for record in self._finished), Counts())
        return RunReport(
            state,
            tuple(self._finished),
            replace(self._selection),
            counts,
            self._job.max_error_rate,
            tuple(self._reports),
            self._aborted,
        )
