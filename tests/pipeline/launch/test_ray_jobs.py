"""Jobs of all three kinds on a standing cluster: submitted, followed, stopped, found again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.errors import InputError
from pipeline.evaluation.job import BrokenExamples
from pipeline.evaluation.options import EvaluateJob
from pipeline.launch.jobs import evaluate_on, segment_on, train_on
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.options import OnRayJobs
from pipeline.launch.work import Work
from pipeline.outputs.results import read_current
from pipeline.outputs.runs import Progress, records
from pipeline.segmentation.observer import Observer
from pipeline.segmentation.options import SegmentJob
from pipeline.storage.store import open_store
from pipeline.training.job import TrainObserver
from tests.labelled import write_labelled
from tests.samples import fill
from tests.standing_ray import ROOT
from tests.trainings import job as train_job
from tests.trainings import write_scenes

pytestmark = pytest.mark.timeout(600)


class Listening(Observer):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.latest: Progress | None = None

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: Progress) -> None:
        self.latest = progress


def never() -> bool:
    return False


def jobs_of(cluster: str) -> list[JobDetails]:
    client = JobSubmissionClient(cluster, headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"})
    return list(client.list_jobs())


def slow_job(place: Path, model: Path, images: int) -> SegmentJob:
    """Four photos a shard, large enough that there is time to stop or to kill something in the middle."""
    return small_job(place, model, images, (640, 480), shard_size=4, engine="torch", precision="float32")


def small_job(place: Path, model: Path, images: int, size: tuple[int, int] = (96, 72), **options: object) -> SegmentJob:
    fill(place / "photos", images, size=size)
    return SegmentJob.model_validate(
        {
            "source": str(place / "photos"),
            "output": str(place / "labels"),
            "model": str(model),
            "device": "cpu",
            "cpus_per_actor": 1,
            "actors": 1,
            "no_report": True,
        }
        | options
    )


def test_a_labelling_runs_there_and_comes_back_whole(standing_cluster: str, tmp_path: Path, model_dir: Path) -> None:
    job = small_job(tmp_path, model_dir, 12)
    there = OnRayJobs(address=standing_cluster)
    listening = Listening()
    report = segment_on(there, job, listening, never)
    assert report.state == "finished"
    assert report.counts.ok == 12
    assert report.selection.selected == 12
    assert listening.latest is not None
    assert listening.latest.done == 12
    name = Work.of(job).name
    assert listening.notes == [f"launched {name}-1"]
    (details,) = [each for each in jobs_of(standing_cluster) if each.submission_id == f"{name}-1"]
    assert details.metadata == {"kind": "segment", "output": open_store(job.output).uri}
    assert set((details.runtime_env or {})["env_vars"]) == {"RAY_JOB_STOP_WAIT_TIME_S"}, "no credentials travel"

    again = Listening()
    report = segment_on(there, job, again, never)
    assert report.runs == ()
    assert report.selection.done == 12
    assert again.notes == [f"launched {name}-2"], "a finished launch is not followed again"


def test_a_stopped_labelling_ends_within_seconds_and_the_next_does_the_rest(
    standing_cluster: str, tmp_path: Path, model_dir: Path
) -> None:
    job = slow_job(tmp_path, model_dir, 240)
    there = OnRayJobs(address=standing_cluster)
    asked: list[float] = []

    def once_it_works() -> bool:
        if not asked and sum(1 for _ in open_store(job.output).list("results/")) >= 2:
            asked.append(time.monotonic())
        return bool(asked)

    report = segment_on(there, job, Listening(), once_it_works)
    assert report.state == "interrupted"
    assert time.monotonic() - asked[0] < 15
    (details,) = [each for each in jobs_of(standing_cluster) if each.submission_id == f"{Work.of(job).name}-1"]
    assert details.status.is_terminal()
    committed = sum(1 for _ in open_store(job.output).list("results/"))
    assert 2 <= committed < 60, "the test wants to stop in the middle"

    report = segment_on(there, job, Listening(), never)
    assert report.state == "finished"
    assert [record.state for record in report.runs] == ["finished"], "the same run went on"
    assert read_current(open_store(job.output)).num_rows == 240


FOLLOWER = """
import sys
from pipeline.launch.jobs import segment_on
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.options import OnRayJobs
from pipeline.segmentation.options import SegmentJob
from tests.pipeline.launch.test_ray_jobs import Listening, never

segment_on(OnRayJobs(address=sys.argv[1]), SegmentJob.model_validate_json(sys.argv[2]), Listening(), never)
"""


def test_who_follows_may_die_and_the_next_finds_the_job_running(
    standing_cluster: str, tmp_path: Path, model_dir: Path
) -> None:
    job = slow_job(tmp_path, model_dir, 160)
    follower = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, standing_cluster, job.model_dump_json(exclude_unset=True)], cwd=ROOT
    )
    deadline = time.monotonic() + 120
    while not any(open_store(job.output).list("results/")):
        assert follower.poll() is None, "the follower ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(follower.pid, signal.SIGKILL)
    follower.wait()
    listening = Listening()
    report = segment_on(OnRayJobs(address=standing_cluster), job, listening, never)
    name = f"{Work.of(job).name}-1"
    assert listening.notes == [f"following {name}, which runs already"]
    assert report.state == "finished"
    assert report.counts.ok == 160
    assert len(list(records(open_store(job.output)))) == 1


def test_two_that_ask_for_the_same_get_one_job(standing_cluster: str, tmp_path: Path, model_dir: Path) -> None:
    job = small_job(tmp_path, model_dir, 40)
    there = OnRayJobs(address=standing_cluster)
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(segment_on(there, job, Listening(), never))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    submitted = {each.submission_id for each in jobs_of(standing_cluster)}
    assert {name for name in submitted if name and name.startswith(Work.of(job).name)} == {f"{Work.of(job).name}-1"}


def test_what_cannot_be_done_is_refused_in_the_words_of_the_job(
    standing_cluster: str, tmp_path: Path, model_dir: Path
) -> None:
    job = small_job(tmp_path, tmp_path / "no-such-model", 1)
    with pytest.raises(InputError, match="no-such-model"):
        segment_on(OnRayJobs(address=standing_cluster), job, Listening(), never)


def test_a_wrong_token_is_refused_by_name(
    standing_cluster: str, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys\n"
        "from pipeline.launch.ray_jobs import RayJobsLauncher\n"
        "from pipeline.launch.work import Work\n"
        "from pipeline.errors import InputError\n"
        "try:\n"
        "    RayJobsLauncher(sys.argv[1]).find(Work.model_validate_json(sys.argv[2]))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    work = Work.of(small_job(tmp_path, model_dir, 1))
    done = subprocess.run(
        [sys.executable, "-c", program, standing_cluster, work.model_dump_json()],
        env=os.environ | {"RAY_AUTH_TOKEN": "f" * 64},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert "refused the token; set RAY_AUTH_TOKEN" in done.stdout, done.stderr


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, model_dir: Path) -> None:
    job = small_job(tmp_path, model_dir, 1)
    with pytest.raises(LauncherUnavailable, match=r"no Ray Jobs API answers at http://127.0.0.1:9;"):
        segment_on(OnRayJobs(address="http://127.0.0.1:9"), job, Listening(), never)


def test_an_evaluation_runs_there_and_names_what_is_broken(
    standing_cluster: str, tmp_path: Path, model_dir: Path
) -> None:
    write_labelled(tmp_path / "data", 3)
    there = OnRayJobs(address=standing_cluster)
    job = EvaluateJob(
        model=str(model_dir),
        dataset=str(tmp_path / "data"),
        output=str(tmp_path / "scores"),
        split="val",
        labels="camvid",
        device="cpu",
        cpus_per_actor=1,
        actors=1,
    )
    record = evaluate_on(there, job, Listening(), never)
    assert record.examples == 3
    broken = next((tmp_path / "data" / "JPEGImages").iterdir())
    broken.write_bytes(b"no image")
    with pytest.raises(BrokenExamples) as raised:
        evaluate_on(there, job, Listening(), never)
    assert [each.name for each in raised.value.errors] == [broken.stem]


def test_a_training_runs_there(standing_cluster: str, tmp_path: Path) -> None:
    write_scenes(tmp_path / "data")
    report = train_on(OnRayJobs(address=standing_cluster), train_job(tmp_path), TrainObserver(), never)
    assert report.state == "finished"
    assert report.steps == 6
    assert report.model_uri is not None
