"""A distillation from a source to a published student: sample, segment by the teacher, train, score, quantize, publish.

The one thing to know: every step leaves what it did under OUTPUT/NAME and finds it there again, so the same job resumes
wherever it ended. Nothing is promoted: the student is published as a version to be looked at, or promoted, by whoever
does that (`fcn registry promote`, `fcn retrain`).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from fcn_core import ModelBundle
from fcn_core.inference.quantize import quantize, require_packages
from pipeline.actors import cluster
from pipeline.actors.observer import Observer
from pipeline.actors.placement import place
from pipeline.data.datasets import open_dataset
from pipeline.data.references import resolve
from pipeline.distillation import records
from pipeline.distillation.records import INT8, LABELS_FILE, PREDICTIONS, SAMPLE_FILE, Predictions
from pipeline.distillation.sampling import Sample, stratified_sample
from pipeline.errors import InputError, PipelineError
from pipeline.evaluation.files import EvaluationRecord
from pipeline.evaluation.job import EvaluationStopped
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.distil import VAL, DistilJob, TruthOptions
from pipeline.jobs.segment import SegmentJob
from pipeline.models.load import OpenedModel, load_bundle, open_model
from pipeline.models.registry import open_registry
from pipeline.numbers import count, percent, score
from pipeline.outputs.current import current_rows
from pipeline.retraining.job import JOBS_HERE, Jobs, Run, run_here
from pipeline.retraining.observer import ActorsPart, RetrainObserver, TrainingPart
from pipeline.segmentation.calibration import sample_images
from pipeline.segmentation.choice import key_filter
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import check_places
from pipeline.segmentation.run_report import RunReport
from pipeline.sources.opening import open_source
from pipeline.storage.batches import to_batches, to_infos
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uri import split_options
from pipeline.training.placement import check_fits
from pipeline.training.report import TrainReport

CALIBRATION_IMAGES = 48
_STOPPED = "stopped before the student was published; the same job resumes"

Segment = Callable[[SegmentJob, Observer, Callable[[], bool]], RunReport]


class DistilStopped(PipelineError):
    """`should_stop` turned true; nothing was published."""


@dataclass(frozen=True)
class ModelScores:
    """What a model scored. `model`: student, int8 or teacher; `against`: teacher, its predictions, or truth."""

    model: str
    against: str
    uri: str
    record: EvaluationRecord


@dataclass(frozen=True)
class DistilReport:
    """What came of a distillation. `versions`: of the student, and of its int8 form, in the registry."""

    name: str
    uri: str
    teacher: str
    predictions: Predictions
    trained: TrainReport
    scores: tuple[ModelScores, ...]
    registry: str
    registry_name: str
    versions: tuple[str, ...]

    def mean_iou(self, model: str, against: str) -> float | None:
        """A score by its names; None where there is none."""
        found = (each for each in self.scores if (each.model, each.against) == (model, against))
        first = next(found, None)
        return first.record.scores.mean_iou if first else None


def distil(
    job: DistilJob,
    observer: RetrainObserver | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    run: Run = run_here,
    jobs: Jobs = JOBS_HERE,
    segment_job: Segment = segment,
) -> DistilReport:
    """A distillation, step by step; what was done before is not done again.

    `jobs` and `segment_job` train, score and segment, here or elsewhere. Raises InputError for what cannot be done as
    asked, as far as that can be known before the teacher begins; DistilStopped when `should_stop` turned true;
    PipelineError when the machinery fails. Nothing was published then.
    """
    work = _Distillation(job, observer or RetrainObserver(), should_stop, jobs, segment_job)
    teacher = run("check", work.check)
    # One Ray for all that follows, where it is a private one.
    with contextlib.nullcontext() if jobs.elsewhere else cluster.connect(job.ray_address, work.observer.note):
        run("sample", work.sample)
        predictions = run("segment sample", partial(work.segment_sample, teacher))
        trained = run("train student", partial(work.train, predictions))
        student = load_bundle(_model_of(trained))
        models = [("student", _model_of(trained), student)]
        if job.quantize:
            int8 = run("quantize student", partial(work.quantize, student))
            models.append(("int8", work.store.at(INT8).uri, int8))
        scores = run("score", partial(work.score, predictions, [(name, uri) for name, uri, _ in models]))
        bundles = [bundle for _, _, bundle in models]
        versions = run("publish", partial(work.publish, teacher, trained, bundles, scores))
    return DistilReport(
        name=job.name,
        uri=work.store.uri,
        teacher=str(teacher.origin),
        predictions=predictions,
        trained=trained,
        scores=scores,
        registry=work.registry.uri,
        registry_name=job.registry_name,
        versions=versions,
    )


class _Distillation:
    """One call of `distil`: what its steps do, and what they share."""

    def __init__(
        self,
        job: DistilJob,
        observer: RetrainObserver,
        should_stop: Callable[[], bool],
        jobs: Jobs,
        segment_job: Segment,
    ) -> None:
        self._job, self._jobs, self._segment, self._should_stop = job, jobs, segment_job, should_stop
        self.observer = observer
        self.store: Store = open_store(job.output).at(job.name)
        self.registry = open_registry(job.registry)

    def check(self) -> OpenedModel:
        """See that nothing can be in the way later, after hours of segmenting and training."""
        job = self._job
        self.observer.progress(None, "checking inputs")
        if job.quantize:
            require_packages()
        self.registry.check_writable(job.registry_name)
        teacher = open_model(job.teacher, job.registry)
        source, _ = check_places(
            job.teaching_on(self._uri(SAMPLE_FILE), self.store.at(PREDICTIONS).uri), follow_links=job.follow_links
        )
        if job.truth is not None:
            self._check_truth(job.truth, teacher.bundle)
        student = job.training_on("output:/predictions", self._uri(LABELS_FILE), self.store.uri)
        if not self._jobs.elsewhere and not cluster.is_remote(job.ray_address):
            check_fits(student, cluster.nodes()[0])
            place(job.teaching, kind=teacher.bundle.kind)
            place(job.evaluation)
        records.begin(self.store, job, source.uri, teacher.bundle.model_id)
        records.write_labels(self.store, teacher.bundle.labels)
        return teacher

    def _check_truth(self, truth: TruthOptions, teacher: ModelBundle) -> None:
        theirs = open_dataset(truth, truth.split).labels
        if theirs.names != teacher.labels.names:
            raise InputError(
                f"truth {truth.dataset} has other classes ({', '.join(theirs.names[:4])}, ...) than the teacher "
                f"({', '.join(teacher.labels.names[:4])}, ...); give a data set of the teacher's classes, or none"
            )

    def sample(self) -> None:
        """Choose the images that the teacher segments, once."""
        self._check_stop()
        before = records.sampled_keys(self.store)
        if before is not None:
            self.observer.note(f"{count(len(before))} images were sampled before")
            return
        self.observer.progress(None, "listing")
        chosen = self._list_sample()
        if not chosen.images:
            raise InputError(f"source {self._job.source} has no image that include and exclude let through")
        records.write_sample(self.store, chosen)
        taken, listed = count(len(chosen.images)), count(chosen.listed)
        self.observer.note(f"sampled {taken} of {listed} images, from {count(chosen.folders)} folders")

    def _list_sample(self) -> Sample:
        job = self._job
        source = open_source(job.source, follow_links=job.follow_links)
        wanted = key_filter(job.include, job.exclude)

        def images() -> Iterator[ObjectInfo]:
            for batch in to_batches(source.list()):
                self._check_stop()
                yield from to_infos(batch.filter(pa.array(wanted(batch["key"]))))

        return stratified_sample(images(), job.sample)

    def segment_sample(self, teacher: OpenedModel) -> Predictions:
        """Have the teacher segment the sample, or what is left of it; then fix which of its masks are learned from."""
        self._check_stop()
        before = records.read_predictions(self.store)
        if before is not None:
            self.observer.note(f"the teacher has segmented {count(before.segmented)} images before")
            return before
        output = self.store.at(PREDICTIONS)
        job = self._job.teaching_on(self._uri(SAMPLE_FILE), output.uri)
        # By version: which model teaches was decided when this began.
        job = job.model_copy(update={"model": teacher.origin.uri})
        report = self._segment(job, ActorsPart(self.observer, "segmenting the sample"), self._should_stop)
        if report.state != "finished":
            raise DistilStopped(_STOPPED)
        if report.failed_gate:
            raise PipelineError(f"the sample could not be segmented: {report.failed_gate}")
        dataset = resolve(f"output:{output.uri}")
        sampled = records.sampled_keys(self.store)
        segmented = sum(batch["status"].to_pylist().count("ok") for batch in current_rows(output, columns=["status"]))
        return records.write_predictions(
            self.store, Predictions(dataset=dataset, sampled=len(sampled or ()), segmented=segmented)
        )

    def train(self, predictions: Predictions) -> TrainReport:
        """Train the student to its end, or what is left of that."""
        job = self._job.training_on(predictions.dataset, self._uri(LABELS_FILE), self.store.uri)
        report = self._jobs.train(job, TrainingPart(self.observer), self._should_stop)
        if report.state != "finished":
            raise DistilStopped(_STOPPED)
        if report.nothing_to_do:
            self.observer.note("the student was trained to its end before")
        return report

    def quantize(self, student: ModelBundle) -> ModelBundle:
        """The student in int8, calibrated with images of the sample; or that which was made before."""
        self._check_stop()
        folder = self.store.at(INT8)
        with contextlib.suppress(InputError):
            before = load_bundle(folder.uri)
            if before.provenance.get("int8", {}).get("float_model_id") == student.model_id:
                return before
        self.observer.progress(None, "quantizing the student")
        keys = records.sampled_keys(self.store) or []
        images = sample_images(self._job.source, CALIBRATION_IMAGES, follow_links=self._job.follow_links, keys=keys)
        made, agreement = quantize(student, images)
        self.observer.note(f"int8 gives {percent(agreement.equal_pixels, 2)} of the pixels the student's class")
        for name, data in made.to_files().items():
            folder.put(name, data)
        return made

    def score(self, predictions: Predictions, models: list[tuple[str, str]]) -> tuple[ModelScores, ...]:
        """Each model against the teacher's predictions on split val, and all, the teacher too, against the truth."""
        job = self._job
        agreement = job.agreement_on(predictions.dataset, self._uri(LABELS_FILE))
        found = [self._scored(model, uri, "teacher", agreement, VAL) for model, uri in models]
        if job.truth is not None:
            all_models = [*models, ("teacher", job.teacher)]
            found += [self._scored(model, uri, "truth", job.truth, job.truth.split) for model, uri in all_models]
        return tuple(found)

    def _scored(self, model: str, uri: str, against: str, data: DatasetOptions, split: str) -> ModelScores:
        self._check_stop()
        output = self.store.at(f"evaluation/{model}-{against}").uri
        job = self._job.scoring_of(uri, data, split, output)
        doing = f"scoring the {model} against {'the teacher' if against == 'teacher' else 'the truth'}"
        try:
            record = self._jobs.score(job, ActorsPart(self.observer, doing), self._should_stop)
        except EvaluationStopped as error:
            raise DistilStopped(_STOPPED) from error
        self.observer.note(f"{doing}: mean IoU {score(record.scores.mean_iou)} on {count(record.examples)} images")
        return ModelScores(model, against, output, record)

    def publish(
        self, teacher: OpenedModel, trained: TrainReport, bundles: list[ModelBundle], scores: tuple[ModelScores, ...]
    ) -> tuple[str, ...]:
        """Publish the student, and its int8 form. A version that is there already stays as it is."""
        self._check_stop()
        names = ("student", "int8")
        versions = []
        for name, bundle in zip(names, bundles, strict=False):
            of_model = {each.against: each.record.scores.mean_iou for each in scores if each.model == name}
            notes = {"distilled_from": str(teacher.origin), "training": trained.uri}
            notes |= {f"mean_iou_against_{against}": score(value) for against, value in of_model.items()}
            versions.append(self.registry.publish(self._job.registry_name, bundle, notes))
        return tuple(versions)

    def _uri(self, file: str) -> str:
        """The URI of a file under OUTPUT/NAME."""
        place, options = split_options(self.store.uri)
        return f"{place.rstrip('/')}/{file}{options}"

    def _check_stop(self) -> None:
        if self._should_stop():
            raise DistilStopped(_STOPPED)


def _model_of(trained: TrainReport) -> str:
    assert trained.model_uri is not None, "a finished training has a model"
    return trained.model_uri
