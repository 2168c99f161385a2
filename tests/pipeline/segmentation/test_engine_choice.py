"""Engine and settings of a job: settled once for a model and an output, kept, and part of what its masks are."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from fcn_core import PredictorSettings
from pipeline.actors.placement import Placement, place
from pipeline.actors.pool_spec import PoolSpec
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs import runs
from pipeline.outputs.identity import params_id
from pipeline.segmentation.prepare import ResolvedJob, check_inputs, resolve
from tests.fcn_core.nets import photo, small_bundle
from tests.requires import requires

OLD = {
    "precision": "float32", "batch_size": 1, "tile_pixels": 1 << 22, "threads": 2, "deterministic": False,
}  # fmt: skip


def _placement(**changes: object) -> Placement:
    settings = PredictorSettings.model_validate({"device": "cpu", **OLD, **changes})
    return Placement(settings, PoolSpec(1, 1, 0, 1.0), 1)


def test_masks_of_before_there_were_engines_keep_their_identity() -> None:
    assert _placement().recipe("m").params_id == params_id({"engine": "torch"} | OLD)


def test_engine_snapping_windows_and_views_are_part_of_the_identity() -> None:
    ids = {
        _placement().recipe("m").params_id,
        _placement(engine="openvino").recipe("m").params_id,
        _placement(snap=32).recipe("m").params_id,
        _placement(window=512).recipe("m").params_id,
        _placement(void_below=0.5).recipe("m").params_id,
        _placement(void_below=0.6).recipe("m").params_id,
        _placement(flip=True).recipe("m").params_id,
        _placement(scales=[1, 1.5]).recipe("m").params_id,
    }
    assert len(ids) == 8


@pytest.fixture
def job(tmp_path: Path) -> SegmentJob:
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo(40, 50)).save(tmp_path / "photos" / "a.png")
    small_bundle().save(tmp_path / "model")
    places = {"source": f"{tmp_path}/photos", "output": f"{tmp_path}/labels", "model": f"{tmp_path}/model"}
    return SegmentJob.model_validate({**places, "device": "cpu", "cpus_per_actor": 1, "no_report": True})


def test_auto_is_openvino_where_there_is_nothing_yet_and_the_notes_say_so(job: SegmentJob) -> None:
    requires("openvino", install="'fcn-pipeline[openvino]'")
    resolved = resolve(job, check_inputs(job))
    assert resolved.settings.engine == "openvino"
    assert any("by openvino" in note for note in resolved.notes)


def test_an_output_that_was_begun_with_torch_keeps_it(job: SegmentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = check_inputs(job)
    begun = resolve(job.model_copy(update={"engine": "torch"}), inputs)
    asked = job.model_dump(mode="json", exclude={"engine", "snap"})  # a record of before there were engines
    record = runs.RunRecord.model_construct(
        model_id=inputs.bundle.model_id, params_id=begun.recipe.params_id, settings=begun.settings, job=asked
    )
    monkeypatch.setattr(runs, "records", lambda output: [record])
    again = resolve(job, inputs)
    assert again.settings.engine == "torch"
    assert again.recipe == begun.recipe


@pytest.mark.parametrize("wrong", [{"engine": "torch"}, {"device": "cuda"}])
def test_int8_models_refuse_what_cannot_compute_them(job: SegmentJob, wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"int8, which only OpenVINO computes.*cannot be; leave it out"):
        place(job.model_copy(update=wrong), kind="int8")


def record_run(job: SegmentJob, run_id: str) -> ResolvedJob:
    """Settle the job, and leave the record of a run of it."""
    inputs = check_inputs(job)
    resolved = resolve(job, inputs)
    record = runs.RunRecord(
        run_id=run_id, state="finished", job=job.model_dump(mode="json"), job_digest=resolved.job_digest,
        model_id=resolved.recipe.model_id, params_id=resolved.recipe.params_id, recipe=resolved.recipe.name,
        settings=resolved.settings, images=1, shards=1, started=datetime(2026, 1, 1, tzinfo=UTC), version="0",
    )  # fmt: skip
    runs.write_record(inputs.output, record)
    return resolved


def test_one_explicit_option_does_not_change_what_was_settled_before(job: SegmentJob) -> None:
    begun = record_run(job, "20260101T000000Z-0001")
    once = record_run(job.model_copy(update={"batch_size": begun.settings.batch_size + 2}), "20260102T000000Z-0001")
    assert once.recipe != begun.recipe
    again = resolve(job, check_inputs(job))
    assert (again.settings, again.recipe) == (begun.settings, begun.recipe)


def test_other_settings_label_anew_and_say_so(job: SegmentJob) -> None:
    begun = record_run(job, "20260101T000000Z-0001")
    assert not any("segmented again" in note for note in begun.notes)
    assert not any("segmented again" in note for note in resolve(job, check_inputs(job)).notes)
    other = resolve(job.model_copy(update={"batch_size": begun.settings.batch_size + 1}), check_inputs(job))
    assert other.recipe != begun.recipe
    assert any("every image is segmented again" in note for note in other.notes)
