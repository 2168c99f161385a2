"""deploy/kuberay/admission: which RayJobs may be made. Its expressions are evaluated where cel-python is installed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.manifests import KUBERAY, OVERLAYS, documents, ray_job, site

RULES, POLICY, BINDING = documents((KUBERAY / "admission" / "policy.yaml").read_text())


def head(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return pod


def worker(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    return pod


def from_secret(name: str) -> list[dict[str, Any]]:
    return [{"name": "X", "valueFrom": {"secretKeyRef": {"name": name, "key": "password"}}}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_site_has_the_policy_for_the_namespace_of_its_jobs(overlay: str) -> None:
    made = {(document["kind"], document["metadata"]["name"]): document for document in site(overlay)}
    for document in (POLICY, BINDING):
        there = made[document["kind"], document["metadata"]["name"]]
        assert "namespace" not in there["metadata"], "it is of the whole cluster"
        assert there["spec"] == document["spec"]
    assert BINDING["spec"]["policyName"] == POLICY["metadata"]["name"]
    assert BINDING["spec"]["validationActions"] == ["Deny"]
    assert BINDING["spec"]["paramRef"]["name"] == RULES["metadata"]["name"]
    namespaces = BINDING["spec"]["matchResources"]["namespaceSelector"]["matchLabels"].values()
    assert {*namespaces, BINDING["spec"]["paramRef"]["namespace"]} == {ray_job()["metadata"]["namespace"]}


def refused(job: dict[str, Any]) -> list[int]:
    """Which of the policy's validations, by number, a RayJob fails."""
    celpy: Any = pytest.importorskip("celpy")
    environment = celpy.Environment()
    context = {"object": celpy.json_to_cel(job), "params": celpy.json_to_cel(RULES)}
    variables: dict[Any, Any] = {}

    def value(expression: str) -> Any:
        named = {"variables": celpy.celtypes.MapType(variables)}
        return environment.program(environment.compile(expression)).evaluate(context | named)

    for variable in POLICY["spec"]["variables"]:
        variables[celpy.celtypes.StringType(variable["name"])] = value(variable["expression"])
    return [number for number, rule in enumerate(POLICY["spec"]["validations"]) if not value(rule["expression"])]


ACCOUNT, IMAGE, SECRET, SECRETS, VOLUME, REACHED = range(6)


def test_the_job_that_is_shipped_is_allowed() -> None:
    assert len(POLICY["spec"]["validations"]) == 6
    assert refused(ray_job()) == []
    on_a_standing_cluster = ray_job()
    del on_a_standing_cluster["spec"]["rayClusterSpec"]
    assert refused(on_a_standing_cluster) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda job: head(job).update(serviceAccountName="fcn-prefect-server"), ACCOUNT),
        (lambda job: worker(job)["containers"][0].update(image="docker.io/somebody/miner:1"), IMAGE),
        (lambda job: head(job).update(initContainers=[{"name": "i", "image": "miner"}]), IMAGE),
        (lambda job: job["spec"]["submitterPodTemplate"]["spec"]["containers"][0].pop("image"), IMAGE),
        (lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].update(image="miner"), IMAGE),
        (lambda job: worker(job)["containers"][0].update(env=from_secret("fcn-postgres")), SECRET),
        (lambda job: job["spec"]["rayClusterSpec"]["autoscalerOptions"].update(env=from_secret("fcn-redis")), SECRET),
        (lambda job: head(job)["containers"][0].update(envFrom=[{"secretRef": {"name": "fcn-postgres"}}]), SECRETS),
        (lambda job: head(job)["volumes"].append({"name": "s", "secret": {"secretName": "fcn-redis"}}), VOLUME),
        (lambda job: worker(job)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), VOLUME),
        (lambda job: job["spec"]["rayClusterSpec"].pop("authOptions"), REACHED),
        (lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"].update(serviceType="LoadBalancer"), REACHED),
    ],
)
def test_a_job_that_is_more_than_a_job_is_refused(change: Callable[[dict[str, Any]], Any], rule: int) -> None:
    job = copy.deepcopy(ray_job())
    change(job)
    assert refused(job) == [rule]


def test_a_job_may_have_the_token() -> None:
    job = copy.deepcopy(ray_job())
    worker(job)["containers"][0]["env"] = from_secret("fcn-ray-token")
    assert refused(job) == []
