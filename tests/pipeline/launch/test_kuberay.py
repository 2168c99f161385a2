"""The KubeRay launcher, through the real kubernetes client, against an API server that keeps RayJobs in memory."""

import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.actors.observer import Observer
from pipeline.cli.run_launch import run_launch
from pipeline.errors import InputError, PipelineError
from pipeline.evaluation.job import BrokenExamples
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.launch import OnKubeRay
from pipeline.jobs.segment import SegmentJob
from pipeline.launch import jobs
from pipeline.launch.follow import follow
from pipeline.launch.kuberay import KubeRayLauncher, rayjob, read_template
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.work import Work, read_outcome
from tests.deploy.manifests import needs_schemas, problems
from tests.in_process import evaluate_in_process, segment_in_process
from tests.labelled import write_labelled
from tests.pipeline.launch.kubernetes_api import Answer, KubernetesApi, forbidden, status
from tests.samples import fill

ROOT = Path(__file__).parents[3]
AWAY = status(503, "ServiceUnavailable", "apiserver not ready")
TEMPLATE = ROOT / "deploy" / "kuberay" / "rayjob.yaml"


class Silent:
    def phase(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


class Operator(Observer):
    """Runs a job that waits as it would run in the RayJob's pod, but here: by the entrypoint's own arguments."""

    def __init__(self, site: KubernetesApi) -> None:
        self._site = site
        self.exit_codes: list[int] = []

    def phase(self, name: str) -> None:
        (job,) = self._site.jobs.values()
        if "status" not in job:
            *_, launch_id, text = shlex.split(job["spec"]["entrypoint"])
            self.exit_codes.append(run_launch(launch_id, text))
            self._site.stands(launch_id, "Failed" if self.exit_codes[-1] else "Complete")


@pytest.fixture
def kubernetes() -> Iterator[KubernetesApi]:
    site = KubernetesApi()
    yield site
    site.close()


@pytest.fixture
def launcher(kubernetes: KubernetesApi) -> KubeRayLauncher:
    return KubeRayLauncher(OnKubeRay(namespace="labels", template=str(TEMPLATE)), kubernetes.client())


@pytest.fixture
def work(tmp_path: Path, model_dir: Path) -> Work:
    (tmp_path / "photos").mkdir()
    fill(tmp_path / "photos", 2)
    return Work.of(
        SegmentJob(source=str(tmp_path / "photos"), output=str(tmp_path / "labels"), model=str(model_dir), device="cpu")
    )


def test_what_is_built_is_a_valid_rayjob_that_runs_the_work(work: Work) -> None:
    template = read_template(str(TEMPLATE))
    before = json.dumps(template)
    resource = rayjob(work, f"{work.name}-1", template, keep_seconds=60)
    assert problems(resource) == []
    assert len(resource["metadata"]["name"]) <= 47, "KubeRay derives longer names from it"
    *command, name, text = shlex.split(resource["spec"]["entrypoint"])
    assert command == ["python", "-P", "-m", "pipeline", "run-launch"]
    assert name == f"{work.name}-1"
    assert Work.model_validate_json(text) == work
    assert resource["spec"]["shutdownAfterJobFinishes"]
    assert json.dumps(template) == before, "the template is left as it is"


@needs_schemas
def test_a_misspelt_field_of_what_is_built_is_noticed(work: Work) -> None:
    resource = rayjob(work, f"{work.name}-1", read_template(str(TEMPLATE)), keep_seconds=60)
    resource["spec"]["shutdownAfterJobFinish"] = True
    assert problems(resource) != []


def test_a_job_is_submitted_followed_and_found_again(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    assert launcher.find(work) is None
    name = launcher.submit(work)
    assert name == f"{work.name}-1"
    assert launcher.find(work) == name
    assert launcher.submit(work) == name, "while it runs there is no second one"
    assert launcher.status(name).state == "waiting"
    kubernetes.stands(name, "Running")
    assert launcher.status(name).state == "running"
    kubernetes.stands(name, "Complete")
    assert launcher.status(name).state == "ended"
    assert launcher.find(work) is None, "one that has ended is not followed again"
    assert launcher.submit(work) == f"{work.name}-2"


def test_the_outcome_comes_from_the_output_and_outlives_the_cluster(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    outcome = follow(launcher, work, Operator(kubernetes), lambda: False, poll_seconds=0.05)
    assert outcome.state == "finished"
    assert outcome.report is not None
    assert outcome.report["counts"]["ok"] == 2
    kubernetes.jobs.clear()
    assert read_outcome(work, f"{work.name}-1") == outcome
    assert launcher.submit(work) == f"{work.name}-2", "an old outcome is never taken for that of a new launch"


@pytest.fixture
def launching(launcher: KubeRayLauncher, monkeypatch: pytest.MonkeyPatch) -> OnKubeRay:
    """Options for which the functions of `jobs` use `launcher`."""
    monkeypatch.setattr(jobs, "open_launcher", lambda launch: launcher)
    return OnKubeRay(namespace="labels", template=str(TEMPLATE))


def test_what_cannot_be_done_is_refused_in_the_words_of_the_job(
    kubernetes: KubernetesApi, launching: OnKubeRay, work: Work, tmp_path: Path
) -> None:
    job = SegmentJob.model_validate(work.options | {"model": str(tmp_path / "no-such-model")})
    operator = Operator(kubernetes)
    with pytest.raises(InputError, match=r"there is no model at .*/no-such-model"):
        jobs.segment_on(launching, job, operator, lambda: False)
    assert operator.exit_codes == [2]


def test_an_evaluation_that_is_refused_names_what_is_broken(
    kubernetes: KubernetesApi,
    launching: OnKubeRay,
    tmp_path: Path,
    model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate_in_process(monkeypatch)
    write_labelled(tmp_path / "data", 3)
    (tmp_path / "data" / "JPEGImages" / "001.jpg").write_bytes(b"no image")
    job = EvaluateJob(
        model=str(model_dir), dataset=str(tmp_path / "data"), output=str(tmp_path / "scores"), labels="camvid",
        device="cpu", actors=1, cpus_per_actor=1,
    )  # fmt: skip
    with pytest.raises(BrokenExamples) as raised:
        jobs.evaluate_on(launching, job, Operator(kubernetes), lambda: False)
    assert [(each.name, each.error) for each in raised.value.errors] == [("001", "not_an_image")]


def test_a_stop_deletes_the_job(kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work) -> None:
    asked: list[bool] = []
    told: list[str] = []
    outcome = follow(
        launcher,
        work,
        Silent(),
        lambda: bool(asked),
        lambda: asked.append(True),
        poll_seconds=0.05,
        on_launch=told.append,
    )
    assert outcome.state == "interrupted"
    (where,) = told
    assert f"`kubectl -n labels delete rayjob {work.name}-1`" in where, "how a person would have done it"
    assert kubernetes.jobs == {}


def test_an_interrupt_deletes_the_job_and_goes_on_up(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(launcher, work, Silent(), lambda: False, interrupt, poll_seconds=0.05)
    assert kubernetes.jobs == {}


def test_an_interrupt_deletes_the_job_also_when_the_place_is_away_for_a_moment(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    def interrupt() -> None:
        kubernetes.failing = AWAY
        threading.Timer(0.3, lambda: setattr(kubernetes, "failing", None)).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(launcher, work, Silent(), lambda: False, interrupt, poll_seconds=0.05)
    assert kubernetes.jobs == {}


def test_a_failure_of_the_follower_leaves_the_job_alone(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    def fail() -> None:
        raise OSError("the follower's disk is full")

    with pytest.raises(OSError, match="disk is full"):
        follow(launcher, work, Silent(), lambda: False, fail, poll_seconds=0.05)
    assert launcher.find(work) == f"{work.name}-1"


def test_a_job_that_ended_without_a_word_is_a_failure_that_says_so(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    with pytest.raises(PipelineError, match=r"ended without an outcome \(Failed"):
        follow(
            launcher,
            work,
            Silent(),
            lambda: False,
            lambda: kubernetes.stands(f"{work.name}-1", "Failed"),
            poll_seconds=0.05,
        )


@pytest.mark.parametrize(("answer", "error"), [(forbidden("list"), InputError), (AWAY, LauncherUnavailable)])
def test_a_refusal_and_an_absence_are_told_apart(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work, answer: Answer, error: type[Exception]
) -> None:
    kubernetes.failing = answer
    with pytest.raises(error, match=str(answer[0])):
        launcher.find(work)


def test_a_place_that_is_away_for_a_moment_is_asked_again(
    kubernetes: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    launcher.submit(work)
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            kubernetes.failing = AWAY
            threading.Timer(0.3, back).start()

    def back() -> None:
        kubernetes.stands(f"{work.name}-1", "Failed")
        kubernetes.failing = None

    with pytest.raises(PipelineError, match="without an outcome"):
        follow(launcher, work, Silent(), lambda: False, look, poll_seconds=0.05)
    assert len(looks) == 2, "before it was away, and once it had ended"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kind: RayCluster\n", "holds 'RayCluster'"),
        ("- a\n- b\n", "holds 'list'"),
        ("kind: RayJob\nspec: {}\n", "rayClusterSpec is missing"),
        ("kind: [\n", "is no YAML"),
    ],
)
def test_a_template_that_is_none_is_refused(tmp_path: Path, text: str, found: str) -> None:
    file = tmp_path / "rayjob.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=found):
        read_template(str(file))
