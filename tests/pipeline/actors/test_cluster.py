"""A private Ray: guarded, alone, and there as often as it is needed in one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.actors import cluster
from pipeline.actors.ray_start import NodeNotStarted
from pipeline.errors import PipelineError

TWICE = """
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

for number in range(2):
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
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", too_late)
    with pytest.raises(PipelineError, match="Ray did not start on this machine: Ray's node was not there"):
        cluster.connect().__enter__()


def run(code: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run `code` in a process that Ray is not yet used in, and that has no settings of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", code]
    environment["HOME"] = str(home)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    result = run(ELSEWHERE, tmp_path)
    assert "InputError: no Ray cluster answers at 127.0.0.1:1" in result.stderr


def test_a_private_ray_survives_a_failed_start_comes_again_is_guarded_and_leaves_no_token_behind(
    tmp_path: Path,
) -> None:
    result = run(TWICE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["killed", "0 ('token', 64) 1", "1 ('token', 64) 1"]
    assert not (tmp_path / ".ray").exists()
