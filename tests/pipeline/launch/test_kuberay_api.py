"""What the KubeRay launcher makes of everything that an API server says: refusals, conflicts, absences, ends."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import Configuration
from kubernetes.config import kube_config

from pipeline.errors import InputError, PipelineError
from pipeline.jobs.launch import OnKubeRay
from pipeline.jobs.segment import SegmentJob
from pipeline.launch import kuberay as module
from pipeline.launch.follow import follow
from pipeline.launch.kuberay import KubeRayLauncher
from pipeline.launch.launcher import LauncherUnavailable
from pipeline.launch.work import Work
from tests.deploy.manifests import OVERLAYS, site
from tests.pipeline.launch.kubernetes_api import FINALIZER, Answer, KubernetesApi, about, status

OPTIONS = OnKubeRay(namespace="labels", template=str(Path(__file__).parents[3] / "deploy" / "kuberay" / "rayjob.yaml"))


class Silent:
    def phase(self, name: str) -> None: ...

    def note(self, text: str) -> None: ...


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    made = KubernetesApi()
    yield made
    made.close()


@pytest.fixture
def launcher(api: KubernetesApi) -> KubeRayLauncher:
    return KubeRayLauncher(OPTIONS, api.client())


@pytest.fixture
def work(tmp_path: Path) -> Work:
    places = {name: str(tmp_path / name) for name in ("source", "output", "model")}
    return Work.of(SegmentJob.model_validate(places))


def life(launcher: KubeRayLauncher, work: Work) -> None:
    """All that a launcher ever asks."""
    name = launcher.submit(work)
    assert launcher.find(work) == name
    assert launcher.status(name).state == "waiting"
    launcher.stop(name)
    assert launcher.status(name).state == "ended"


def granted(overlay: str) -> set[str]:
    """What the account of the Prefect worker may do, by the manifests: with RayJobs of one namespace alone."""
    found = site(overlay)
    bindings = [
        document
        for document in found
        if document["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and any(subject["name"] == "fcn-prefect-worker" for subject in document["subjects"])
    ]
    (binding,) = bindings
    assert binding["kind"] == "RoleBinding"
    assert binding["roleRef"]["kind"] == "Role"
    (role,) = (
        document
        for document in found
        if document["kind"] == "Role" and document["metadata"]["name"] == binding["roleRef"]["name"]
    )
    (rule,) = role["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["ray.io"], ["rayjobs"])
    assert rule.keys() == {"apiGroups", "resources", "verbs"}
    return set(rule["verbs"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_account_may_do_what_the_launcher_asks_and_nothing_more(
    overlay: str, api: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    api.allowed = granted(overlay)
    life(launcher, work)
    assert set(api.asked) == api.allowed


def test_a_verb_that_is_missing_is_named(api: KubernetesApi, launcher: KubeRayLauncher, work: Work) -> None:
    for verb in sorted(granted("cpu")):
        api.allowed = granted("cpu") - {verb}
        with pytest.raises(
            InputError,
            match=rf'403 .* in namespace labels: .*:fcn-prefect-worker" cannot {verb} ',
        ):
            life(launcher, work)
        api.jobs.clear()


def test_two_that_submit_at_once_have_one_job(api: KubernetesApi, work: Work) -> None:
    other = KubeRayLauncher(OPTIONS, api.client())

    class Late(KubeRayLauncher):
        """Creates after the other has, and has listed before."""

        def _list(self, work: Work) -> list[dict[str, Any]]:
            found = super()._list(work)
            other.submit(work)
            return found

    name = Late(OPTIONS, api.client()).submit(work)
    assert [name] == list(api.jobs)
    assert api.asked.count("create") == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        # A cluster without KubeRay: the server knows no such path, and says so in plain text.
        ((404, "404 page not found\n"), "has no RayJobs .*install the KubeRay operator"),
        (status(404, "NotFound", 'namespaces "labels" not found', name="labels", kind="namespaces"), "namespaces"),
        (status(401, "Unauthorized", "Unauthorized"), "401"),
        (
            status(
                403, "Forbidden", 'rayjobs.ray.io "fcn-segment-1" is forbidden: exceeded quota: jobs, requested: '
                "count/rayjobs.ray.io=1, used: count/rayjobs.ray.io=5, limited: count/rayjobs.ray.io=5",
                **about("fcn-segment-1"),
            ),
            "exceeded quota",
        ),
        (
            status(
                422, "Invalid", "rayjobs.ray.io \"fcn-segment-1\" is forbidden: ValidatingAdmissionPolicy 'fcn-jobs' "
                "with binding 'fcn-jobs' denied request: the image is not one of this site", **about("fcn-segment-1"),
            ),
            "denied request: the image is not one of this site",
        ),
        (status(409, "Conflict", "the object has been modified", **about("fcn-segment-1")), "has been modified"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_the_server_said(
    api: KubernetesApi, launcher: KubeRayLauncher, work: Work, answer: Answer, said: str
) -> None:
    api.failing = answer
    with pytest.raises(InputError, match=said) as raised:
        follow(launcher, work, Silent(), lambda: False, poll_seconds=0.01)
    assert "gone" not in str(raised.value)
    assert "\n" not in str(raised.value)


PASSING = [
    status(500, "InternalError", "etcdserver: leader changed"),
    status(500, "InternalError", 'failed calling webhook "rayjob.kb.io": context deadline exceeded'),
    status(429, "TooManyRequests", "too many requests, please try again later", retryAfterSeconds=1),
    status(410, "Expired", "The provided continue parameter is too old to display a consistent list result"),
    status(504, "Timeout", "request did not complete within the allotted timeout"),
    (502, "<html>Bad Gateway</html>"),
    (200, "<html>Sign in</html>"),
]


@pytest.mark.parametrize("answer", PASSING, ids=lambda answer: str(answer[0]))
def test_what_passes_is_waited_for_and_the_job_is_followed_to_its_end(
    api: KubernetesApi, launcher: KubeRayLauncher, work: Work, answer: Answer
) -> None:
    """Nobody watches: there is nothing to lose, or to begin anew from an old version. The job is asked for again."""
    name = launcher.submit(work)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            api.failing = answer
            threading.Timer(0.05, back).start()

    def back() -> None:
        api.stands(name, "Failed")
        api.failing = None

    with pytest.raises(PipelineError, match="without an outcome"):
        follow(launcher, work, Silent(), lambda: False, look, poll_seconds=0.01)
    assert looks == 2


def test_a_response_that_breaks_off_and_one_that_never_comes_pass_too(
    api: KubernetesApi, launcher: KubeRayLauncher, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = launcher.submit(work)
    api.cut_off = True
    with pytest.raises(LauncherUnavailable, match="does not answer"):
        launcher.status(name)
    api.cut_off = False
    monkeypatch.setattr(module, "REQUEST_SECONDS", (1.0, 0.1))
    api.silent.set()
    with pytest.raises(LauncherUnavailable, match="does not answer"):
        launcher.status(name)
    api.silent.clear()
    assert launcher.status(name).state == "waiting"


ENDS = [
    ("Complete", "", "Job finished successfully."),
    ("Failed", "AppFailed", "Job entrypoint command failed with exit code 137, last available logs ..."),
    # The head's pod was evicted, and Ray with it.
    ("Failed", "AppFailed", "Submitter completed but Ray job not found in RayCluster."),
    ("Failed", "SubmissionFailed", "Job submission has failed. Reason: BackoffLimitExceeded."),
    ("Failed", "JobStatusCheckTimeoutExceeded", "Failed to get the job's status for 300 s"),
    # The operator looks at it once, and never again.
    ("ValidationFailed", "ValidationFailed", "the RayJob spec is invalid: backoffLimit must be a positive integer"),
]


@pytest.mark.parametrize(("state", "reason", "message"), ENDS)
def test_a_job_that_has_ended_is_not_waited_for_nor_followed(
    api: KubernetesApi, launcher: KubeRayLauncher, work: Work, state: str, reason: str, message: str
) -> None:
    name = launcher.submit(work)
    api.stands(name, state, reason, f"\x1b[31m{message}\n\n")
    found = launcher.status(name)
    assert found.state == "ended"
    assert found.reason == " ".join(filter(None, (state, reason, message))), "on one line, without colours"
    assert launcher.find(work) is None
    assert launcher.submit(work) != name


@pytest.mark.parametrize("state", ["", "Initializing", "Waiting", "Suspended", "Suspending", "Retrying"])
def test_a_job_that_has_no_pods_waits(api: KubernetesApi, launcher: KubeRayLauncher, work: Work, state: str) -> None:
    name = launcher.submit(work)
    api.stands(name, state)
    assert launcher.status(name).state == "waiting"
    assert launcher.find(work) == name


def test_a_job_that_is_being_deleted_is_waited_for_by_its_follower_and_found_by_nobody_else(
    api: KubernetesApi, launcher: KubeRayLauncher, work: Work
) -> None:
    """KubeRay's finalizer keeps a deleted job until its driver has been stopped."""
    api.finalizers = [FINALIZER]
    name = launcher.submit(work)
    api.stands(name, "Running")
    launcher.stop(name)
    launcher.stop(name)
    assert launcher.status(name).state == "running"
    assert launcher.find(work) is None
    assert launcher.submit(work) == f"{work.name}-2"
    api.finish_deletion()
    assert launcher.status(name).state == "ended"
    launcher.stop(name)
    assert list(api.jobs) == [f"{work.name}-2"]


def test_the_kubeconfig_opens_it_also_when_it_is_one_of_several(
    api: KubernetesApi, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "site",
        "contexts": [{"name": "site", "context": {"cluster": "site", "user": "me"}}],
        "clusters": [{"name": "site", "cluster": {"server": api.url}}],
        "users": [{"name": "me", "user": {"token": "secret"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    monkeypatch.setattr(Configuration, "_default", None)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # The client has read KUBECONFIG when it was imported.
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", f"{tmp_path}/config:{tmp_path}/other")
    assert KubeRayLauncher(OPTIONS).find(work) is None
    assert api.authorizations == ["Bearer secret"]
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", f"{tmp_path}/none")
    with pytest.raises(InputError, match="no Kubernetes cluster is configured"):
        KubeRayLauncher(OPTIONS)
    assert capsys.readouterr().out == ""
