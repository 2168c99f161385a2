"""deploy/kuberay: every document is valid, refers to what is there, and keeps the promises of docs/deploy.md."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import (
    DEPLOY,
    KUBERAY,
    OVERLAYS,
    ROOT,
    changed,
    documents,
    kustomized,
    needs_schemas,
    pod_templates,
    problems,
    ray_job,
    site,
    values_of,
)


def named(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (one,) = (document for document in found if document["kind"] == kind and document["metadata"]["name"] == name)
    return one


def made_secrets() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, DEPLOY / "make_secrets.py", "kubernetes"], capture_output=True, text=True, check=True
    )
    items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return items


@pytest.fixture(params=[*OVERLAYS, "job"])
def documents_of_a_kind(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """An overlay's documents, or the template of a job."""
    return [ray_job()] if request.param == "job" else site(request.param)


def test_every_document_is_valid(documents_of_a_kind: list[dict[str, Any]]) -> None:
    assert [problem for document in documents_of_a_kind for problem in problems(document)] == []
    assert [problem for secret in made_secrets() for problem in problems(secret)] == []


MISSPELT: list[tuple[str, str, tuple[str | int, ...], str]] = [
    ("Deployment", "fcn-prefect-server", ("spec", "template", "spec", "containers", 0), "livenessProbe"),
    ("StatefulSet", "fcn-redis", ("spec", "template", "spec", "securityContext"), "runAsNonRoot"),
    ("NetworkPolicy", "fcn-ray", ("spec",), "ingress"),
    ("PodDisruptionBudget", "fcn-ray-head", ("spec",), "minAvailable"),
    ("PriorityClass", "fcn-batch", (), "preemptionPolicy"),
    ("Role", "fcn-prefect-worker", ("rules", 0), "verbs"),
    ("RayCluster", "fcn", ("spec", "headGroupSpec", "template", "spec"), "securityContext"),
]


@pytest.mark.parametrize(("kind", "name", "path", "field"), MISSPELT)
def test_a_misspelt_field_is_noticed(kind: str, name: str, path: tuple[str | int, ...], field: str) -> None:
    document = named(site("gpu"), kind, name)
    assert problems(changed(document, path, field, field + "x"))


@needs_schemas
@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("spec",), "gcsFaultToleranceOptions"),
        (("spec", "authOptions"), "secretName"),
        (("spec", "autoscalerOptions"), "version"),
        (("spec", "workerGroupSpecs", 0), "minReplicas"),
    ],
)
def test_a_misspelt_field_of_a_ray_cluster_is_noticed(path: tuple[str | int, ...], field: str) -> None:
    assert problems(changed(named(site("cpu"), "RayCluster", "fcn"), path, field, field + "x"))


@needs_schemas
@pytest.mark.parametrize("field", ["shutdownAfterJobFinishes", "entrypoint", "rayClusterSpec"])
def test_a_misspelt_field_of_a_ray_job_is_noticed(field: str) -> None:
    job = ray_job()
    misspelt = {**job, "spec": {**job["spec"], field + "x": job["spec"][field]}}
    assert problems(misspelt)


def test_a_misspelt_field_of_a_kustomization_is_noticed(tmp_path: Any) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresource: []\n"
    )
    with pytest.raises(AssertionError, match="resource"):
        kustomized(tmp_path)


def test_a_key_that_stands_twice_is_noticed() -> None:
    with pytest.raises(yaml.YAMLError, match="twice"):
        documents("a: 1\nb: {c: 1, c: 2}\n")


def test_no_file_is_left_out() -> None:
    listed = set()
    for path in KUBERAY.rglob("kustomization.yaml"):
        (kustomization,) = documents(path.read_text())
        listed |= {(path.parent / name).resolve() for name in kustomization["resources"]}
        listed |= {(path.parent / patch["path"]).resolve() for patch in kustomization.get("patches", ())}
        listed.add(path.resolve())
    listed.add((KUBERAY / "rayjob.yaml").resolve())
    assert {path.resolve() for path in KUBERAY.rglob("*.yaml")} <= listed


def test_what_is_referred_to_is_there(documents_of_a_kind: list[dict[str, Any]]) -> None:
    there = site("cpu")
    names = {(document["kind"], document["metadata"]["name"]) for document in there}
    keys = {(secret["metadata"]["name"], key) for secret in made_secrets() for key in secret["stringData"]}
    for document in documents_of_a_kind:
        for reference in values_of(document, "secretKeyRef"):
            assert (reference["name"], reference["key"]) in keys
        for auth in values_of(document, "authOptions"):
            assert (auth["secretName"], "auth_token") in keys, "KubeRay reads this key"
        for reference in values_of(document, "configMapRef"):
            assert ("ConfigMap", reference["name"]) in names
        for account in values_of(document, "serviceAccountName"):
            assert ("ServiceAccount", account) in names
        for priority in values_of(document, "priorityClassName"):
            assert ("PriorityClass", priority) in names
        for where, template in pod_templates(document):
            claims = document["spec"].get("volumeClaimTemplates", ())
            volumes = {volume["name"] for volume in template["spec"].get("volumes", ())}
            volumes |= {claim["metadata"]["name"] for claim in claims}
            for container in template["spec"]["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, where


def test_every_secret_is_used() -> None:
    used = {reference["name"] for document in site("cpu") for reference in values_of(document, "secretKeyRef")}
    assert {secret["metadata"]["name"] for secret in made_secrets()} == used


def test_every_pod_keeps_to_the_restricted_profile(documents_of_a_kind: list[dict[str, Any]]) -> None:
    found = 0
    for document in documents_of_a_kind:
        # The autoscaler is a container that the operator adds to the head.
        for options in values_of(document, "autoscalerOptions"):
            _check_container(options, f"{document['kind']} autoscaler")
        for where, template in pod_templates(document):
            pod = template["spec"]
            found += 1
            assert pod["securityContext"]["runAsNonRoot"] is True, where
            assert pod["securityContext"]["runAsUser"] > 0, where
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), where
            assert all("hostPath" not in volume for volume in pod.get("volumes", ())), where
            for container in (*pod["containers"], *pod.get("initContainers", ())):
                _check_container(container, where)
    assert found


def _check_container(container: dict[str, Any], where: str) -> None:
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False, where
    assert security["readOnlyRootFilesystem"] is True, where
    assert security["capabilities"] == {"drop": ["ALL"]}, where
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), where
    assert "memory" in container["resources"]["limits"], where


def test_every_pod_is_in_a_network_policy_and_every_policy_finds_pods() -> None:
    found = site("gpu")
    labels = [template["metadata"]["labels"] for document in found for _, template in pod_templates(document)]
    policies = [document["spec"]["podSelector"] for document in found if document["kind"] == "NetworkPolicy"]
    named_ones = [policy["matchLabels"] for policy in policies if policy]
    assert {} in policies, "nothing is allowed that is not said"
    for wanted in named_ones:
        assert any(wanted.items() <= each.items() for each in labels), wanted
    for each in labels:
        assert any(wanted.items() <= each.items() for wanted in named_ones), each
    for selector in values_of(found, "podSelector"):
        wanted = selector.get("matchLabels", {})
        assert any(wanted.items() <= each.items() for each in labels), wanted


def ray_clusters() -> list[dict[str, Any]]:
    standing = [named(site(overlay), "RayCluster", "fcn")["spec"] for overlay in OVERLAYS]
    return [*standing, ray_job()["spec"]["rayClusterSpec"]]


@pytest.mark.parametrize("cluster", ray_clusters(), ids=[*OVERLAYS, "job"])
def test_a_ray_cluster_is_guarded_of_the_tested_version_and_grows_from_nothing(cluster: dict[str, Any]) -> None:
    version = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version
    assert cluster["rayVersion"] == version[1]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    images = {container["image"] for containers in values_of(cluster, "containers") for container in containers}
    assert len(images) == 1, "head and workers are of one image"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0
        (container,) = group["template"]["spec"]["containers"]
        spill = group["rayStartParams"]["object-spilling-directory"]
        assert spill in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_gpu_overlay_adds_a_group_with_gpus() -> None:
    groups = {overlay: named(site(overlay), "RayCluster", "fcn")["spec"]["workerGroupSpecs"] for overlay in OVERLAYS}
    assert [group["groupName"] for group in groups["cpu"]] == ["cpu"]
    assert [group["groupName"] for group in groups["gpu"]] == ["cpu", "gpu"]
    (container,) = groups["gpu"][1]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_images_are_pinned(documents_of_a_kind: list[dict[str, Any]]) -> None:
    for image in (image for document in documents_of_a_kind for image in values_of(document, "image")):
        assert re.search(r":\d+\.\d+[\w.-]*$", image), image


def test_the_job_asks_for_what_fcn_segment_takes_and_the_cluster_can_grow_to() -> None:
    from pipeline.cli.app import app

    spec = ray_job()["spec"]
    program, *words = spec["entrypoint"].split()
    assert program == "fcn"
    app.parse_args(words, exit_on_error=False, print_error=False)
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert int(words[words.index("--actors") + 1]) <= group["maxReplicas"]
    (container,) = group["template"]["spec"]["containers"]
    assert int(words[words.index("--cpus-per-actor") + 1]) <= int(container["resources"]["limits"]["cpu"])
