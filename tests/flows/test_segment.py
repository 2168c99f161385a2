"""The labelling flow on a real Prefect server and a real S3 server: it labels, reports, and fails with a reason."""

import os
from pathlib import Path

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from flows.segment import SegmentSummary, TooManyErrors, TooMuchShift, segment
from pipeline.errors import InputError
from pipeline.segmentation.options import SegmentJob
from pipeline.storage.store import open_store
from tests.flows.reading import first_line, last_run
from tests.samples import jpeg

pytestmark = pytest.mark.usefixtures("prefect_server", "ray_cluster")


@pytest.fixture
def job(bucket: str, model_dir: Path) -> SegmentJob:
    photos = open_store(f"s3://{bucket}/photos")
    for index in range(6):
        photos.put(f"{index}.jpg", jpeg(80, 60, seed=index))
    return SegmentJob(
        source=f"s3://{bucket}/photos", output=f"s3://{bucket}/labels", model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1,
    )  # fmt: skip


def test_the_flow_labels_what_is_new_and_shows_it(job: SegmentJob) -> None:
    first = segment(job)
    assert isinstance(first, SegmentSummary)
    assert (first.counts.ok, first.already_done, len(first.run_ids)) == (6, 0, 1)
    assert len(list(open_store(job.output).list("masks/"))) == 6
    run, artifacts = last_run("segment")
    assert run.name == f"{job.source} to {job.output}"
    assert {"progress", "class-areas", "summary"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert first.run_ids[0] in str(artifacts["summary"].data)
    assert "sky" in str(artifacts["class-areas"].data)

    open_store(job.source).put("new.jpg", jpeg(80, 60, seed=77))
    second = segment(job)
    assert (second.counts.ok, second.already_done) == (1, 6)
    third = segment(job)
    assert (third.counts.images, third.already_done, third.run_ids) == (0, 7, ())


def test_too_many_errors_fail_the_flow_with_the_reason_first(job: SegmentJob) -> None:
    for index in range(4):
        open_store(job.source).put(f"bad{index}.jpg", b"no image")
    with pytest.raises(TooManyErrors, match=r"40 % of 10 images failed"):
        segment(job.model_copy(update={"max_error_rate": 0.1}))
    run, artifacts = last_run("segment")
    assert run.state
    assert run.state.is_failed()
    assert "40 % of 10 images failed" in first_line(run)
    assert "not_an_image" in str(artifacts["errors"].data)


def test_a_shift_of_the_class_areas_fails_the_flow_when_there_is_a_limit(job: SegmentJob) -> None:
    assert isinstance(segment(job, compare_limit=0.0), SegmentSummary), "there is no run before the first"
    open_store(job.source).put("new.jpg", jpeg(80, 60, seed=77))
    assert isinstance(segment(job, compare_limit=1.0), SegmentSummary)
    open_store(job.source).put("newer.jpg", jpeg(80, 60, seed=78))
    with pytest.raises(TooMuchShift, match=r"lie 0\.\d+ from .* more than compare_limit 0\.0000 allows"):
        segment(job, compare_limit=0.0)
    _, artifacts = last_run("segment")
    assert '"class": "road", "mean share before": "' in str(artifacts["shift"].data)
    assert isinstance(segment(job, compare_limit=0.0), SegmentSummary), "nothing was new"


def test_bad_input_fails_before_any_work(job: SegmentJob) -> None:
    with pytest.raises(InputError, match=r"there is no model at .*/no-model"):
        segment(job.model_copy(update={"model": f"{job.source}/no-model"}))
    assert list(open_store(job.output).list()) == []


def test_parameters_are_checked_before_a_run_starts(job: SegmentJob) -> None:
    with pytest.raises(ParameterTypeError, match="max_error_rate"):
        segment({**job.model_dump(), "max_error_rate": 7})  # type: ignore[arg-type]


def test_the_parameter_form_describes_every_option() -> None:
    definition = segment.parameters.definitions["SegmentJob"]["properties"]
    assert list(definition)[:3] == ["source", "output", "model"]
    assert all(option.get("description") for option in definition.values())


def test_prefect_remembers_the_job_and_no_credential(job: SegmentJob) -> None:
    segment(job)
    with pytest.raises(InputError):
        segment(job.model_copy(update={"model": f"{job.source}/no-model"}))
    database = Path(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    remembered = b"".join(path.read_bytes() for path in database.parent.glob(database.name + "*"))
    assert job.source.encode() in remembered
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in remembered
