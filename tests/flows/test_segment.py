"""The labelling flow on a real Prefect server and a real S3 server: it labels, reports, and fails with a reason.

The work of actors is done in this process, for they take seconds to start: demo/test_demo.py and test_deployments.py
run the flow on real ones.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.exceptions import ParameterTypeError

from flows.segment import SegmentSummary, TooManyErrors, TooMuchShift, segment
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from pipeline.storage.opening import open_store
from tests.flows.reading import first_line, last_run
from tests.in_process import segment_in_process
from tests.prefect_site import PrefectServer
from tests.samples import jpeg

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(900)]

Ended = tuple[FlowRun, dict[str, Artifact]]


@pytest.fixture(scope="module", autouse=True)
def in_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        yield


@pytest.fixture(scope="module")
def job(s3_endpoint: str, model_dir: Path) -> SegmentJob:
    bucket = f"flow-{os.urandom(8).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    for index in range(2):
        open_store(f"s3://{bucket}/photos").put(f"{index}.jpg", jpeg(80, 60, seed=index))
    return SegmentJob(
        source=f"s3://{bucket}/photos", output=f"s3://{bucket}/labels", model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first(job: SegmentJob, prefect_server: PrefectServer) -> tuple[SegmentSummary, Ended]:
    """The first run; no run to compare with is none that is too far away."""
    return segment(job, compare_limit=0.0), last_run("segment")


def test_the_flow_labels_and_shows_it(job: SegmentJob, first: tuple[SegmentSummary, Ended]) -> None:
    summary, (run, artifacts) = first
    assert isinstance(summary, SegmentSummary)
    assert (summary.counts.ok, summary.already_done, len(summary.run_ids)) == (2, 0, 1)
    assert run.name == f"{job.source} to {job.output}"
    assert {"progress", "class-areas", "summary"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert summary.run_ids[0] in str(artifacts["summary"].data)
    assert "sky" in str(artifacts["class-areas"].data)


@pytest.fixture(scope="module")
def failed(job: SegmentJob, first: tuple[SegmentSummary, Ended]) -> Ended:
    """A second run: of what is new, more fails than the job allows."""
    photos = open_store(job.source)
    photos.put("new.jpg", jpeg(80, 60, seed=77))
    photos.put("bad.jpg", b"no image")
    with pytest.raises(TooManyErrors, match=r"50 % of 2 images failed"):
        segment(job.model_copy(update={"max_error_rate": 0.1}))
    return last_run("segment")


def test_too_many_errors_fail_the_flow_with_the_reason_first(failed: Ended) -> None:
    run, artifacts = failed
    assert run.state
    assert run.state.is_failed()
    assert "50 % of 2 images failed" in first_line(run)
    assert "not_an_image" in str(artifacts["errors"].data)


@pytest.fixture(scope="module")
def within(job: SegmentJob, failed: Ended) -> SegmentSummary:
    """A third run: its class areas may have shifted as far as there is."""
    open_store(job.source).put("newer.jpg", jpeg(80, 60, seed=78))
    return segment(job, compare_limit=1.0)


@pytest.fixture(scope="module")
def shifted(job: SegmentJob, within: SegmentSummary) -> Ended:
    """A fourth run, whose class areas may not have shifted at all."""
    open_store(job.source).put("newest.jpg", jpeg(80, 60, seed=79))
    with pytest.raises(TooMuchShift, match=r"lie 0\.\d+ from .* more than compare_limit 0\.0"):
        segment(job, compare_limit=0.0)
    return last_run("segment")


def test_a_shift_of_the_class_areas_fails_the_flow_beyond_a_limit(within: SegmentSummary, shifted: Ended) -> None:
    assert (within.counts.ok, within.already_done) == (1, 4)
    assert '"class": "road", "mean share before": "' in str(shifted[1]["shift"].data)


def test_where_nothing_is_new_nothing_is_done_nor_compared(job: SegmentJob, shifted: Ended) -> None:
    again = segment(job, compare_limit=0.0)
    assert (again.counts.images, again.already_done, again.run_ids) == (0, 6, ())


def test_a_deployment_refuses_a_relative_path_for_a_worker_has_no_folder(
    job: SegmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", str(uuid4()))
    with pytest.raises(InputError, match="source is the relative path 'photos'"):
        segment(job.model_copy(update={"source": "photos"}))


def test_bad_input_fails_before_any_work(job: SegmentJob) -> None:
    elsewhere = f"{job.output}-2"
    with pytest.raises(InputError, match=r"there is no model at .*/no-model"):
        segment(job.model_copy(update={"model": f"{job.source}/no-model", "output": elsewhere}))
    assert list(open_store(elsewhere).list()) == []


def test_parameters_are_checked_before_a_run_starts(job: SegmentJob) -> None:
    with pytest.raises(ParameterTypeError, match="max_error_rate"):
        segment({**job.model_dump(), "max_error_rate": 7})  # type: ignore[arg-type]


def test_the_parameter_form_describes_every_option() -> None:
    definition = segment.parameters.definitions["SegmentJob"]["properties"]
    assert list(definition)[:3] == ["source", "output", "model"]
    assert all(option.get("description") for option in definition.values())


@pytest.mark.usefixtures("first")
def test_prefect_remembers_the_job_and_no_credential(job: SegmentJob, prefect_server: PrefectServer) -> None:
    with pytest.raises(InputError):
        segment(job.model_copy(update={"model": f"{job.source}/no-model"}))
    database = prefect_server.home / "prefect.db"
    remembered = b"".join(path.read_bytes() for path in database.parent.glob(database.name + "*"))
    assert job.source.encode() in remembered
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in remembered
