"""A training job from its options to its model: check, plan or take up again, train each stage on Ray Train, judge.

`train` does the whole job and can be called from anywhere. The same job again goes on where it ended, and a finished
one has nothing to do.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import Any

from fcn_core import ModelBundle
from fcn_core.data.class_pixels import ClassPresence, class_pixels
from fcn_core.metrics import Scores
from fcn_core.models.networks import ArchName
from fcn_core.trained_on import TrainedOn
from fcn_core.training.config import LoopPlan
from pipeline.actors import cluster
from pipeline.data.report import SplitContent, warning_lines
from pipeline.errors import InputError, PipelineError, StorageError
from pipeline.jobs.train import TrainJob
from pipeline.outputs.lease import Lease, WatchStopped
from pipeline.training.curves import Curves
from pipeline.training.following import GroupFollower
from pipeline.training.group import Group
from pipeline.training.group_spec import GroupSpec
from pipeline.training.mlflow_run import followed
from pipeline.training.observer import BegunTraining, TrainObserver
from pipeline.training.page import TrainingPage, training_page
from pipeline.training.placement import check_fits, resolve_group
from pipeline.training.plan import (
    TrainInputs,
    check_inputs,
    check_same,
    check_same_content,
    counts_classes,
    files_changed,
    look_through,
    new_run,
    next_start,
    pin_dataset,
    restored_presence,
)
from pipeline.training.progress import WorkerOutcome, now
from pipeline.training.records import TrainRecord, TrainRun
from pipeline.training.report import TrainReport
from pipeline.training.store import PAGE, TrainStore
from pipeline.training.worker import TrainWorkerSpec


def train(
    job: TrainJob,
    observer: TrainObserver | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    contents: Mapping[str, SplitContent] | None = None,
) -> TrainReport:
    """Do a training job, whole, or what is left of it. `contents`: of its splits, from whoever has just checked them;
    they are not read once more then.

    Stops early, resumably, when `should_stop` turns true. Raises InputError for what cannot be done as asked, and
    PipelineError when the run fails on its way; the same call again then goes on from the newest checkpoint.
    """
    observer = followed(observer or TrainObserver())
    observer.phase("checking inputs")
    job = pin_dataset(job)
    inputs = check_inputs(job)
    try:
        held = Lease.acquire(inputs.output, takeover=job.takeover, on_note=observer.note, should_stop=should_stop)
    except WatchStopped:
        return TrainReport("interrupted", job.name, inputs.output.uri, False, None, None, None, 0, 0.0, 0)
    with held as lease:
        return _Driver(job, inputs, observer, should_stop, lease, contents).work()


class _StoppedEarly(Exception):
    """`should_stop` turned true before there was a run."""


class _Driver:
    """One call of `train`, with what its steps share."""

    def __init__(
        self,
        job: TrainJob,
        inputs: TrainInputs,
        observer: TrainObserver,
        should_stop: Callable[[], bool],
        lease: Lease,
        contents: Mapping[str, SplitContent] | None,
    ) -> None:
        self._job = job
        self._contents = contents
        self._inputs = inputs
        self._observer = observer
        self._asked_to_stop = should_stop
        self._lease = lease
        self._store = TrainStore(inputs.output)
        self._follower: GroupFollower | None = None

    def work(self) -> TrainReport:
        private = not cluster.is_remote(self._job.ray_address)
        if private:
            check_fits(self._job, cluster.nodes()[0])
        try:
            run = self._begin()
        except _StoppedEarly:
            return self._report(self._save_record(state="interrupted", started=now(), reason="stopped on request"))
        self._observer.begun(BegunTraining(self._job, run, self._store.store.uri, lambda: self._curves(run)))
        before = self._store.load_record()
        if before is not None and before.state == "finished":
            self._restore_model(run)
            self._observer.ended(before, self._store.load_model)
            return self._report(before, nothing_to_do=True)
        started = before.started if before else now()
        self._save_record(state="running", started=started)
        try:
            with cluster.connect(self._job.ray_address, self._observer.note):
                last = self._train_stages(run, private)
        except BaseException as error:
            # Another driver's run is not ours to describe, and a record that cannot be written must not hide the error.
            if self._lease.is_held():
                state = "failed" if isinstance(error, Exception) else "interrupted"
                reason = str(error) or type(error).__name__
                try:
                    record = self._save_record(state=state, started=started, reason=reason, step=self._step_kept(run))
                    self._observer.ended(record, self._store.load_model)
                except StorageError as unwritten:
                    self._observer.note(
                        f"the record of training {self._job.name} could not be written ({unwritten}), so it says "
                        "running though it has ended; the same command resumes it once that is mended"
                    )
            raise
        # Looked at now: the last heartbeat may be ten seconds old, and a successor's record is not ours to replace.
        self._lease.check()
        if not last.finished:
            record = self._save_record(
                state="interrupted", started=started, reason="stopped on request", step=last.step, seconds=last.seconds
            )
            self._observer.ended(record, self._store.load_model)
            return self._report(record)
        self._observer.phase("keeping the best model")
        bundle = self._finish(run)
        record = self._save_record(
            state="finished",
            started=started,
            model_id=bundle.model_id,
            scores=Scores.model_validate(bundle.scores) if bundle.scores else None,
            step=last.step,
            seconds=last.seconds,
        )
        self._observer.ended(record, lambda: bundle)
        return self._report(record)

    def _begin(self) -> TrainRun:
        """The run as it was begun, here or by another at this moment, or a new one; with its start model in place.

        The plan comes first. Whoever finds another's in its way has written nothing yet, and the start model is only
        written by those who work from the same plan.
        """
        run = self._store.load_run()
        if run is None:
            contents = self._contents or (self._look_through() if self._job.check_data else {})
            self._observer.phase("preparing the start model")
            counted = None
            if counts_classes(self._job):
                self._observer.note("counting the pixels of each class, once")
                counted = class_pixels(self._inputs.train_set)
            run, start = new_run(self._job, self._inputs, contents, counted)
            if counted is not None and run.class_presence is not None:
                self._store.save_presence(counted.presence)
            if run.plan.train.content is not None:
                images = TrainedOn.of(contents[run.plan.train.name].images)
                self._store.save_images(run.plan.train.content, images)
            if self._store.create_run(run):
                for note in run.start_notes:
                    self._observer.note(note)
                self._stage_store(run, 0).save_start(start)
                return run
            run = self._store.load_run() or run
        check_same(self._job, self._inputs, run)
        if changed := files_changed(self._inputs, run):
            self._observer.phase(f"reading split {' and '.join(changed)}, whose files were written anew")
            check_same_content(self._job, self._inputs, run, changed)
            self._observer.note(f"files of split {' and '.join(changed)} were written anew, and hold what they held")
        if not self._stage_store(run, 0).has_start():
            self._restore_start(run)
        return run

    def _look_through(self) -> Mapping[str, SplitContent]:
        """Read all that will be trained on, before anything else takes time."""
        self._observer.phase("looking through the data")

        def on_image(done: int, total: int) -> None:
            if self._asked_to_stop():
                raise _StoppedEarly

        report = look_through(self._job, self._inputs, on_image)
        for line in warning_lines(report):
            self._observer.note(line)
        return report.contents

    def _restore_start(self, run: TrainRun) -> None:
        """Make the start model of a run once more, that died before it had written it."""
        self._observer.phase("preparing the start model")
        _, start = new_run(self._job, self._inputs)
        if start.model_id != run.start_model_id:
            raise InputError(
                f"{self._store.store.uri} was begun with the start model {run.start_model_id}, which it never got; now "
                f"{self._job.model or 'a new one'} is {start.model_id}: give the old one, or this training another "
                "--name"
            )
        self._stage_store(run, 0).save_start(start)

    def _stage_store(self, run: TrainRun, number: int) -> TrainStore:
        """Where a stage keeps its files: the run's own place when there is only one."""
        stages = run.plan.stages
        return self._store if len(stages) == 1 else self._store.stage(stages[number].arch)

    def _train_stages(self, run: TrainRun, private: bool) -> WorkerOutcome:
        follower = self._follower = GroupFollower(
            self._observer, lambda: self._asked_to_stop() or self._lease.lost, self._job.placement_timeout
        )
        spec, notes = resolve_group(self._job, private)
        for note in notes:
            self._observer.note(note)
        trained = WorkerOutcome(finished=True, step=0, seconds=0.0)
        for number, stage in enumerate(run.plan.stages):
            store = self._stage_store(run, number)
            outcome = store.load_done()
            if outcome is None:
                if number:
                    self._begin_stage(run, number)
                if self._asked_to_stop():  # no workers are started only to be stopped
                    return trained.then(_cut_short(store))
                outcome = self._train_stage(run, number, stage.arch, store, spec, follower)
                if outcome.finished:
                    store.save_done(outcome)
                    store.drop_checkpoints(self._job.keep_checkpoints)
            trained = trained.then(outcome)
            if not outcome.finished:
                break
        return trained

    def _step_kept(self, run: TrainRun) -> int:
        """The steps of all stages that are kept: of those that have ended, and to the newest checkpoint of the last."""
        stores = [self._stage_store(run, number) for number in range(len(run.plan.stages))]
        return sum(done.step if (done := store.load_done()) else store.newest_step() or 0 for store in stores)

    def _restore_model(self, run: TrainRun) -> None:
        """Put the model of a finished run back where it belongs, if somebody has deleted it."""
        if not self._store.has_model():
            bundle = self._finish(run)
            self._observer.note(f"the model of this finished run was gone; {bundle.model_id} is there again")

    def _begin_stage(self, run: TrainRun, number: int) -> None:
        store, arch = self._stage_store(run, number), run.plan.stages[number].arch
        if store.has_start():
            return
        self._observer.phase(f"carrying over to {arch}")
        trained = self._best_of(self._stage_store(run, number - 1))
        store.save_start(next_start(trained, arch, run.plan.stages[number].config.seed))

    def _presence(self, run: TrainRun, number: int) -> ClassPresence | None:
        """Which classes each image holds, where a stage samples by them."""
        if run.class_presence is None or run.plan.stages[number].config.sampling == "uniform":
            return None
        kept = self._store.load_presence(run.class_presence, run.plan.labels.num_classes)
        if kept is None:
            kept = restored_presence(self._inputs, run)
            self._store.save_presence(kept)
        return kept

    def _train_stage(
        self, run: TrainRun, number: int, arch: ArchName, store: TrainStore, spec: GroupSpec, follower: GroupFollower
    ) -> WorkerOutcome:
        stages = run.plan.stages
        name = arch if len(stages) == 1 else f"{arch} ({number + 1} of {len(stages)})"
        if (step := store.newest_step()) is not None:
            self._observer.note(f"{arch}: resuming from the checkpoint of step {step}")
        weights = {} if run.class_weights is None else {"class_weights": run.class_weights}
        work = TrainWorkerSpec(
            name=self._job.name,
            run_uri=store.store.uri,
            stage=arch,
            stage_number=number + 1,
            stages=len(stages),
            train_set=self._inputs.train_set,
            val_set=self._inputs.val_set,
            config=self._job.train_config(arch).model_copy(update=weights),
            plan=LoopPlan(**{field: getattr(self._job, field) for field in LoopPlan.model_fields}),
            threads=spec.cpus,
            record_examples=self._job.record_examples,
            presence=self._presence(run, number),
        )
        group = Group(spec, work)
        try:
            result = follower.follow(group, spec, f"training {name}")
        finally:
            group.end()
        if result is None:
            return _cut_short(store)
        if result.refused is not None:
            raise InputError(result.refused)
        if result.outcome is None:
            times = f"{follower.failures} times" if follower.failures > 1 else "once"
            raise PipelineError(
                f"training ended after its workers had failed {times} ({result.failed}{follower.lacked()}); "
                "the same command goes on from the newest checkpoint"
            )
        return result.outcome

    def _best_of(self, store: TrainStore) -> ModelBundle:
        """The model of a finished stage: the best on the validation split, or without one the last."""
        history = store.load_history()
        if history.best is not None:
            return store.load_best(history.best.step)
        if history.validations:
            self._observer.note(
                f"no pixel of split {self._job.val_split} is labelled, so nothing was scored; the last model is kept"
            )
        steps = store.best_steps()
        if not steps:
            raise PipelineError(
                f"{store.store.uri} was trained to its end and kept no model, for no pixel of its validation split is "
                "labelled; train under another name, with another val_split or none"
            )
        return store.load_best(steps[-1])

    def _finish(self, run: TrainRun) -> ModelBundle:
        store = self._stage_store(run, len(run.plan.stages) - 1)
        bundle = self._best_of(store)
        start = self._stage_store(run, 0).load_start()
        origin = {"run": self._job.name, "started_from": {"model_id": run.start_model_id} | dict(start.provenance)}
        seen = self._store.load_images(run.plan.train.content)
        if seen is not None and start.trained_on is not None:
            seen |= start.trained_on
        bundle = replace(bundle, provenance=dict(bundle.provenance) | origin, trained_on=seen)
        self._store.save_model(bundle)
        if store is not self._store:
            self._store.save_history(store.load_history())
            self._store.save_page(training_page(self._page_of_stages(run)))
        return bundle

    def _curves(self, run: TrainRun) -> Mapping[str, Curves]:
        """Of the stages that have begun, as of their newest checkpoints."""
        stores = {stage.arch: self._stage_store(run, number) for number, stage in enumerate(run.plan.stages)}
        return {arch: Curves(store.load_history(), store.load_measured()) for arch, store in stores.items()}

    def _page_of_stages(self, run: TrainRun) -> TrainingPage:
        """All stages on one page; each has one of its own, too."""
        last = run.plan.stages[-1]
        return TrainingPage(
            name=self._job.name,
            stages=self._curves(run),
            labels=run.plan.labels,
            settings=last.config.model_dump(mode="json"),
            sheet=self._stage_store(run, len(run.plan.stages) - 1).newest_sheet(),
        )

    def _save_record(self, *, started: datetime, **values: Any) -> TrainRecord:
        lost = self._observer.lost_output()
        record = TrainRecord(
            started=started, updated=now(), lost_output=lost, version=version("fcn-pipeline"), **values
        )
        self._store.save_record(record)
        return record

    def _report(self, record: TrainRecord, *, nothing_to_do: bool = False) -> TrainReport:
        finished = record.state == "finished"
        return TrainReport(
            state="finished" if finished else "interrupted",
            name=self._job.name,
            uri=self._store.store.uri,
            nothing_to_do=nothing_to_do,
            model_uri=self._store.store.at("model").uri if finished else None,
            model_id=record.model_id,
            scores=record.scores,
            steps=record.step,
            seconds=record.seconds,
            failures=self._follower.failures if self._follower else 0,
            report_uri=f"{self._store.store.uri}/{PAGE}" if self._store.has_page() else None,
            classes=self._inputs.train_set.labels.names,
        )


def _cut_short(store: TrainStore) -> WorkerOutcome:
    """The outcome of a stage whose workers had no say in its end: what it has saved by now."""
    return WorkerOutcome(finished=False, step=store.newest_step() or 0, seconds=0.0)
