"""Every option says what it affects, and what is derived from that agrees with what the option does."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fcn_core.inference import settings
from pipeline.actors import cluster
from pipeline.jobs.affects import is_place, marked
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.retrain import RelabelJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.launch.work import Work
from pipeline.outputs.identity import Recipe
from pipeline.report.rerun import segment_command
from pipeline.segmentation.prepare import Inputs, check_inputs, job_digest, resolve
from tests.fcn_core.nets import photo, small_bundle

MARKS = dict(marked(SegmentJob))

OTHER: dict[str, Any] = {
    "device": "cpu", "precision": "bfloat16", "engine": "openvino", "snap": 32, "window": 512, "void_below": 0.5,
    "flip": True, "scales": (0.75, 1.0), "batch_size": 3,
    "deterministic": True, "max_pixels": 1_000_000, "image_timeout": 5.0, "image_memory": 1 << 27,
    "actors": 2, "cpus_per_actor": 2,
    "gpus_per_actor": 0.0, "codec_workers": 3, "shard_size": 7, "placement_timeout": 9.0, "ray_address": "ray:6379",
    "include": ("a*",), "exclude": ("b*",), "key_list": "/keys.txt", "max_side": 64, "limit": 5, "retry_errors": True,
    "repair": True, "image_column": "image", "follow_links": True, "max_error_rate": 0.5, "abort_error_rate": 0.5,
    "masks": "tar", "allow_empty": True, "fresh": True, "takeover": True, "no_report": True, "log_images": True,
    "features": True, "where": "confidence < 0.6",
}  # fmt: skip
"""A value of each option that is not its default; the places are varied by themselves."""

PLACES = {"source", "output", "model", "registry"}
RECIPE = Recipe("0123456789abcdef", "0123456789abcdef")


def _job(**changes: Any) -> SegmentJob:
    return SegmentJob.model_validate({"source": "/photos", "output": "/masks", "model": "/model", **changes})


def _digest(job: SegmentJob) -> str:
    return job_digest(job, job.source, job.output, RECIPE)


def test_every_option_has_a_mark_and_is_tried_here() -> None:
    assert MARKS.keys() == SegmentJob.model_fields.keys() == OTHER.keys() | PLACES


@pytest.mark.parametrize("name", OTHER)
def test_another_selection_is_another_job(name: str) -> None:
    mark = MARKS[name]
    changed = _digest(_job(**{name: OTHER[name]})) != _digest(_job())
    assert changed == (mark.what == "selection" and not mark.once)


def test_the_digest_of_a_job_of_0_1_is_what_it_was() -> None:
    assert _digest(_job(include=("*.jpg",), limit=9)) == "0172c65af05c1776"
    assert _digest(_job(key_list="/keys.csv")) == "432033a251ed11d8"


@pytest.mark.parametrize("name", OTHER)
def test_what_was_about_one_call_is_not_in_the_command_for_the_same_again(name: str) -> None:
    words = segment_command(_job(**{name: OTHER[name]}).model_dump(mode="json"))
    assert any(word.startswith("--" + name.replace("_", "-")) for word in words) != MARKS[name].once


@pytest.mark.parametrize("name", OTHER)
def test_a_job_has_one_name_whatever_drives_it(name: str) -> None:
    same = Work.of(_job(**{name: OTHER[name]})).name == Work.of(_job()).name
    assert same == MARKS[name].driver


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[SegmentJob, Inputs]:
    folder: Path = tmp_path_factory.mktemp("affects")
    (folder / "photos").mkdir()
    Image.fromarray(photo(40, 50)).save(folder / "photos" / "a.png")
    small_bundle().save(folder / "model")
    places = {"source": f"{folder}/photos", "output": f"{folder}/labels", "model": f"{folder}/model"}
    # Nothing left to "auto", so that every option below is another value on any machine.
    fixed = {"precision": "float32", "engine": "torch", "cpus_per_actor": 1, "batch_size": 1, "device": "auto"}
    job = _job(**places, **fixed)
    return job, check_inputs(job)


@pytest.mark.parametrize("name", sorted(OTHER.keys() - {"ray_address", "engine", "window"}))
def test_what_changes_masks_is_another_identity(
    inputs: tuple[SegmentJob, Inputs], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Settings are resolved here, as on a machine that computes in bfloat16: not every one does.
    monkeypatch.setattr(cluster, "is_remote", lambda address: False)
    monkeypatch.setattr(settings, "has_bfloat16", lambda device: True)
    job, opened = inputs
    changed = resolve(job.model_copy(update={name: OTHER[name]}), opened).recipe != resolve(job, opened).recipe
    assert changed == (MARKS[name].what == "masks")


def test_places_are_known_by_their_type() -> None:
    places = {kind: {name for name, field in kind.model_fields.items() if is_place(field)}
              for kind in (SegmentJob, EvaluateJob, TrainJob, RelabelJob)}  # fmt: skip
    assert places == {
        SegmentJob: {"source", "output", "model", "registry", "key_list"},
        EvaluateJob: {"dataset", "output", "model", "registry"},
        TrainJob: {"dataset", "output", "model", "registry"},
        RelabelJob: {"source", "output", "key_list"},
    }
