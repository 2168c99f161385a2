"""What a retraining refuses before it trains, and what it does with scores. tests/flows has whole ones."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import Mock

import numpy as np
import pytest
from pydantic import ValidationError

from fcn_core import Architecture, LabelSet, ModelBundle, preset
from fcn_core.inference.settings import resolve_settings
from fcn_core.metrics import ConfusionMatrix
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from pipeline.data.report import DataReport
from pipeline.errors import InputError, PipelineError
from pipeline.evaluation.files import EvaluationRecord
from pipeline.evaluation.job import EvaluationStopped
from pipeline.jobs.retrain import RetrainJob
from pipeline.models.origin import ModelOrigin
from pipeline.models.registry import Registry, open_registry
from pipeline.retraining.job import JOBS_HERE, BadData, Jobs, RetrainReport, RetrainStopped, challenge
from pipeline.retraining.observer import RetrainObserver
from pipeline.storage.opening import open_store
from pipeline.training.report import TrainReport
from tests.in_process import evaluate_in_process
from tests.onnx_nets import small_onnx, written
from tests.requires import requires
from tests.samples import model
from tests.trainings import LABELS, options, write_scenes

T = TypeVar("T")

PIXELS = 1000


def retrain_job(place: Path, **changes: Any) -> RetrainJob:
    contest = {"registry": str(place / "registry"), "registry_name": "squares", "margin": 0.01, "class_limit": 0.05}
    return RetrainJob.model_validate(options(place) | contest | changes)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scenes")
    write_scenes(place / "data", train=4, val=2)
    return place


@pytest.fixture
def place(scenes: Path, tmp_path: Path) -> Path:
    """A place of its own for each test, with the data in it."""
    (tmp_path / "data").symlink_to(scenes / "data")
    (tmp_path / "registry").mkdir()
    return tmp_path


class Step(Exception):
    """A step that a test does not want to reach."""


def only_the_check(name: str, step: Callable[[], T], /) -> T:
    if name != "check data":
        raise Step(name)
    return step()


class Listener(RetrainObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.reports: list[DataReport] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def checked(self, report: DataReport) -> None:
        self.reports.append(report)


def refused(job: RetrainJob, message: str) -> None:
    with pytest.raises(InputError, match=message):
        challenge(job, run=only_the_check)
    assert not Path(job.output, job.name).exists()
    assert open_registry(job.registry).names() == []


# Before anything is trained


def test_what_is_in_order_is_trained(place: Path) -> None:
    listener = Listener()
    with pytest.raises(Step, match="train"):
        challenge(retrain_job(place), listener, run=only_the_check)
    assert listener.reports[0].ok
    assert any("scored on split val, by which the challenger's best checkpoint is chosen" in n for n in listener.notes)
    assert not (place / "registry" / "models").exists(), "a check leaves nothing behind"


def test_bad_data_is_named_and_reported(place: Path) -> None:
    (place / "data").unlink()
    write_scenes(place / "data", train=4, val=2)
    masks, images = place / "data" / "SegmentationClass", place / "data" / "JPEGImages"
    (images / "train-01.jpg").write_bytes(b"no image")
    (masks / "val-00.png").write_bytes((masks / "val-01.png").read_bytes()[:60])
    listener = Listener()
    with pytest.raises(BadData) as caught:
        challenge(retrain_job(place), listener, run=only_the_check)
    message = str(caught.value)
    assert "\n" not in message
    assert "is not fit for training" in message
    assert "1 in split train: JPEGImages/train-01.jpg" in message
    assert "1 in split val: SegmentationClass/val-00.png" in message
    assert not listener.reports[0].ok


def test_files_that_are_not_there_are_reported_with_all_else(place: Path) -> None:
    (place / "data").unlink()
    write_scenes(place / "data", train=4, val=2)
    (place / "data" / "SegmentationClass" / "val-01.png").unlink()
    (place / "data" / "JPEGImages" / "train-01.jpg").write_bytes(b"no image")
    listener = Listener()
    with pytest.raises(BadData, match=r"masks that are not there \(1 in split val: SegmentationClass/val-01.png\)"):
        challenge(retrain_job(place), listener, run=only_the_check)
    assert {problem.kind for problem in listener.reports[0].problems} == {"missing_mask", "unreadable_image"}


def test_an_image_that_is_trained_and_scored_on_is_refused(place: Path) -> None:
    (place / "data").unlink()
    write_scenes(place / "data", train=4, val=2)
    (place / "data" / "ImageSets" / "Segmentation" / "test.txt").write_text("train-03\nval-00\n")
    refused(retrain_job(place, eval_split="test", val_split=None), r"in split test: train-03 \(also in train\)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_split": "nights"}, "no split 'nights'"),
        ({"dataset": "/nowhere"}, "/nowhere"),
        ({"model": "registry:squares@champion"}, "there is no model squares in the registry"),
        ({"workers": 8}, "batch_size of 4 cannot be shared by 8 workers"),
        ({"relabel": {"source": "/nowhere", "output": "/tmp/labels"}}, "/nowhere"),
        ({"registry": "/proc/registry"}, "the registry cannot be written"),
    ],
)
def test_what_would_fail_after_the_training_fails_before_it(place: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        challenge(retrain_job(place, **changes), run=only_the_check)
    assert not Path(place, "runs", "run").exists()


def test_a_champion_of_other_classes_is_refused_before_the_training(place: Path) -> None:
    registry = open_registry(str(place / "registry"))
    registry.promote("squares", registry.publish("squares", model(preset("camvid"))), "first")
    with pytest.raises(InputError, match=r"knows 11 classes \(sky, .*the data set has 3 \(ground, red, green\)"):
        challenge(retrain_job(place), run=only_the_check)


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder / OLD.model_id), "there is no model squares"),
        (lambda folder: _flip(folder / OLD.model_id / "model.safetensors"), "model.safetensors .* has SHA-256"),
        (lambda folder: (folder / "champions/00000001.json").write_text("{"), r"00000001\.json is damaged"),
    ],
    ids=["deleted", "flipped bit", "older promotion damaged"],
)
def test_a_champion_that_cannot_be_scored_is_found_before_the_training(
    place: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    registry = open_registry(str(place / "registry"))
    for reason in ("first", "second"):
        registry.promote("squares", registry.publish("squares", OLD), reason)
    spoil(place / "registry/models/squares")
    with pytest.raises(InputError, match=message):
        challenge(retrain_job(place), run=only_the_check)


def test_images_that_the_scoring_would_refuse_are_found_before_the_training(place: Path) -> None:
    with pytest.raises(BadData, match=r"2 in split val: JPEGImages/val-00.jpg: 32x32 pixels, more than the 1,000"):
        challenge(retrain_job(place, evaluation={"max_pixels": 1000}), run=only_the_check)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_split": None}, "nothing to score the models on"),
        ({"eval_split": "train"}, "is trained on split 'train'"),
        ({"registry_name": "../up"}, "registry_name"),
        ({"name": "run-{day}"}, "name"),
        ({"margin": 2}, "margin"),
    ],
)
def test_options_that_make_no_sense_are_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        retrain_job(place, **changes)


def test_a_name_with_a_date_is_a_run_of_its_own_each_day(place: Path) -> None:
    job = retrain_job(place, name="squares-{date}", train={"steps": 7})
    dated = job.dated(datetime(2026, 11, 22, 3, 30, tzinfo=UTC))
    assert dated.name == "squares-20261122"
    assert dated.dated(datetime(2027, 1, 1, tzinfo=UTC)) == dated
    assert dated.train_config("fcn8s") == job.train_config("fcn8s")


# After the training and the scoring


def bundle(seed: int) -> ModelBundle:
    return ModelBundle.new(Architecture(num_classes=3, width=0.125, head_width=8), LABELS, seed=seed)


def record(labels: LabelSet, model_id: str, *right: float) -> EvaluationRecord:
    """An evaluation in which of each class so many pixels of 1000 are right; the others are given the next class."""
    matrix = ConfusionMatrix(labels.num_classes)
    for index, share in enumerate(right):
        matrix.counts[index, index] = round(share * PIXELS)
        matrix.counts[index, (index + 1) % len(right)] += PIXELS - round(share * PIXELS)
    return EvaluationRecord(
        model=ModelOrigin(asked="x", uri="x", model_id=model_id),
        model_id=model_id,
        params_id="p",
        settings=resolve_settings(device="cpu"),
        dataset="d",
        split="val",
        classes=labels.names,
        examples=2,
        examples_digest="0" * 16,
        scores=matrix.scores(),
        confusion=tuple(tuple(row) for row in np.asarray(matrix.counts).tolist()),
    )


class Scored:
    """Runs a challenge whose training and scoring are over: `scores` has what each model gets, by version.

    `at` does something before a step of that name. `score`, if there is one, scores the champion instead.
    """

    def __init__(self, place: Path, challenger: ModelBundle, scores: dict[str, tuple[float, ...]]) -> None:
        self.registry: Registry = open_registry(str(place / "registry"))
        self.steps: list[str] = []
        self.at: dict[str, Callable[[], Any]] = {}
        self.score: Mock | None = None
        self._place = place
        self._version = challenger.model_id
        self._scores = scores
        challenger.save(place / "trained", overwrite=True)

    def challenge(self, should_stop: Callable[[], bool] = lambda: False, **changes: Any) -> RetrainReport:
        self.steps.clear()
        jobs = Jobs(Mock(), self.score) if self.score else JOBS_HERE
        return challenge(retrain_job(self._place, **changes), None, should_stop, self._run, jobs)

    def _run(self, name: str, step: Callable[[], Any], /) -> Any:
        self.steps.append(name)
        self.at.pop(name, lambda: None)()
        if name == "train":
            place = str(self._place / "trained")
            return TrainReport("finished", "run", place, False, place, self._version, None, 6, 1.0, 0)
        if name == "score challenger":
            return self._record(self._version)
        if name == "score champion" and self.score is None:
            champion = self.registry.champion("squares")
            return self._record(champion.version) if champion else None
        return step()

    def _record(self, version: str) -> EvaluationRecord:
        return record(LABELS, version, *self._scores[version])


OLD, NEW, THIRD = bundle(1), bundle(2), bundle(3)

pytestmark = pytest.mark.usefixtures("ray_cluster")


def contest(place: Path, new: tuple[float, ...], third: tuple[float, ...] = (1, 1, 1)) -> Scored:
    """NEW against the champion OLD, who gets 0.8 of each class right."""
    scored = Scored(place, NEW, {OLD.model_id: (0.8, 0.8, 0.8), NEW.model_id: new, THIRD.model_id: third})
    scored.registry.promote("squares", scored.registry.publish("squares", OLD), "first")
    return scored


def better(place: Path) -> Scored:
    """NEW, who gets 0.9 right, against whoever is champion there."""
    return Scored(place, NEW, {OLD.model_id: (0.8, 0.8, 0.8), NEW.model_id: (0.9, 0.9, 0.9)})


def test_a_better_model_becomes_champion_and_its_promotion_says_why(place: Path) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))
    report = scored.challenge()
    assert (report.promoted, report.promotion) == (True, 2)
    champion = scored.registry.champion("squares")
    assert champion is not None
    assert (champion.version, champion.previous) == (NEW.model_id, OLD.model_id)
    assert champion.reason == report.contest.verdict.reason
    assert "no class falls by more than 0.05" in champion.reason
    assert champion.scores is not None
    assert (champion.scores["split"], champion.scores["examples_digest"]) == ("val", "0" * 16)
    assert scored.steps[-3:] == ["compare", "publish", "promote"]


@pytest.mark.parametrize(
    ("right", "reason"),
    [((0.7, 0.7, 0.7), "a gain of 0.01 is asked for"), ((1.0, 1.0, 0.5), "one class falls by more than 0.05")],
)
def test_a_model_that_loses_is_published_and_not_promoted(place: Path, right: tuple[float, ...], reason: str) -> None:
    scored = contest(place, right)
    report = scored.challenge()
    assert (report.promoted, report.promotion) == (False, None)
    assert reason in report.contest.verdict.reason
    assert "promote" not in scored.steps
    champion = scored.registry.champion("squares")
    assert champion is not None
    assert champion.version == OLD.model_id
    loser = scored.registry.find("squares", NEW.model_id)
    assert loser is not None
    assert loser.notes["verdict"] == report.contest.verdict.reason


def test_the_same_model_is_promoted_only_once(place: Path) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))
    scored.challenge()
    again = scored.challenge()
    assert (again.promoted, again.promotion) == (False, 2)
    assert "is the champion already, by promotion 2 (mean IoU" in again.contest.verdict.reason
    assert len(scored.registry.promotions("squares")) == 2


def test_a_champion_that_was_taken_back_does_not_return_by_itself(place: Path) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))
    scored.challenge()
    scored.registry.promote("squares", OLD.model_id, "mistakes squares for ground")
    again = scored.challenge()
    assert (again.promoted, again.promotion) == (False, None)
    assert "(mistakes squares for ground); `fcn registry promote squares" in again.contest.verdict.reason
    assert len(scored.registry.promotions("squares")) == 3


@pytest.mark.parametrize(("third", "promoted"), [((0.85, 0.85, 0.85), True), ((0.95, 0.95, 0.95), False)])
def test_a_champion_that_comes_meanwhile_is_compared_with(
    place: Path, third: tuple[float, ...], promoted: bool
) -> None:
    scored = contest(place, (0.9, 0.9, 0.9), third)
    version = scored.registry.publish("squares", THIRD)
    scored.at["promote"] = lambda: scored.registry.promote("squares", version, "quicker")
    report = scored.challenge()
    assert report.promoted is promoted
    assert report.contest.champion is not None
    assert report.contest.champion.version == version
    champion = scored.registry.champion("squares")
    assert champion is not None
    assert champion.version == (NEW.model_id if promoted else version)
    assert scored.steps.count("score champion") == 2
    assert scored.steps.count("score challenger") == 1, "it has not changed"


def test_two_runs_that_end_at_once_promote_a_model_once(place: Path) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))

    def the_other() -> None:
        assert better(place).challenge().promotion == 2

    scored.at["promote"] = the_other
    assert scored.challenge().promotion == 2
    assert len(scored.registry.promotions("squares")) == 2


@pytest.mark.parametrize("step", ["check data", "compare", "publish", "promote"])
def test_a_run_that_is_stopped_promotes_nothing(place: Path, step: str) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))
    stop: list[bool] = []
    scored.at[step] = lambda: stop.append(True)
    with pytest.raises(RetrainStopped, match="nothing was promoted"):
        scored.challenge(lambda: bool(stop))
    champion = scored.registry.champion("squares")
    assert champion is not None
    assert champion.version == OLD.model_id
    assert scored.challenge().promotion == 2, "the next run does"


@pytest.mark.parametrize("error", [PipelineError("a machine is gone"), EvaluationStopped("stopped")])
def test_a_champion_that_could_not_be_scored_is_not_taken_for_none(place: Path, error: PipelineError) -> None:
    scored = contest(place, (0.9, 0.9, 0.9))
    scored.score = Mock(side_effect=error)
    with pytest.raises(PipelineError):
        scored.challenge()
    assert scored.score.call_count == 1
    assert [each.version for each in scored.registry.promotions("squares")] == [OLD.model_id]


def test_an_imported_graph_defends_its_title_like_any_champion(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requires("onnx", install="'fcn-pipeline[onnx]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    evaluate_in_process(monkeypatch)
    theirs = import_onnx(written(small_onnx(classes=3), place / "net.onnx"), LABELS, IMAGENET).bundle
    registry = open_registry(str(place / "registry"))
    registry.promote("squares", registry.publish("squares", theirs), "first")
    NEW.save(place / "trained")
    at = str(place / "trained")

    def trained_already(name: str, step: Callable[[], T], /) -> Any:
        return (
            TrainReport("finished", "run", at, False, at, NEW.model_id, None, 6, 1.0, 0) if name == "train" else step()
        )

    here = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
    report = challenge(retrain_job(place, evaluation=here, margin=0), run=trained_already)
    scores = report.contest.champion_scores
    assert scores is not None
    assert (scores.model_id, scores.examples) == (theirs.model_id, 2)
    assert scores.settings.engine in ("openvino", "onnxruntime")
    assert report.contest.challenger_scores.settings.engine in ("openvino", "torch")
    better = (report.contest.challenger_scores.scores.mean_iou or 0) > (scores.scores.mean_iou or 0)
    assert report.promoted is better or "one class falls" in report.contest.verdict.reason


def test_only_a_champion_relabels(place: Path) -> None:
    store = open_store(str(place / "photos"))
    store.put("a.jpg", b"...")
    relabel = {"source": str(place / "photos"), "output": str(place / "labels"), "limit": 5}
    scored = contest(place, (0.7, 0.7, 0.7))
    assert scored.challenge(relabel=relabel).relabelling is None
    won = better(place).challenge(relabel=relabel)
    assert won.promoted
    assert won.relabelling is not None
    assert won.relabelling.model == f"registry:squares@{NEW.model_id}"
    assert (won.relabelling.registry, won.relabelling.limit) == (str(place / "registry"), 5)
    again = better(place).challenge(relabel=relabel)
    assert not again.promoted
    assert again.relabelling == won.relabelling, "a labelling that was cut off is due still"
