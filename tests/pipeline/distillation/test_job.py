"""Distillation: from a teacher and images to a published student, resumed wherever it was stopped."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from pydantic import ValidationError

from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from pipeline.cli.app import run as fcn
from pipeline.data.datasets import open_dataset
from pipeline.distillation.estimate import estimate_distillation
from pipeline.distillation.job import DistilStopped, distil
from pipeline.distillation.records import read_predictions, sampled_keys
from pipeline.errors import InputError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.distil import DistilJob
from pipeline.models.load import load_bundle
from pipeline.models.registry import open_registry
from pipeline.retraining.observer import RetrainObserver
from pipeline.storage.opening import open_store
from pipeline.training import job as training
from tests.commands import refused
from tests.in_process import evaluate_in_process, segment_in_process
from tests.onnx_nets import small_onnx, written
from tests.requires import requires
from tests.samples import fill, model
from tests.trainings import LABELS, InProcess, write_scenes

T = TypeVar("T")

ACTORS = {"device": "cpu", "actors": 1, "cpus_per_actor": 1, "precision": "float32"}
STUDENT = {
    "arch": "fcn32s", "width": 0.125, "head_width": 16, "workers": 1, "cpus_per_worker": 1, "use_gpu": False,
    "train": {"steps": 3, "batch_size": 2, "warmup_steps": 0, "augmentation": {"crop_height": 32, "crop_width": 32}},
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("without_actors")


@pytest.fixture
def without_actors(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of trainings and actors are this process: they take seconds to start."""
    monkeypatch.setattr(training, "Group", InProcess)
    evaluate_in_process(monkeypatch)
    segment_in_process(monkeypatch)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Sixteen photos in four folders, a teacher of three classes, annotated scenes and an empty registry."""
    for index in range(4):
        fill(tmp_path / "photos" / f"cam{index}", 4, size=(64, 48), start=4 * index)
    model(LABELS).save(tmp_path / "teacher")
    write_scenes(tmp_path / "data", train=2, val=2)
    (tmp_path / "registry").mkdir()
    return tmp_path


def options(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "small", "teacher": f"{place}/teacher", "source": f"{place}/photos", "output": f"{place}/distilled",
        "registry": f"{place}/registry", "registry_name": "student", "sample": 12, "teaching": ACTORS,
        "evaluation": ACTORS, "predicted": {"val_share": 0.3}, "student": STUDENT,
    } | changes  # fmt: skip


def distil_job(place: Path, **changes: Any) -> DistilJob:
    return DistilJob.model_validate(options(place, **changes))


class Listener(RetrainObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Stops:
    """Runs the steps of a distillation until it comes to one of that name."""

    def __init__(self, at: str | None = None) -> None:
        self.at = at
        self.steps: list[str] = []

    def __call__(self, name: str, step: Callable[[], T], /) -> T:
        if name == self.at:
            raise KeyboardInterrupt
        self.steps.append(name)
        return step()


def test_a_student_is_trained_on_the_teachers_masks_scored_and_published(place: Path) -> None:
    listener = Listener()
    truth = {"dataset": f"{place}/data", "labels": None, "split": "val"}
    report = distil(distil_job(place, truth=truth), listener)
    store = open_store(f"{place}/distilled/small")
    keys = sampled_keys(store)
    assert keys is not None
    assert len(keys) == 12
    assert len({key.split("/")[0] for key in keys}) == 4
    assert (report.predictions.sampled, report.predictions.segmented) == (12, 12)
    assert [(each.model, each.against) for each in report.scores] == [
        ("student", "teacher"), ("student", "truth"), ("teacher", "truth"),
    ]  # fmt: skip
    assert report.mean_iou("student", "teacher") is not None
    student = load_bundle(f"{place}/distilled/small/student/model")
    assert student.labels.names == LABELS.names
    registry = open_registry(f"{place}/registry")
    (version,) = registry.versions("student")
    assert report.versions == (version.version,) == (student.model_id,)
    assert "distilled_from" in version.notes
    assert registry.champion("student") is None, "nothing is promoted"
    pairs = open_dataset(
        DatasetOptions.model_validate({"dataset": report.predictions.dataset, "predicted": {"val_share": 0.3}}), "train"
    )
    assert {pair.image for pair in pairs.pairs} < set(keys)


@pytest.mark.parametrize("at", ["segment sample", "train student", "publish"])
def test_the_same_job_resumes_with_the_same_sample_and_masks(place: Path, at: str) -> None:
    job = distil_job(place)
    with pytest.raises(KeyboardInterrupt):
        distil(job, run=Stops(at))
    store = open_store(f"{place}/distilled/small")
    keys, predictions = sampled_keys(store), read_predictions(store)
    assert open_registry(f"{place}/registry").names() == []
    fill(place / "photos" / "cam9", 8, size=(64, 48), start=50)  # what comes meanwhile changes nothing
    report = distil(job)
    assert sampled_keys(store) == keys
    assert predictions in (None, report.predictions)
    listener = Listener()
    again = distil(job, listener)
    assert (again.versions, again.predictions) == (report.versions, report.predictions)
    assert again.trained.nothing_to_do
    assert "12 images were sampled before" in listener.notes


def test_a_wish_to_stop_is_heeded_and_nothing_is_published(place: Path) -> None:
    with pytest.raises(DistilStopped, match="the same job resumes"):
        distil(distil_job(place), should_stop=lambda: True)
    assert open_registry(f"{place}/registry").names() == []


def test_another_distillation_of_that_name_is_refused(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        distil(distil_job(place), run=Stops("sample"))
    with pytest.raises(InputError, match="sample was 12 and is 13; give this one another --name"):
        distil(distil_job(place, sample=13))
    shutil.rmtree(place / "teacher")
    model(LABELS, seed=5).save(place / "teacher")
    with pytest.raises(InputError, match=r"teacher was '.*' and is"):
        distil(distil_job(place))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "/nowhere"}, "/nowhere"),
        ({"teacher": "/nowhere"}, "there is no model at /nowhere"),
        ({"registry": "/proc/registry"}, "cannot be written"),
        ({"exclude": ["*"]}, "no image that include and exclude let through"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_segmented(
    place: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        distil(distil_job(place, **changes))
    assert not (place / "distilled" / "small" / "predictions" / "runs").exists()


def test_truth_of_other_classes_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="has other classes"):
        distil(distil_job(place, truth={"dataset": f"{place}/data", "labels": "camvid"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predicted": {"val_share": 0}}, "nothing to score the student on"),
        ({"student": {"train": {"batch_size": 0}}}, "student.train.batch_size"),
        ({"student": {"dataset": "x"}}, "student.dataset"),
        ({"student": {"arch": "tv_fcn", "staged": True}}, "student: tv_fcn is not trained in stages"),
        ({"sample": 3}, "sample"),
        ({"name": "../up"}, "name"),
    ],
)
def test_options_that_make_no_sense_are_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        distil_job(place, **changes)


def test_a_job_that_was_written_down_is_the_same_job(place: Path) -> None:
    job = distil_job(place)
    assert DistilJob.model_validate_json(job.model_dump_json()) == job


def test_an_int8_student_is_scored_and_published_too(place: Path) -> None:
    requires("nncf", install="'fcn-pipeline[quantize]'")
    report = distil(distil_job(place, quantize=True))
    assert [each.model for each in report.scores] == ["student", "int8"]
    assert len(set(report.versions)) == 2
    assert load_bundle(f"{place}/distilled/small/int8").int8 is not None
    assert distil(distil_job(place, quantize=True)).versions == report.versions


def test_a_dry_run_prices_both_ways_and_writes_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = distil_job(place)
    found = estimate_distillation(job)
    assert (found.teacher.images, found.sample.images, found.student.images) == (16, 12, 16)
    assert found.training.images == 6
    assert found.student_cost == pytest.approx(
        sum(cost for part in (found.sample, found.training, found.student) if (cost := part.cost.once) is not None)
    )
    assert found.teacher_cost is not None
    assert not (place / "distilled").exists()
    file = place / "distil.yaml"
    file.write_text(yaml.safe_dump(options(place)))
    assert fcn(["distil", str(file), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for line in ("teacher on all", "teacher on the sample", "training", "student on all", "distilled, in all"):
        assert line in printed
    assert not (place / "distilled").exists()
    assert fcn(["distil", str(file), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["student_cost"] > 0


def test_the_command_prints_scores_and_versions_and_takes_options(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "distil.yaml"
    file.write_text(yaml.safe_dump(options(place)))
    assert fcn(["distil", str(file), "--json", "--student.train.steps", "2", "--teaching.void-below", "0.4"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["segmented"] == 12
    assert [each["against"] for each in found["scores"]] == ["teacher"]
    assert f"registry:student@{found['versions'][0]}" in printed.err
    assert "--sample" in refused(capsys, "distil", file, "--sample", "3")


def test_an_imported_graph_teaches_like_any_model(place: Path) -> None:
    requires("onnx", install="'fcn-pipeline[onnx]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    theirs = import_onnx(written(small_onnx(classes=3), place / "net.onnx"), LABELS, IMAGENET).bundle
    theirs.save(place / "theirs")
    report = distil(distil_job(place, teacher=f"{place}/theirs"))
    assert theirs.model_id in report.teacher
    assert report.mean_iou("student", "teacher") is not None
    student = load_bundle(f"{place}/distilled/small/student/model")
    assert (student.kind, student.labels.names) == ("network", LABELS.names)
