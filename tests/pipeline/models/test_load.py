"""A job that names its model by registry: looked up once, and the record says what was found."""

from pathlib import Path

import pytest

from fcn_core.models.description import MODEL_FILE, WEIGHTS_FILE
from pipeline.actors.observer import Observer
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from pipeline.models.load import load_bundle, open_model
from pipeline.models.registry import Registry, open_registry
from pipeline.outputs.runs import records
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.fcn_core.nets import small_bundle
from tests.in_process import segment_in_process
from tests.samples import fill, model

OLD, NEW = model(seed=0), model(seed=1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = open_registry(str(tmp_path / "registry"))
    registry.publish("road", NEW)
    registry.promote("road", registry.publish("road", OLD), "the first")
    return registry


def test_a_place_and_a_reference_open_the_same_model(registry: Registry, tmp_path: Path) -> None:
    OLD.save(tmp_path / "bundle")
    by_place = open_model(str(tmp_path / "bundle"))
    assert (by_place.origin.uri, by_place.origin.model_id) == (str(tmp_path / "bundle"), OLD.model_id)
    assert (by_place.origin.name, by_place.origin.version, by_place.origin.champion) == (None, None, None)
    for reference, champion in (("registry:road", 1), (f"registry:road@{OLD.model_id}", None)):
        origin = open_model(reference, registry.uri).origin
        assert (origin.asked, origin.model_id, origin.champion) == (reference, OLD.model_id, champion)
        assert load_bundle(origin.uri).model_id == OLD.model_id


def test_a_folder_that_looks_like_a_reference_can_still_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    OLD.save(tmp_path / "registry:road")
    assert load_bundle("./registry:road").model_id == OLD.model_id
    monkeypatch.delenv("FCN_REGISTRY", raising=False)
    with pytest.raises(InputError, match="FCN_REGISTRY"):
        load_bundle("registry:road")


def test_damaged_weights_are_named(registry: Registry) -> None:
    uri = registry.resolve("registry:road").uri
    Path(uri, "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"model\.safetensors \(4 bytes\) has SHA-256"):
        load_bundle("registry:road", registry.uri)


def test_a_job_takes_the_champion_of_its_start_and_records_which_that_was(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 2)
    job = SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model="registry:road@champion",
        registry=registry.uri, device="cpu", actors=1, cpus_per_actor=1, engine="torch", no_report=True,
    )  # fmt: skip
    notes = []

    class Promoter(Observer):
        def phase(self, name: str) -> None:
            if name == "segmenting":
                registry.promote("road", NEW.model_id, "while a job runs", after=1)

        def note(self, text: str) -> None:
            notes.append(text)

    (first,) = segment(job, Promoter()).runs
    assert first.job["model"] == "registry:road@champion"
    assert first.model_id == OLD.model_id
    assert first.model is not None
    assert (first.model.name, first.model.version, first.model.champion) == ("road", OLD.model_id, 1)
    assert f"registry:road@champion is version {OLD.model_id} of road, promotion 1" in notes
    assert next(records(open_store(job.output))).model == first.model

    (second,) = segment(job).runs
    assert second.model_id == NEW.model_id
    assert second.job_digest != first.job_digest, "another model is another job"
    assert second.counts.ok == 2

    by_place = job.model_copy(update={"model": second.model.uri, "registry": None})
    assert segment(by_place).runs == (), "the same model by another name has nothing left to do"
    registry.promote("road", OLD.model_id, "going back")
    assert segment(job).runs == (), "what the old champion has labelled is still there"


def test_files_larger_than_a_bundle_can_have_are_not_fetched(tmp_path: Path) -> None:
    """They are holes: fetching one would take all memory."""
    small_bundle("fcn32s", backbone="alexnet").save(tmp_path / "model")
    for name in (WEIGHTS_FILE, MODEL_FILE):
        with (tmp_path / "model" / name).open("r+b") as file:
            file.truncate(1 << 42)
        with pytest.raises(InputError, match=rf"{name} has 4398046511104 bytes, over the \d+ that it may have"):
            load_bundle(str(tmp_path / "model"))
