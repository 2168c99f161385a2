"""Ray's control service that is lost is said, before Ray ends the driver without a word."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.actors import control_watch
from tests.plugins.isolation import child_path
from tests.processes import environment_without_ray

KILLED = """
import os, signal, sys, time
from ray._private import worker
from pipeline.actors import cluster

with cluster.connect(None, lambda text: print(text, flush=True)):
    os.kill(worker._global_node.all_processes[sys.argv[1]][0].process.pid, signal.SIGKILL)
    time.sleep(100)
"""


@pytest.mark.parametrize("lost", [pytest.param("raylet", marks=pytest.mark.slow), "gcs_server"])
def test_a_private_ray_that_loses_a_part_is_said_to_have_and_that_the_same_command_resumes(lost: str) -> None:
    ours = environment_without_ray()
    driver = subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED, lost], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=ours | {"PYTHONPATH": child_path()},
    )  # fmt: skip
    try:
        assert driver.stdout
        said = next(line for line in driver.stdout if line.startswith("Ray's"))
    finally:
        driver.kill()
        driver.wait()
    assert f"({lost}) on this machine has ended" in said
    assert said.strip().endswith("the same command resumes")


@pytest.fixture
def head() -> Iterator[Any]:
    """What listens where the control service of a cluster does; a test closes it and opens it again."""

    class Head:
        def __init__(self) -> None:
            self.port = 0
            self.open()

        def open(self) -> None:
            self.server = socket.create_server(("127.0.0.1", self.port), backlog=50)
            self.port = self.server.getsockname()[1]

    found = Head()
    yield found
    found.server.close()


def test_a_head_that_does_not_answer_and_answers_again_is_said_once_each(
    head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_watch, "LOOK_SECONDS", 0.01)
    context = SimpleNamespace(gcs_address=f"127.0.0.1:{head.port}")
    monkeypatch.setattr(control_watch.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(control_watch.ray_worker, "_global_node", None)
    notes: list[str] = []
    told = threading.Semaphore(0)

    def note(text: str) -> None:
        notes.append(text)
        told.release()

    with control_watch.watched(note):
        head.server.close()
        assert told.acquire(timeout=60)
        head.open()
        assert told.acquire(timeout=60)
    assert "does not answer" in notes[0]
    assert "the same command resumes" in notes[0]
    assert notes[1:] == [f"Ray's control service at 127.0.0.1:{head.port} answers again"]
