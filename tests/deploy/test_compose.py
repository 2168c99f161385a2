"""deploy/compose: the site of one machine, as Docker Compose itself reads it."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import DEPLOY, documents, tool

COMPOSE = DEPLOY / "compose"
FILES = ("compose.yaml", "compose.gpu.yaml")
OURS = "fcn-pipeline:"


def made_secrets() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, DEPLOY / "make_secrets.py", "compose", "--output", "-"],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def config(*files: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the files: it refuses what its specification does not know."""
    words = [word for file in files for word in ("-f", str(file))]
    return tool("docker-compose", *words, "--env-file", "/dev/null", "config", "--format", "json", **variables)


@pytest.fixture(scope="module", params=[FILES[:1], FILES], ids=["cpu", "gpu"])
def site(request: pytest.FixtureRequest) -> dict[str, Any]:
    done = config(*(COMPOSE / name for name in request.param), **made_secrets())
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("old", "new"),
    [("    healthcheck:", "    healthchek:"), ("shm_size: 1gb", "shmsize: 1gb"), ("replicas: 2", "replica: 2")],
)
def test_a_misspelt_field_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    assert old in text
    (tmp_path / "compose.yaml").write_text(text.replace(old, new, 1))
    done = config(tmp_path / "compose.yaml", **made_secrets())
    assert done.returncode != 0
    assert new.split(":")[0].strip() in done.stderr


def test_all_parts_of_a_site_are_there(site: dict[str, Any]) -> None:
    assert set(site["services"]) == {
        "postgres", "prefect-server", "prefect-worker", "ray-head", "ray-worker", "s3", "s3-buckets", "prometheus",
        "grafana",
    }  # fmt: skip


def test_without_secrets_it_says_how_to_make_them() -> None:
    done = config(COMPOSE / "compose.yaml")
    assert done.returncode != 0
    for name in made_secrets():
        assert f"{name} is missing a value: make deploy/compose/.env with deploy/make_secrets.py" in done.stderr


def test_secrets_are_new_every_time() -> None:
    first, second = made_secrets(), made_secrets()
    assert all(first[name] != second[name] for name in first)


@pytest.mark.parametrize("umask", ["000", "277"])
def test_a_file_of_secrets_is_its_owner_s_alone_and_never_replaced(umask: str, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    words = [sys.executable, str(DEPLOY / "make_secrets.py"), "compose", "--output", str(file)]
    for status in (0, 1):
        done = subprocess.run(words, umask=int(umask, 8), capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "is there already" in done.stderr
    assert file.read_text().count("=") == len(made_secrets())


def test_pages_are_for_this_machine_alone(site: dict[str, Any]) -> None:
    ports = [port for service in site["services"].values() for port in service.get("ports", ())]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_images_of_others_are_pinned(site: dict[str, Any]) -> None:
    images = {service["image"] for service in site["services"].values()}
    for image in images:
        assert image.startswith(OURS) or re.search(r":v?\d+\.\d+\.?\d*[\w.-]*$", image), image


def test_our_containers_have_no_privileges_and_one_of_them_is_built(site: dict[str, Any]) -> None:
    ours = {name: service for name, service in site["services"].items() if service["image"].startswith(OURS)}
    for service in ours.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert len({service["image"] for service in ours.values()}) == 1
    (build,) = [service["build"] for service in ours.values() if "build" in service]
    assert (Path(build["context"]) / build["dockerfile"]).is_file()


def test_every_ray_node_has_the_token_and_says_that_it_is_well(site: dict[str, Any]) -> None:
    nodes = {name: service for name, service in site["services"].items() if "ray" in str(service.get("command"))}
    assert nodes.keys() >= {"ray-head", "ray-worker", "prefect-worker"}
    for service in nodes.values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"]
        assert "http://127.0.0.1:52365/api/healthz" in service["environment"]["FCN_HEALTH_URLS"].split()


def test_prometheus_asks_the_nodes_where_their_metrics_are(site: dict[str, Any]) -> None:
    (prometheus,) = documents((COMPOSE / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    for name in names["names"]:
        assert f"--metrics-export-port={names['port']}" in str(site["services"][name]["command"])
    (grafana,) = documents((COMPOSE / "grafana-datasources.yaml").read_text())
    assert grafana["datasources"][0]["url"] == "http://prometheus:9090"


def test_prefect_answers_those_with_the_site_s_password_and_no_web_page(site: dict[str, Any]) -> None:
    server, worker = (site["services"][name]["environment"] for name in ("prefect-server", "prefect-worker"))
    assert len(server["PREFECT_SERVER_API_AUTH_STRING"]) > 20
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["PREFECT_API_AUTH_STRING"]
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"


def test_what_is_mounted_is_there(site: dict[str, Any]) -> None:
    mounts = [mount for service in site["services"].values() for mount in service.get("volumes", ())]
    for mount in mounts:
        assert mount["type"] == "volume" or Path(mount["source"]).exists(), mount["source"]


def test_every_service_has_the_key_of_what_it_does(site: dict[str, Any]) -> None:
    keys = {
        name: service["environment"]["AWS_ACCESS_KEY_ID"]
        for name, service in site["services"].items()
        if "AWS_ACCESS_KEY_ID" in service.get("environment", {})
    }
    assert keys.keys() == {"ray-head", "ray-worker", "prefect-worker", "s3-buckets"}
    assert [key.rpartition("-")[0] for key in keys.values()].count("ray") == 2
    assert keys["prefect-worker"].startswith("prefect-")
    assert keys["s3-buckets"].startswith("site-")


def test_the_s3_server_is_told_the_keys(site: dict[str, Any], tmp_path: Path) -> None:
    service = site["services"]["s3"]
    shell, flag, script = service["entrypoint"]
    script = script.replace("$$", "$").replace("/iam/", f"{tmp_path}/").replace("exec versitygw", "echo")
    done = subprocess.run(
        [shell, flag, script], env=service["environment"] | {"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    assert done.stdout == b"posix /data\n"
    accounts = json.loads((tmp_path / "users.json").read_text())["accessAccounts"]
    environment = service["environment"]
    for name in ("RAY", "PREFECT"):
        key, secret = environment[f"{name}_KEY"], environment[f"{name}_SECRET"]
        assert accounts[key] == {"access": key, "secret": secret, "role": "user"}
    assert len(accounts) == 2
    assert stat.S_IMODE((tmp_path / "users.json").stat().st_mode) == 0o600


def test_the_buckets_are_made_and_each_service_may_do_what_deploy_iam_says(s3_endpoint: str) -> None:
    import boto3

    keys = {"S3_RAY_ACCESS_KEY": "ray-1", "S3_PREFECT_ACCESS_KEY": "prefect-1"}
    environment = os.environ | keys | {"FCN_IAM_POLICIES": str(DEPLOY / "iam")}
    buckets = ("cameras", "labels", "trainings", "models")
    for _ in range(2):
        for words in (["make_buckets.py", *buckets], ["bucket_policies.py"]):
            command = [sys.executable, str(COMPOSE / words[0]), *words[1:]]
            subprocess.run(command, env=environment, check=True, timeout=300)
    client = boto3.client("s3")
    writers: dict[str, set[str]] = {}
    for bucket in buckets:
        policy = json.loads(client.get_bucket_policy(Bucket=bucket)["Policy"])
        for statement in policy["Statement"]:
            (key,) = statement["Principal"]["AWS"]
            actions, resources = statement["Action"], statement["Resource"]
            actions = [actions] if isinstance(actions, str) else actions
            resources = [resources] if isinstance(resources, str) else resources
            assert all(resource.startswith(f"arn:aws:s3:::{bucket}") for resource in resources)
            assert "PREFIX" not in str(resources)
            assert not any(action.startswith(("s3:*", "s3:PutBucket", "s3:DeleteBucket")) for action in actions)
            if "s3:PutObject" in actions:
                writers.setdefault(bucket, set()).add(key)
    assert writers == {
        "labels": {"ray-1", "prefect-1"}, "trainings": {"ray-1", "prefect-1"}, "models": {"prefect-1"},
    }  # fmt: skip
