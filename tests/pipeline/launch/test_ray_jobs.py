"""A labelling on a standing cluster: asked for twice, left alone by its followers, found again, stopped, finished.

S3 keeps it in its middle: the masks of the first shard pass, those of the others wait. Evaluations and trainings on
such a cluster are tests/flows/test_deployments.py's; what comes back of a job that is refused is test_kuberay.py's.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier

import pytest
from ray.job_submission import JobDetails

from pipeline.actors.observer import Observer
from pipeline.errors import InputError
from pipeline.jobs.launch import OnRayJobs
from pipeline.jobs.segment import SegmentJob
from pipeline.launch.jobs import segment_on
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.ray_jobs import RayJobsLauncher
from pipeline.launch.work import Work
from pipeline.outputs.current import read_current
from pipeline.outputs.runs import Progress, records
from pipeline.segmentation.run_report import RunReport
from pipeline.storage.opening import open_store
from tests.pipeline.launch.conftest import Cluster
from tests.samples import jpeg, model

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

PATIENCE_SECONDS = 300
PHOTOS = 6


class FollowerDied(Exception):
    """Ends who follows a job, and not the job."""


class Listening(Observer):
    """Remembers what it is told. `at_phase` is called with the first phase and may raise."""

    def __init__(self, at_phase: Callable[[], None] = lambda: None) -> None:
        self.notes: list[str] = []
        self.latest: Progress | None = None
        self._at_phase = at_phase

    def phase(self, name: str) -> None:
        self._at_phase()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: Progress) -> None:
        self.latest = progress


def never() -> bool:
    return False


@dataclass(frozen=True)
class Walk:
    """What was seen on the way, in order."""

    asked: list[Listening]
    jobs_asked: dict[str, JobDetails]
    follower: Listening
    stopped: RunReport
    jobs_stopped: dict[str, JobDetails]
    commits_stopped: int
    last: Listening
    finished: RunReport


@pytest.fixture(scope="module")
def job(standing_cluster: Cluster) -> SegmentJob:
    photos = open_store(standing_cluster.uri("photos"))
    for index in range(PHOTOS):
        photos.put(f"{'first' if index < 2 else 'held'}/{index}.jpg", jpeg(32, 24, seed=index))
    for name, data in model().to_files().items():
        open_store(standing_cluster.uri("model")).put(name, data)
    return SegmentJob(
        source=photos.uri, output=standing_cluster.uri("labels"), model=standing_cluster.uri("model"), device="cpu",
        actors=1, cpus_per_actor=1, shard_size=2, no_report=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def walk(standing_cluster: Cluster, job: SegmentJob) -> Walk:
    there = OnRayJobs(address=standing_cluster.address)
    standing_cluster.storage.hold(lambda method, path: method == "PUT" and "/masks/" in path and "/held/" in path)
    both = Barrier(2)

    def die() -> None:
        both.wait(PATIENCE_SECONDS)
        raise FollowerDied

    def ask() -> Listening:
        listening = Listening(die)
        with pytest.raises(FollowerDied):
            segment_on(there, job, listening, never)
        return listening

    with ThreadPoolExecutor(2) as threads:
        asked = [found.result() for found in [threads.submit(ask) for _ in range(2)]]
    jobs_asked = standing_cluster.jobs()

    def commits() -> int:
        return sum(1 for _ in open_store(job.output).list("results/"))

    follower = Listening()
    stopped = segment_on(there, job, follower, lambda: commits() > 0)
    jobs_stopped, commits_stopped = standing_cluster.jobs(), commits()
    standing_cluster.storage.release()
    last = Listening()
    finished = segment_on(there, job, last, never)
    return Walk(asked, jobs_asked, follower, stopped, jobs_stopped, commits_stopped, last, finished)


def test_two_that_ask_for_the_same_get_one_job(walk: Walk, job: SegmentJob) -> None:
    name = f"{Work.of(job).name}-1"
    assert list(walk.jobs_asked) == [name]
    notes = {note for listening in walk.asked for note in listening.notes}
    assert f"launched {name}" in notes
    assert notes <= {f"launched {name}", f"following {name}, which runs already"}


def test_no_credentials_travel_with_a_job(walk: Walk, job: SegmentJob) -> None:
    (details,) = walk.jobs_asked.values()
    assert details.metadata == {"kind": "segment", "output": open_store(job.output).uri}
    assert set((details.runtime_env or {})["env_vars"]) == {"RAY_JOB_STOP_WAIT_TIME_S"}


def test_who_follows_may_die_and_the_next_finds_the_job_running(walk: Walk, job: SegmentJob) -> None:
    (details,) = walk.jobs_asked.values()
    assert not details.status.is_terminal(), "both that asked for it are dead"
    assert walk.follower.notes == [f"following {Work.of(job).name}-1, which runs already"]


def test_a_stopped_labelling_ends_and_keeps_what_is_done(walk: Walk) -> None:
    assert walk.stopped.state == "interrupted"
    (details,) = walk.jobs_stopped.values()
    assert details.status.is_terminal()
    assert walk.commits_stopped == 1, "in the middle"


def test_the_next_does_the_rest_and_comes_back_whole(walk: Walk, job: SegmentJob) -> None:
    assert walk.last.notes == [f"launched {Work.of(job).name}-2"], "one that has ended is not followed"
    assert walk.finished.state == "finished"
    assert [record.state for record in walk.finished.runs] == ["finished"], "the same run went on"
    assert walk.finished.counts.ok == PHOTOS
    assert walk.last.latest is not None
    assert walk.last.latest.done == PHOTOS
    assert len(list(records(open_store(job.output)))) == 1
    assert read_current(open_store(job.output)).num_rows == PHOTOS


def test_a_wrong_token_is_refused_by_name(
    standing_cluster: Cluster, job: SegmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = RayJobsLauncher(standing_cluster.address)
    assert launcher.find(Work.of(job.model_copy(update={"limit": 1}))) is None, "nobody runs it; the token is right"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    with pytest.raises(InputError, match="refused the token; set RAY_AUTH_TOKEN"):
        RayJobsLauncher(standing_cluster.address).find(Work.of(job))


def test_a_cluster_that_is_not_there_is_named(job: SegmentJob) -> None:
    with pytest.raises(LauncherUnavailable, match=r"no Ray Jobs API answers at http://127.0.0.1:9;"):
        segment_on(OnRayJobs(address="http://127.0.0.1:9"), job, Listening(), never)
