"""Retraining, from the data to a new champion: check, train, score, compare, publish, promote, relabel.

Nothing is promoted until a challenger that was trained to its end has won, by a rule fixed before, on the same images
as the champion. The same job again goes on where it ended: training at its newest checkpoint, and what was promoted
once is never promoted again by itself.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol, TypeVar

from fcn_core.errors import FcnError
from fcn_core.labels import LabelSet
from fcn_core.training.loop import History
from pipeline.actors import cluster
from pipeline.actors.observer import Observer
from pipeline.actors.placement import place
from pipeline.data.check import check_dataset
from pipeline.data.datasets import open_catalog
from pipeline.data.layouts import Split
from pipeline.data.report import BadData, SplitContent, refusal
from pipeline.errors import InputError, PipelineError
from pipeline.evaluation.files import EvaluationRecord
from pipeline.evaluation.job import EvaluationStopped, evaluate
from pipeline.evaluation.promotion import compare_evaluations
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.models.load import load_bundle
from pipeline.models.references import PREFIX, is_reference
from pipeline.models.registry import Champion, ChampionChanged, open_registry
from pipeline.models.scores_check import check_scores
from pipeline.retraining.contest import Contest
from pipeline.retraining.observer import ActorsPart, RetrainObserver, TrainingPart
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import check_places
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from pipeline.training.job import train
from pipeline.training.observer import TrainObserver
from pipeline.training.placement import check_fits
from pipeline.training.plan import check_inputs, pin_dataset
from pipeline.training.report import TrainReport
from pipeline.training.store import TrainStore

_STOPPED = "stopped before the verdict; nothing was promoted, and the same job resumes"

T = TypeVar("T")


class RetrainStopped(PipelineError):
    """`should_stop` turned true; nothing was promoted."""


@dataclass(frozen=True)
class RetrainReport:
    """What came of a retraining.

    `promotion` is the number under which the challenger is champion now, None if it is not; `promoted`, whether this
    call made it so. `relabelling` is the labelling that is due then, if one was asked for; `relabelled`, what it did.
    """

    name: str
    registry: str
    registry_name: str
    trained: TrainReport
    contest: Contest
    promotion: int | None
    promoted: bool
    relabelling: SegmentJob | None
    relabelled: RunReport | None = None

    def __repr__(self) -> str:
        came = f"promotion {self.promotion}" if self.promotion is not None else "not promoted"
        return f"<RetrainReport {self.name}: model {self.trained.model_id}, {came} of {self.registry_name}>"


class Run(Protocol):
    """Does one named step of the work, here or where somebody sees it: calls it, and returns what it returns."""

    def __call__(self, name: str, step: Callable[[], T], /) -> T: ...


def run_here(name: str, step: Callable[[], T], /) -> T:
    """Call the step, and nothing else."""
    return step()


def retrain(
    job: RetrainJob, observer: RetrainObserver | None = None, should_stop: Callable[[], bool] = lambda: False
) -> RetrainReport:
    """A whole retraining: `challenge`, then the labelling of `job.relabel` if the challenger is the champion now.

    Raises RelabellingFailed where only that labelling failed.
    """
    observer = observer or RetrainObserver()
    report = challenge(job, observer, should_stop)
    if report.relabelling is None:
        return report
    try:
        relabelled = segment(report.relabelling, ActorsPart(observer, "labelling"), should_stop)
    except (PipelineError, FcnError) as error:
        raise RelabellingFailed(report, error) from error
    return replace(report, relabelled=relabelled)


class RelabellingFailed(PipelineError):
    """The retraining is done, and the labelling after it failed; `report` has what came of all but that."""

    def __init__(self, report: RetrainReport, error: Exception) -> None:
        super().__init__(
            f"the retraining is done, and the labelling after it failed: {error}; the same command trains and promotes "
            "nothing again, and goes on with the labelling"
        )
        self.report = report


@dataclass(frozen=True)
class Jobs:
    """What trains and what scores: the jobs themselves, or the like of them that run elsewhere.

    `elsewhere`: this process needs no Ray for them.
    """

    train: Callable[[TrainJob, TrainObserver, Callable[[], bool]], TrainReport]
    score: Callable[[EvaluateJob, Observer, Callable[[], bool]], EvaluationRecord]
    elsewhere: bool = False


def _score_here(job: EvaluateJob, observer: Observer, should_stop: Callable[[], bool]) -> EvaluationRecord:
    return evaluate(job, observer, should_stop).record


JOBS_HERE = Jobs(train, _score_here)


def challenge(
    job: RetrainJob,
    observer: RetrainObserver | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    run: Run = run_here,
    jobs: Jobs = JOBS_HERE,
) -> RetrainReport:
    """A retraining but for the labelling, step by step.

    A {date} in the job's name is today's, in UTC. Raises InputError for what cannot be done as asked, as far as that
    can be known before anything is trained, BadData among it; RetrainStopped when `should_stop` turned true;
    PipelineError when the machinery fails. Nothing was promoted then.
    """
    observer = observer or RetrainObserver()
    # One version of the data for the check, the training and both evaluations, whatever is added meanwhile.
    work = _Challenge(pin_dataset(job.dated(datetime.now(UTC))), observer, should_stop, jobs)
    run("check data", work.check)
    # One Ray for all that follows, where it is a private one.
    with contextlib.nullcontext() if jobs.elsewhere else cluster.connect(job.ray_address, observer.note):
        trained = run("train", work.train)
        challenger = run("score challenger", partial(work.score_challenger, trained))
        while True:
            champion = work.champion()
            scores = run("score champion", partial(work.score_champion, champion, challenger))
            contest = run("compare", partial(work.compare, challenger, champion, scores))
            run("publish", partial(work.publish, trained, contest))
            if not contest.verdict.promote:
                return work.report(trained, contest, _current_promotion(contest))
            promotion = run("promote", partial(work.promote, contest))
            if promotion is not None:
                return work.report(trained, contest, promotion)


class _Challenge:
    """One call of `challenge`: what its steps do, and what they share."""

    def __init__(self, job: RetrainJob, observer: RetrainObserver, should_stop: Callable[[], bool], jobs: Jobs) -> None:
        self._jobs = jobs
        self._job = job
        self._observer = observer
        self._should_stop = should_stop
        self._registry = open_registry(job.registry)
        self._name = job.registry_name
        self._store = open_store(job.output).at(job.name)
        self._labels: LabelSet | None = None
        self._contents: Mapping[str, SplitContent] = {}

    def check(self) -> None:
        """See that nothing can be in the way later, after hours of training; then look through the data."""
        job = self._job
        self._observer.progress(None, "checking inputs")
        self._registry.check_writable(self._name)
        if job.model and is_reference(job.model):
            self._registry.resolve(job.model)
        splits = [*dict.fromkeys(filter(None, (job.train_split, job.val_split, job.scored_split)))]
        catalog = open_catalog(job)
        if not all(_is_whole(catalog.split(name)) for name in splits):
            self._check_data(splits)  # which tells all that is wrong, not the first thing only
        self._labels = check_inputs(job).train_set.labels
        champion = self.champion()
        self._registry.promotions(self._name)  # all are read before a promotion, and a damaged one is in its way
        if champion is not None:
            self._check_classes(champion, self._labels)
            check_scores(load_bundle(f"{PREFIX}{self._name}@{champion.version}", self._registry.uri))
        if job.relabel is not None:
            check_places(
                job.relabel,
                job.relabel.key_list,
                where=job.relabel.where,
                allow_empty=job.relabel.allow_empty,
                follow_links=job.relabel.follow_links,
            )
        if not self._jobs.elsewhere and not cluster.is_remote(job.ray_address):
            check_fits(job, cluster.nodes()[0])
            for options in (job.evaluation, job.relabel):
                if options is not None:
                    place(options)
        if job.scored_split == job.val_split:
            self._observer.note(
                f"the models are scored on split {job.val_split}, by which the challenger's best checkpoint is chosen; "
                "that favours it a little, an eval_split of its own does not"
            )
        self._check_data(splits)

    def _check_data(self, splits: Sequence[str]) -> None:
        limits = {self._job.scored_split: self._job.evaluation.max_pixels}
        report = check_dataset(self._job, splits, on_image=self._on_image, max_pixels=limits)
        self._observer.checked(report)
        if not report.ok:
            raise BadData(refusal(report))
        self._contents = report.contents

    def _check_classes(self, champion: Champion, ours: LabelSet) -> None:
        found = self._registry.find(self._name, champion.version)
        theirs = found.description.labels if found else ours
        if theirs.names != ours.names:
            raise InputError(
                f"the champion of {self._name} knows {theirs.num_classes} classes ({_few(theirs.names)}), the data set "
                f"has {ours.num_classes} ({_few(ours.names)}), and models of other classes cannot be compared; give "
                "another registry_name, or the right labels"
            )

    def _on_image(self, done: int, images: int) -> None:
        self._check_stop()
        self._observer.progress(done / images, f"{done} of {images} examples read")

    def train(self) -> TrainReport:
        """Train the challenger to its end, or what is left of that."""
        # In this process the training need not read once more what was just checked.
        run = partial(train, contents=self._contents) if self._jobs.train is train else self._jobs.train
        report = run(self._job, TrainingPart(self._observer), self._should_stop)
        if report.state != "finished":
            raise RetrainStopped(f"{_STOPPED} at step {report.steps}")
        if report.nothing_to_do:
            self._observer.note(f"run {report.name} was trained to its end before")
        self._observer.trained(report, self._histories())
        return report

    def _histories(self) -> Mapping[str, History]:
        store = TrainStore(self._store)
        run = store.load_run()
        stages = [stage.arch for stage in run.plan.stages] if run else []
        if len(stages) == 1:
            return {stages[0]: store.load_history()}
        return {stage: store.stage(stage).load_history() for stage in stages}

    def score_challenger(self, trained: TrainReport) -> EvaluationRecord:
        return self._score(_model_of(trained), "challenger")

    def champion(self) -> Champion | None:
        return self._registry.champion(self._name)

    def score_champion(self, champion: Champion | None, challenger: EvaluationRecord) -> EvaluationRecord | None:
        """The champion's scores. None without a champion."""
        if champion is None:
            self._observer.note(f"{self._name} has no champion yet")
            return None
        if champion.version == challenger.model_id:
            return challenger
        return self._score(f"{PREFIX}{self._name}@{champion.version}", "champion")

    def _score(self, model: str, role: str) -> EvaluationRecord:
        self._check_stop()
        job = self._job.evaluation_of(model, self._registry.uri, self._store.at(f"evaluation/{role}").uri)
        try:
            return self._jobs.score(job, ActorsPart(self._observer, f"scoring the {role}"), self._should_stop)
        except EvaluationStopped as error:
            raise RetrainStopped(_STOPPED) from error

    def compare(
        self, challenger: EvaluationRecord, champion: Champion | None, scores: EvaluationRecord | None
    ) -> Contest:
        """The verdict, by the rule; but what was champion before does not become it again by itself."""
        assert self._labels is not None, "the data was checked"
        options = self._job
        for role, record in (("challenger", challenger), ("champion", scores)):
            if record is not None and record.trained_on:
                self._observer.note(
                    f"warning: {record.trained_on} of the {record.examples} images of split {options.scored_split} are "
                    f"among those that the {role} was trained on, which favours it"
                )
        verdict = compare_evaluations(
            scores, challenger, self._labels, options.margin, options.class_limit, options.min_mean_iou
        )
        version = challenger.model_id
        before = next((each for each in self._registry.promotions(self._name) if each.version == version), None)
        if champion is not None and before is not None:
            verdict = replace(verdict, promote=False, reason=_why_not_promoted(self._name, before, champion))
        contest = Contest(verdict, self._job.scored_split, version, challenger, champion, scores)
        self._observer.judged(contest)
        return contest

    def publish(self, trained: TrainReport, contest: Contest) -> None:
        """Publish the challenger, whatever the verdict: one that lost is there to be looked at."""
        self._check_stop()
        bundle = load_bundle(_model_of(trained))
        self._registry.publish(self._name, bundle, {"verdict": contest.verdict.reason, "training": trained.uri})

    def promote(self, contest: Contest) -> int | None:
        """Make the challenger champion. Returns the promotion's number; None when another model was promoted since
        the two were compared."""
        self._check_stop()
        record = contest.challenger_scores
        scores = record.scores.model_dump(mode="json")
        scores |= record.model_dump(include={"dataset", "split", "examples_digest"})
        after = contest.champion.number if contest.champion else 0
        try:
            return self._registry.promote(self._name, contest.version, contest.verdict.reason, scores, after=after)
        except ChampionChanged as changed:
            self._observer.note(f"{changed}: that comes now")
            return None

    def report(self, trained: TrainReport, contest: Contest, promotion: int | None) -> RetrainReport:
        relabelling = None
        if self._job.relabel is not None and promotion is not None:
            # By version: which model labels is decided here, not by whoever promotes another one meanwhile.
            model = f"{PREFIX}{self._name}@{contest.version}"
            relabelling = self._job.relabel.with_model(model, self._registry.uri)
        return RetrainReport(
            name=trained.name,
            registry=self._registry.uri,
            registry_name=self._name,
            trained=trained,
            contest=contest,
            promotion=promotion,
            promoted=contest.verdict.promote,
            relabelling=relabelling,
        )

    def _check_stop(self) -> None:
        if self._should_stop():
            raise RetrainStopped(_STOPPED)


def _model_of(trained: TrainReport) -> str:
    assert trained.model_uri is not None, "a finished training has a model"
    return trained.model_uri


def _current_promotion(contest: Contest) -> int | None:
    """The promotion under which a challenger that was not promoted is champion already."""
    champion = contest.champion
    return champion.number if champion is not None and champion.version == contest.version else None


def _why_not_promoted(name: str, before: Champion, champion: Champion) -> str:
    """Why a version that was promoted before is not promoted now."""
    if before.number == champion.number:
        return f"version {before.version} is the champion already, by promotion {before.number} ({before.reason})"
    return (
        f"version {before.version} was champion before, by promotion {before.number}, until {champion.version} took "
        f"its place ({champion.reason}); `fcn registry promote {name} {before.version}` would bring it back"
    )


def _is_whole(split: Split) -> bool:
    """Whether the list of a split fits the files. What is in them takes longer to tell."""
    return bool(split.pairs) and not split.missing and not split.duplicates


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
