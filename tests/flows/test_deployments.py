"""Deployments of prefect.yaml on a whole site: server, worker, a standing Ray cluster with a token, an S3 server.

What is shared by the whole file: the site, and one long labelling that is meddled with, test by test. Masks can be
made slow to write, so that "in the middle" does not depend on how fast this machine is. That a cluster refuses a wrong
token, and evaluations and trainings there, are tests/pipeline/launch/test_ray_jobs.py's.
"""

import asyncio
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
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling
from prefect.workers.process import ProcessJobConfiguration
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.launch.work import Work
from pipeline.models.registry import open_registry
from pipeline.outputs.current import read_current
from pipeline.outputs.runs import records
from pipeline.segmentation.options import SegmentJob
from pipeline.storage.store import Store, open_store
from tests.faulty_s3 import FaultyS3, Weather
from tests.flows.reading import artifacts_of, first_line, log_of, runs_of
from tests.prefect_site import POOL, PrefectSite, prefect_site
from tests.samples import jpeg, model
from tests.standing_ray import standing_ray
from tests.trainings import options, write_scenes

pytestmark = pytest.mark.timeout(900)

PATIENCE_SECONDS = 300
NAMES = ("segment/nightly", "segment/adhoc", "evaluate/scores", "retrain/weekly-retrain")
SMALL = {"device": "cpu", "actors": 1, "cpus_per_actor": 1}
PHOTOS = 400
SHARDS = PHOTOS // 2


@dataclass(frozen=True)
class Site:
    """Where things are. `slow` makes every mask take three seconds."""

    bucket: str
    ray: str
    prefect: PrefectSite
    storage: FaultyS3
    deployments: dict[str, DeploymentResponse]

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def slow(self, yes: bool) -> None:
        self.storage.matches = lambda method, path: yes and method == "PUT" and "/masks/" in path

    def ray_jobs(self, job: SegmentJob) -> list[JobDetails]:
        """All launches of a job that the cluster knows."""
        client = JobSubmissionClient(self.ray, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
        jobs = [each for each in client.list_jobs() if (each.submission_id or "").startswith(Work.of(job).name)]
        return sorted(jobs, key=lambda each: each.submission_id or "")

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.deployments[deployment].id, parameters=parameters)


@pytest.fixture(scope="module")
def site(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    bucket = f"site-{os.urandom(8).hex()}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    weather = Weather(seed=0, rate=1.0, kinds=("stall",))
    with (
        FaultyS3(s3_endpoint, weather=weather, stall_seconds=3.0) as storage,
        pytest.MonkeyPatch.context() as patch,
    ):
        storage.matches = lambda method, path: False
        patch.setenv("AWS_ENDPOINT_URL", storage.endpoint)
        registry = open_registry(f"s3://{bucket}/registry")
        registry.promote("street", registry.publish("street", model()), "the first")
        write_scenes(f"s3://{bucket}/scenes/data", train=8, val=4)
        with standing_ray(folder) as ray, prefect_site(folder) as prefect:
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
            yield Site(bucket, ray, prefect, storage, deployed)


def state_of(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def wait_until(site: Site, true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{what} never came; the worker: {site.prefect.log.read_text()[-4000:]}"
        assert site.prefect.worker.poll() is None, site.prefect.log.read_text()
        time.sleep(0.2)


def ended(site: Site, run: FlowRun) -> FlowRun:
    """A flow run once it has ended, however it did."""

    def final() -> bool:
        state = state_of(run.id).state
        return state is not None and state.is_final()

    wait_until(site, final, "the end of the flow run")
    return state_of(run.id)


def masks(store: Store) -> int:
    return sum(1 for _ in store.list("masks/"))


def commits(output: str) -> int:
    return sum(1 for _ in open_store(output).list("results/"))


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
    }


def test_the_night_and_the_week_have_a_schedule(site: Site) -> None:
    crons = {
        name: [each.schedule.cron for each in found.schedules if isinstance(each.schedule, CronSchedule)]
        for name, found in site.deployments.items()
        if found.schedules
    }
    assert crons == {"segment/nightly": ["0 1 * * *"], "retrain/weekly-retrain": ["0 3 * * 0"]}
    assert all(each.active for found in site.deployments.values() for each in found.schedules)


def test_the_form_describes_every_option_of_every_job(site: Site) -> None:
    for name, each in site.deployments.items():
        schema = each.parameter_openapi_schema
        assert schema is not None
        assert all(parameter.get("description") for parameter in schema["properties"].values()), name
        for kind, definition in schema["definitions"].items():
            undescribed = [
                option for option, form in definition.get("properties", {}).items() if not form.get("description")
            ]
            assert undescribed == [], f"{name}: {kind}"


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


# The schedule


def begun_by_clock() -> list[FlowRun]:
    """The scheduled runs that a worker has begun; the next ones are turned away while the first is at work."""
    runs = (run for run in runs_of("segment") if run.auto_scheduled and run.start_time)
    return [run for run in runs if run.state and not run.state.is_cancelled()]


def no_more_by_clock() -> bool:
    """Whether none is left of the runs that a deleted schedule made, also in the moment in which it was deleted: one at
    work would have the place that the next test's run needs. What has not begun is deleted.
    """
    left = [run for run in runs_of("segment") if run.auto_scheduled and not (run.state and run.state.is_final())]
    with get_client(sync_client=True) as client:
        for run in left:
            if run.state and run.state.is_scheduled():
                client.delete_flow_run(run.id)
    return not left


@pytest.fixture(scope="module")
def scheduled(site: Site) -> FlowRun:
    """A night's run that came by itself, with the places that prefect.yaml got; ended."""
    photos = open_store(site.uri("photos"))
    for index in range(6):
        photos.put(f"{index}.jpg", jpeg(64, 48, seed=index))
    nightly = site.deployments["segment/nightly"]
    job = nightly.parameters["job"] | SMALL  # one actor will do
    often = IntervalSchedule(interval=timedelta(seconds=15))
    with get_client(sync_client=True) as client:
        (schedule,) = client.create_deployment_schedules(nightly.id, [(often, True)], parameters={"job": job})
        wait_until(site, lambda: bool(begun_by_clock()), "the scheduled run")
        client.delete_deployment_schedule(nightly.id, schedule.id)
    run = ended(site, begun_by_clock()[0])
    wait_until(site, no_more_by_clock, "the end of the clock's runs")
    return run


def test_a_scheduled_run_appears_by_itself_and_labels_what_is_new(site: Site, scheduled: FlowRun) -> None:
    assert scheduled.state
    assert scheduled.state.is_completed(), scheduled.state.message
    output = open_store(site.uri("labels"))
    assert masks(output) == 6
    assert read_current(output).num_rows == 6


def test_its_artifacts_are_there(site: Site, scheduled: FlowRun) -> None:
    artifacts = artifacts_of(scheduled)
    assert {"launch", "progress", "class-areas", "summary"} <= artifacts.keys()
    assert artifacts["progress"].data == 100.0
    assert f"]({site.ray}/#/jobs/fcn-segment-" in str(artifacts["launch"].data)
    (record,) = records(open_store(site.uri("labels")))
    summary = str(artifacts["summary"].data)
    assert f"s3://{site.bucket}/labels/reports/{record.run_id}/index.html" in summary
    assert record.run_id in summary
    assert "road" in str(artifacts["class-areas"].data)


def test_a_relative_path_is_refused_for_a_worker_has_no_folder(site: Site) -> None:
    here = {"where": "here"}
    job = {"source": "photos", "output": site.uri("nowhere"), "model": "registry:street@champion"}
    run = ended(site, site.start("segment/adhoc", job=job, launch=here))
    assert run.state
    assert run.state.is_failed()
    assert "source is the relative path 'photos'" in first_line(run)


# One long labelling, and what happens to it


@pytest.fixture(scope="module")
def job(site: Site) -> SegmentJob:
    photos = open_store(site.uri("many"))
    for index in range(PHOTOS):
        photos.put(f"{index}.jpg", jpeg(32, 24, seed=index))
    return SegmentJob(
        source=site.uri("many"), output=site.uri("many-labels"), model="registry:street@champion",
        registry=site.uri("registry"), shard_size=2, no_report=True, **SMALL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def retraining(site: Site) -> FlowRun:
    """A small training of a new model, begun: it works beside the long labelling, which waits for its storage."""
    training = options(site.uri("scenes"), name="squares-{date}", output=site.uri("training"))
    contest = {"registry": site.uri("registry"), "registry_name": "squares", "evaluation": SMALL}
    return site.start("retrain/weekly-retrain", job=training | contest)


@pytest.fixture(scope="module")
def running(site: Site, job: SegmentJob, retraining: FlowRun) -> FlowRun:
    """A night's run in the middle of its work."""
    site.slow(True)
    run = site.start("segment/nightly", job=job.model_dump(mode="json", exclude_unset=True))
    wait_until(site, lambda: commits(job.output) >= 2, "the first commits")
    return run


def test_a_second_run_of_the_night_is_turned_away(site: Site, job: SegmentJob, running: FlowRun) -> None:
    second = ended(site, site.start("segment/nightly", job=job.model_dump(mode="json", exclude_unset=True)))
    assert second.state
    assert second.state.is_cancelled()
    assert "concurrency limit" in first_line(second)
    assert len(site.ray_jobs(job)) == 1
    assert state_of(running.id).state_name == "Running"


def test_another_deployment_is_kept_from_the_output_by_its_lease(site: Site, job: SegmentJob, running: FlowRun) -> None:
    other = job.model_copy(update={"retry_errors": True})
    refused = ended(site, site.start("segment/adhoc", job=other.model_dump(mode="json", exclude_unset=True)))
    assert refused.state
    assert refused.state.is_failed()
    assert f"{job.output} is being written by another run" in first_line(refused)
    assert len(list(records(open_store(job.output)))) == 1
    assert state_of(running.id).state_name == "Running"


@pytest.fixture(scope="module")
def reattached(site: Site, job: SegmentJob, running: FlowRun) -> FlowRun:
    """The run after its process was killed and the run retried; at work again."""
    killed = site.prefect.processes_of(running.id)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    crashed = ended(site, running)
    assert crashed.state
    assert crashed.state.is_crashed(), crashed.state
    assert [each.status for each in site.ray_jobs(job)] == [JobStatus.RUNNING], "the job goes on without its flow"
    # A worker reports such a death twice, the second time when it has tidied up: a retry that has begun by then is
    # declared crashed, too. These are its last words about it, which it says in either case.
    last = "prefect.flow_runs.worker - Check whether the flow run exceeded its memory"
    wait_until(site, lambda: last in site.prefect.log.read_text(), "the worker's last word on the first attempt")
    site.prefect.prefect("flow-run", "retry", str(running.id))
    wait_until(site, lambda: "which runs already" in log_of(running), "the second attempt")
    return running


def test_a_killed_flow_retried_follows_the_job_that_runs(site: Site, job: SegmentJob, reattached: FlowRun) -> None:
    (only,) = site.ray_jobs(job)
    assert only.status == JobStatus.RUNNING
    assert f"following {only.submission_id}, which runs already" in log_of(reattached)
    assert state_of(reattached.id).run_count == 2


@pytest.fixture(scope="module")
def cancelled(site: Site, job: SegmentJob, reattached: FlowRun) -> FlowRun:
    """The run, cancelled as by the button of Prefect's pages."""
    began = time.monotonic()
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(reattached.id, Cancelling())
    wait_until(site, lambda: all(each.status.is_terminal() for each in site.ray_jobs(job)), "the end of the Ray job")
    print(f"the Ray job had ended {time.monotonic() - began:.1f} s after the cancellation")
    return ended(site, reattached)


def test_cancelling_stops_the_ray_job_and_keeps_what_is_done(site: Site, job: SegmentJob, cancelled: FlowRun) -> None:
    assert cancelled.state
    assert cancelled.state.is_cancelled()
    (only,) = site.ray_jobs(job)
    assert only.status == JobStatus.STOPPED
    (record,) = records(open_store(job.output))
    assert record.state == "interrupted"
    assert 2 <= commits(job.output) < SHARDS, "in the middle"


def test_the_next_run_does_the_rest(site: Site, job: SegmentJob, cancelled: FlowRun) -> None:
    done = commits(job.output)
    site.slow(False)
    rest = ended(site, site.start("segment/nightly", job=job.model_dump(mode="json", exclude_unset=True)))
    assert rest.state
    assert rest.state.is_completed(), rest.state.message
    assert done < commits(job.output) == SHARDS
    (record,) = records(open_store(job.output))
    assert record.state == "finished", "the same run went on"
    assert masks(open_store(job.output)) == read_current(open_store(job.output)).num_rows == PHOTOS


# The other flows


def test_a_retraining_runs_on_the_cluster(site: Site, retraining: FlowRun) -> None:
    run = ended(site, retraining)
    assert run.state
    assert run.state.is_completed(), run.state.message
    assert open_registry(site.uri("registry")).champion("squares") is not None
    artifacts = artifacts_of(run)
    assert {"launch", "progress", "data", "curves", "scores", "verdict"} <= artifacts.keys()
    assert str(artifacts["verdict"].data).startswith("# Promoted")
