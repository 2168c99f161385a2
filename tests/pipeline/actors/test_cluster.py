"""A private Ray: guarded, alone, and there as often as it is needed in one process."""

import contextlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.actors import cluster
from pipeline.actors.ray_start import NodeNotStarted
from pipeline.errors import PipelineError
from tests.processes import environment_without_ray

TIMES = """
import sys
import ray
from ray._private.node import Node
from pipeline.actors import cluster

start_raylet = Node.start_raylet

def start_and_kill(node, *arguments, **options):
    # As on a machine that is too busy for the raylet's own patience.
    Node.start_raylet = start_raylet
    start_raylet(node, *arguments, **options)
    node.all_processes["raylet"][0].process.kill()
    print("killed")

Node.start_raylet = start_and_kill

@ray.remote
def ask():
    import os
    return os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"])

for number in range(int(sys.argv[1])):
    with cluster.connect():
        print(number, ray.get(ask.remote()), len(cluster.nodes()))
    assert not ray.is_initialized()
"""


ELSEWHERE = """
from pipeline.actors import cluster

with cluster.connect("127.0.0.1:1"):
    pass
"""


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*arguments: object, **options: object) -> None:
        raise NodeNotStarted("Ray's node was not there after 150 s")

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in (("is_initialized", lambda: False), ("shutdown", lambda: None), ("init", too_late)):
        monkeypatch.setattr(cluster.ray, name, value)  # shutdown too: other tests of this process share a Ray
    with pytest.raises(PipelineError, match="Ray did not start on this machine: Ray's node was not there"):
        cluster.connect().__enter__()


def test_a_ray_that_times_out_is_started_once_more_and_then_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a bare traceback: Ray raises an Exception of no class of its own."""
    words = "\x1b[31mThe current node timed out during startup. This could happen because the raylet failed to start."
    tries: list[str] = []

    def init(address: str, **options: object) -> None:
        tries.append(address)
        if len(tries) <= broken:
            raise Exception(words)

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in (("is_initialized", lambda: False), ("shutdown", lambda: None), ("init", init)):
        monkeypatch.setattr(cluster.ray, name, value)
    monkeypatch.setattr(cluster, "watched", lambda on_note: contextlib.nullcontext())
    monkeypatch.setattr(cluster.os, "getloadavg", lambda: (45.0, 40.0, 30.0))
    broken = 2
    with pytest.raises(PipelineError) as caught, cluster.connect():
        pass
    said = str(caught.value)
    assert said.startswith("Ray did not start on this machine: The current node timed out during startup.")
    assert "(its load is 45 on " in said
    assert "\n" not in said
    assert len(tries) == 2
    broken = 3
    with cluster.connect():
        assert len(tries) == 4, "the third failure is followed by a start that succeeds"


def test_which_cluster_was_joined_for_ray_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    context = SimpleNamespace(gcs_address="10.0.0.7:6379")
    for name, value in (
        ("is_initialized", lambda: False), ("shutdown", lambda: None), ("init", lambda *_, **__: None),
        ("get_runtime_context", lambda: context),
    ):  # fmt: skip
        monkeypatch.setattr(cluster.ray, name, value)
    monkeypatch.setattr(cluster, "watched", lambda on_note: contextlib.nullcontext())
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with cluster.connect(None, notes.append):
        pass
    assert notes == ["joined the Ray cluster at auto (10.0.0.7:6379), because RAY_ADDRESS says so"]
    with cluster.connect("auto", notes.append):
        pass
    assert len(notes) == 1, "whoever names a cluster knows it"


def run(code: str, home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a process that Ray is not yet used in, and that has no settings of ours."""
    environment = environment_without_ray()
    command = [sys.executable, "-c", code, *arguments]
    environment["HOME"] = str(home)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    result = run(ELSEWHERE, tmp_path)
    assert "InputError: no Ray cluster answers at 127.0.0.1:1" in result.stderr


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_private_ray_survives_a_failed_start_comes_again_is_guarded_and_leaves_no_token_behind(
    times: int, tmp_path: Path
) -> None:
    result = run(TIMES, tmp_path, str(times))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["killed", *(f"{number} ('token', 64) 1" for number in range(times))]
    assert not (tmp_path / ".ray").exists()
