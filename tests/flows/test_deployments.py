"""Deployments of prefect.yaml on a whole site: server, worker, a standing Ray cluster with a token, an S3 server.

What is shared by the whole file: the site, a retraining, and one labelling that a schedule starts and that is meddled
with until it is done. S3 keeps it in its middle: the masks of its first shard pass, those of the others wait. Each
fixture notes what is so at its moment; the tests say what it was. That two who ask for the same get one job, and that a
cluster refuses a wrong token, is tests/pipeline/launch/test_ray_jobs.py's.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import boto3
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling, Scheduled
from prefect.workers.process import ProcessJobConfiguration
from pydantic import TypeAdapter
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from flows.form import SegmentForm
from flows.segment import segment
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from pipeline.launch.work import Work
from pipeline.models.registry import open_registry
from pipeline.outputs.current import read_current
from pipeline.outputs.runs import RunRecord, records
from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3
from tests.flows.reading import artifacts_of, first_line, log_of, runs_of
from tests.prefect_site import POOL, PrefectServer, PrefectSite, prefect_worker
from tests.samples import jpeg, model
from tests.standing_ray import standing_ray
from tests.trainings import options, write_scenes

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

PATIENCE_SECONDS = 400
NAMES = (
    "segment/nightly", "segment/adhoc", "evaluate/scores", "retrain/weekly-retrain", "audit/estimate",
    "choose/next-images", "learn/corrections", "distil/student",
)  # fmt: skip
SMALL = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
PHOTOS = 6
SHARDS = PHOTOS // 2
OFTEN = timedelta(seconds=10)


@dataclass(frozen=True)
class Site:
    """Where things are."""

    bucket: str
    ray: str
    prefect: PrefectSite
    storage: FaultyS3
    deployments: dict[str, DeploymentResponse]

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def ray_jobs(self, job: SegmentJob) -> list[JobDetails]:
        """All launches of a job that the cluster knows."""
        client = JobSubmissionClient(self.ray, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
        jobs = [each for each in client.list_jobs() if (each.submission_id or "").startswith(Work.of(job).name)]
        return sorted(jobs, key=lambda each: each.submission_id or "")

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.deployments[deployment].id, parameters=parameters)


@pytest.fixture(scope="module")
def site(s3_endpoint: str, prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    bucket = f"site-{os.urandom(8).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    with FaultyS3(s3_endpoint) as storage, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", storage.endpoint)
        registry = open_registry(f"s3://{bucket}/registry")
        registry.promote("street", registry.publish("street", model()), "the first")
        write_scenes(f"s3://{bucket}/scenes/data", train=8, val=4)
        with (
            standing_ray(folder, cpus=4) as ray,
            prefect_worker(prefect_server, folder) as prefect,
            deployments(prefect, bucket, ray) as deployed,
        ):
            yield Site(bucket, ray, prefect, storage, deployed)


@contextlib.contextmanager
def deployments(prefect: PrefectSite, bucket: str, ray: str) -> Iterator[dict[str, DeploymentResponse]]:
    """Those of prefect.yaml by name, deleted afterwards."""
    prefect.prefect(
        *("deploy", "--all"),
        FCN_SOURCE=f"s3://{bucket}/photos",
        FCN_OUTPUT=f"s3://{bucket}/labels",
        FCN_REGISTRY=f"s3://{bucket}/registry",
        FCN_MODEL_NAME="street",
        FCN_DATASET=f"s3://{bucket}/scenes/data",
        FCN_TRAINING=f"s3://{bucket}/training",
        RAY_API_SERVER_ADDRESS=ray,
    )
    with get_client(sync_client=True) as client:
        deployed = {name: client.read_deployment_by_name(name) for name in NAMES}
        for each in deployed.values():
            for schedule in each.schedules:  # else the night's run might come while its tests are at work
                client.update_deployment_schedule(each.id, schedule.id, active=False)
        try:
            yield deployed
        finally:
            for each in deployed.values():
                client.delete_deployment(each.id)


def state_of(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def wait_until(site: Site, true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{what} never came; the worker: {site.prefect.log.read_text()[-4000:]}"
        assert site.prefect.worker.poll() is None, site.prefect.log.read_text()
        time.sleep(0.1)


def ended(site: Site, run: FlowRun) -> FlowRun:
    """A flow run once it has ended, however it did."""

    def final() -> bool:
        state = state_of(run.id).state
        return state is not None and state.is_final()

    wait_until(site, final, "the end of the flow run")
    return state_of(run.id)


def commits(job: SegmentJob) -> int:
    return sum(1 for _ in open_store(job.output).list("results/"))


def only_record(job: SegmentJob) -> RunRecord:
    (record,) = records(open_store(job.output))
    return record


# What there is once it is deployed


def test_every_deployment_has_pool_tags_description_and_a_limit(site: Site) -> None:
    for name, each in site.deployments.items():
        assert each.work_pool_name == "fcn"
        assert "fcn" in each.tags
        assert each.description
        assert each.enforce_parameter_schema
        assert each.global_concurrency_limit is not None, name
        assert each.concurrency_options is not None, name
        assert each.pull_steps == [], "the package is installed where the worker is"
    limits = {
        name: (each.global_concurrency_limit.limit, each.concurrency_options.collision_strategy.value)
        for name, each in site.deployments.items()
        if each.global_concurrency_limit and each.concurrency_options
    }
    assert limits == {
        "segment/nightly": (1, "CANCEL_NEW"),
        "segment/adhoc": (2, "ENQUEUE"),
        "evaluate/scores": (2, "ENQUEUE"),
        "retrain/weekly-retrain": (1, "CANCEL_NEW"),
        "audit/estimate": (2, "ENQUEUE"),
        "distil/student": (1, "ENQUEUE"),
        "choose/next-images": (1, "CANCEL_NEW"),
        "learn/corrections": (1, "ENQUEUE"),
    }


def test_the_night_and_the_week_have_a_schedule(site: Site) -> None:
    crons = {
        name: [each.schedule.cron for each in found.schedules if isinstance(each.schedule, CronSchedule)]
        for name, found in site.deployments.items()
        if found.schedules
    }
    assert crons == {
        "segment/nightly": ["0 1 * * *"],
        "retrain/weekly-retrain": ["0 3 * * 0"],
        "choose/next-images": ["0 5 * * 1"],
    }
    active = {name for name, found in site.deployments.items() if any(each.active for each in found.schedules)}
    assert active == {"segment/nightly", "retrain/weekly-retrain"}, "tasks for people are a site's own to switch on"


def test_the_form_describes_every_option_of_every_job(site: Site) -> None:
    for name, each in site.deployments.items():
        schema = each.parameter_openapi_schema
        assert schema is not None
        assert all(parameter.get("description") for parameter in schema["properties"].values()), name
        for kind, definition in schema["definitions"].items():
            options = definition.get("properties", {})
            for group in list(options.values()):
                options = options | group.get("anyOf", [{}])[0].get("properties", {})
            undescribed = [option for option, form in options.items() if not form.get("description")]
            assert undescribed == [], f"{name}: {kind}"
            assert "ray_address" not in options, f"{name}: {kind}"


def test_the_night_s_form_begins_with_source_and_output_and_folds_the_rest_in_groups(site: Site) -> None:
    schema = site.deployments["segment/nightly"].parameter_openapi_schema
    assert schema is not None
    options = schema["definitions"]["SegmentJob"]["properties"]
    in_order = sorted(options, key=lambda name: options[name]["position"])
    assert in_order[:4] == ["source", "output", "model", "registry"]
    assert [options[name]["title"] for name in in_order[4:]] == [
        "Images", "Prediction", "Results", "Limits", "Speed and placement", "Run control",
    ]  # fmt: skip


def test_no_deployment_holds_a_secret(site: Site) -> None:
    for each in site.deployments.values():
        kept = each.model_dump_json()
        assert os.environ["RAY_AUTH_TOKEN"] not in kept
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in kept


def test_a_pool_keeps_the_name_of_a_secret_which_the_worker_looks_up(site: Site) -> None:
    """As docs/schedules.md says to keep credentials in Prefect."""
    Secret(value="hidden-from-all").save("s3-secret-key")
    named = {"AWS_SECRET_ACCESS_KEY": "{{ prefect.blocks.secret.s3-secret-key }}"}

    async def looked_up() -> tuple[str, dict[str, str | None]]:
        async with get_client() as client:
            template = (await client.read_work_pool(POOL)).base_job_template
            template["variables"]["properties"]["env"]["default"] = named
            await client.create_work_pool(WorkPoolCreate(name="secretive", type="process", base_job_template=template))
            pool = await client.read_work_pool("secretive")
            found = await ProcessJobConfiguration.from_template_and_values(pool.base_job_template, {})
            return pool.model_dump_json(), found.env

    kept, environment = asyncio.run(looked_up())
    assert environment["AWS_SECRET_ACCESS_KEY"] == "hidden-from-all"
    assert "hidden-from-all" not in kept


# Parameters


@pytest.mark.parametrize(
    ("deployment", "parameters"),
    [
        ("segment/adhoc", {"job": {"source": "s3://a", "model": "registry:street@champion"}}),
        ("segment/adhoc", {"job": {"source": "s3://a", "output": "", "model": "m"}}),
        ("segment/adhoc", {"job": {"source": "s3://a", "output": "s3://b", "model": "m", "max_error_rate": 7}}),
        ("segment/adhoc", {"job": {"source": "s3://a", "output": "s3://b", "model": "m", "actor": 2}}),
        ("segment/adhoc", {"job": {"source": "s3://a", "output": "s3://b", "model": "m", "limits": {"max_pixels": 0}}}),
        ("segment/adhoc", {"job": {"source": "s3://a?secret_access_key=x", "output": "s3://b", "model": "m"}}),
        ("segment/nightly", {"launch": {"where": "ray-jobs", "address": "ray-head:6379"}}),
        ("segment/nightly", {"launch": {"where": "the moon"}}),
        ("retrain/weekly-retrain", {"job": {"name": "a"}}),
        ("evaluate/scores", {"job": {"model": "m", "dataset": "s3://d", "split": ""}}),
    ],
)
def test_bad_parameters_are_refused_before_there_is_a_run(
    site: Site, deployment: str, parameters: dict[str, Any]
) -> None:
    flow = deployment.partition("/")[0]
    before = len(runs_of(flow))
    with pytest.raises(PrefectHTTPStatusError) as refused:
        site.start(deployment, **parameters)
    assert 400 <= refused.value.response.status_code < 500
    assert len(runs_of(flow)) == before


# A night's labelling, and what happens to it


@pytest.fixture(scope="module")
def job(site: Site) -> SegmentJob:
    """What the night's deployment labels, with the places that prefect.yaml got; a little work for one actor."""
    photos = open_store(site.uri("photos"))
    for index in range(PHOTOS):
        photos.put(f"{'first' if index < 2 else 'held'}/{index}.jpg", jpeg(32, 24, seed=index))
    parameters = site.deployments["segment/nightly"].parameters["job"] | SMALL | {"shard_size": 2}
    return TypeAdapter(SegmentForm).validate_python(parameters)


@pytest.fixture(scope="module")
def retraining(site: Site) -> FlowRun:
    """A small training of a new model, begun: it works beside the labelling, which waits for its storage."""
    training = options(site.uri("scenes"), name="squares-{date}", output=site.uri("training"), train={"steps": 2})
    contest = {"registry": site.uri("registry"), "registry_name": "squares", "evaluation": SMALL}
    contest["min_mean_iou"] = 0.0  # after two steps a model is no better than the commonest class
    return site.start("retrain/weekly-retrain", job=training | contest)


def by_clock() -> list[FlowRun]:
    return [run for run in runs_of("segment") if run.auto_scheduled]


def has_begun(run: FlowRun) -> bool:
    """Not so those that are turned away while another is at work."""
    return run.start_time is not None and run.state is not None and not run.state.is_cancelled()


def none_is_left_but(run: FlowRun) -> bool:
    """Whether all others that a deleted schedule made are gone, also of the moment in which it was deleted: one would
    take the place of the next that a test starts. What has not begun is deleted.
    """
    left = [other for other in by_clock() if other.id != run.id and not (other.state and other.state.is_final())]
    with get_client(sync_client=True) as client:
        for other in left:
            if other.state and other.state.is_scheduled():
                with contextlib.suppress(ObjectNotFound):
                    client.delete_flow_run(other.id)
    return not left


@dataclass(frozen=True)
class Night:
    """The scheduled run in the middle of its work, and one that was started then."""

    run: FlowRun
    second: FlowRun
    jobs: int
    state: str | None


@pytest.fixture(scope="module")
def night(site: Site, job: SegmentJob, retraining: FlowRun) -> Night:
    site.storage.hold(lambda method, path: method == "PUT" and "/masks/" in path and "/held/" in path)
    nightly = site.deployments["segment/nightly"]
    parameters = {"job": job.model_dump(mode="json", exclude_unset=True)}
    often = (IntervalSchedule(interval=OFTEN), True)
    with get_client(sync_client=True) as client:
        (schedule,) = client.create_deployment_schedules(nightly.id, [often], parameters=parameters)
        wait_until(site, lambda: any(map(has_begun, by_clock())), "the scheduled run")
        client.delete_deployment_schedule(nightly.id, schedule.id)
    (run,) = filter(has_begun, by_clock())
    wait_until(site, lambda: none_is_left_but(run), "the end of the clock's other runs")
    wait_until(site, lambda: commits(job) == 1, "the first commit")
    second = ended(site, site.start("segment/nightly", **parameters))
    return Night(run, second, len(site.ray_jobs(job)), state_of(run.id).state_name)


def test_a_scheduled_run_appears_by_itself_and_begins_to_label(night: Night) -> None:
    assert night.run.auto_scheduled
    assert night.state == "Running"


def test_a_second_run_of_the_night_is_turned_away(night: Night) -> None:
    assert night.second.state
    assert night.second.state.is_cancelled()
    assert "concurrency limit" in first_line(night.second)
    assert night.jobs == 1


@pytest.fixture(scope="module")
def refused(night: Night, job: SegmentJob) -> str:
    """What another run is told that would write to the same output, while the night's is at work."""
    with pytest.raises(InputError) as raised:
        segment(job)
    return str(raised.value)


def test_another_run_is_kept_from_the_output_by_its_lease(refused: str, job: SegmentJob) -> None:
    assert f"{job.output} is being written by another run" in refused


@dataclass(frozen=True)
class Retried:
    """The night's run after its process was killed and it was retried; at work again."""

    killed: FlowRun
    jobs_then: list[JobDetails]
    run: FlowRun
    jobs: list[JobDetails]


@pytest.fixture(scope="module")
def retried(site: Site, job: SegmentJob, night: Night, refused: str) -> Retried:
    processes = site.prefect.processes_of(night.run.id)
    assert processes
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    killed = ended(site, night.run)
    jobs_then = site.ray_jobs(job)
    # A worker reports such a death twice, the second time when it has tidied up: a retry that has begun by then is
    # declared crashed, too. These are its last words about it, which it says in either case.
    last = "prefect.flow_runs.worker - Check whether the flow run exceeded its memory"
    wait_until(site, lambda: last in site.prefect.log.read_text(), "the worker's last word on the first attempt")
    with get_client(sync_client=True) as client:  # as `prefect flow-run retry` does
        client.set_flow_run_state(night.run.id, Scheduled(), force=True)
    wait_until(site, lambda: "which runs already" in log_of(night.run), "the second attempt")
    return Retried(killed, jobs_then, state_of(night.run.id), site.ray_jobs(job))


def test_a_job_goes_on_without_its_flow(retried: Retried) -> None:
    assert retried.killed.state
    assert retried.killed.state.is_crashed(), retried.killed.state
    assert [each.status for each in retried.jobs_then] == [JobStatus.RUNNING]


def test_a_killed_flow_retried_follows_the_job_that_runs(retried: Retried) -> None:
    (only,) = retried.jobs
    assert only.status == JobStatus.RUNNING
    assert f"following {only.submission_id}, which runs already" in log_of(retried.run)
    assert retried.run.run_count == 2


@dataclass(frozen=True)
class Cancelled:
    """The night's run, cancelled as by the button of Prefect's pages."""

    run: FlowRun
    jobs: list[JobDetails]
    record: RunRecord
    commits: int


@pytest.fixture(scope="module")
def cancelled(site: Site, job: SegmentJob, retried: Retried) -> Cancelled:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(retried.run.id, Cancelling())
    wait_until(site, lambda: all(each.status.is_terminal() for each in site.ray_jobs(job)), "the end of the Ray job")
    run = ended(site, retried.run)
    return Cancelled(run, site.ray_jobs(job), only_record(job), commits(job))


def test_cancelling_stops_the_ray_job_and_keeps_what_is_done(cancelled: Cancelled) -> None:
    assert cancelled.run.state
    assert cancelled.run.state.is_cancelled()
    assert [each.status for each in cancelled.jobs] == [JobStatus.STOPPED]
    assert cancelled.record.state == "interrupted"
    assert cancelled.commits == 1, "in the middle"


@pytest.fixture(scope="module")
def rest(site: Site, job: SegmentJob, cancelled: Cancelled) -> FlowRun:
    """The next run of the same, ended."""
    site.storage.release()
    return ended(site, site.start("segment/nightly", job=job.model_dump(mode="json", exclude_unset=True)))


def test_the_next_run_does_the_rest(job: SegmentJob, cancelled: Cancelled, rest: FlowRun) -> None:
    assert rest.state
    assert rest.state.is_completed(), rest.state.message
    record, output = only_record(job), open_store(job.output)
    assert (record.run_id, record.state) == (cancelled.record.run_id, "finished"), "the same run went on"
    assert commits(job) == SHARDS
    assert sum(1 for _ in output.list("masks/")) == read_current(output).num_rows == PHOTOS


def test_its_artifacts_are_there(site: Site, job: SegmentJob, rest: FlowRun) -> None:
    artifacts = artifacts_of(rest)
    assert {"launch", "progress", "class-areas", "summary"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert f"]({site.ray}/#/jobs/fcn-segment-" in str(artifacts["launch"].data)
    run_id = only_record(job).run_id
    assert f"s3://{site.bucket}/labels/reports/{run_id}/index.html" in str(artifacts["summary"].data)
    assert "road" in str(artifacts["class-areas"].data)


# The other flows


def test_a_retraining_runs_on_the_cluster_and_makes_the_first_champion(site: Site, retraining: FlowRun) -> None:
    run = ended(site, retraining)
    assert run.state
    assert run.state.is_completed(), run.state.message
    assert open_registry(site.uri("registry")).champion("squares") is not None
    artifacts = artifacts_of(run)
    assert {"launch", "progress", "data", "curves", "scores", "verdict"} <= artifacts.keys()
    verdict = str(artifacts["verdict"].data)
    assert verdict.startswith("# Promoted")
    assert "there is no champion yet" in verdict
    assert '"champion": "-"' in str(artifacts["scores"].data)
    assert run.expected_start_time is not None
    assert f"/training/squares-{run.expected_start_time:%Y%m%d}`" in verdict, "a run of its own each day"
