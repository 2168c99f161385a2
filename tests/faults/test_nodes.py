"""Nodes that are lost, join late, or are announced to go: on a real cluster of three Ray nodes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Site
from tests.faults.harness import IMAGES, differences, small_job
from tests.plugins.isolation import RAY_REPORTS_NOTHING

# Who joins late and who goes are tests/pipeline/actors/test_pool.py's as well, who dies test_kills.py's: on one node.
pytestmark = pytest.mark.slow

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask tests/faults/three_nodes.py, which holds one cluster for all tests here."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= RAY_REPORTS_NOTHING | {"RAY_AUTH_MODE": "disabled"}
    log = tmp_path_factory.mktemp("nodes") / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.three_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
    assert process.stdin
    assert process.stdout

    def ask(**request: Any) -> dict[str, Any]:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, f"the cluster's process ended: {log.read_text(errors='replace')[-3000:]}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return dict(answer["ok"])

    yield ask
    process.stdin.close()
    process.wait(timeout=120)


def test_a_killed_node_changes_nothing(seed: int, site: Site, ask: Ask, tmp_path: Path) -> None:
    job = small_job(site.source, tmp_path / "labels", site.model)
    assert ask(do="kill", job=job.model_dump_json(), seed=seed) == {"ok": IMAGES, "errors": {}}
    assert differences(tmp_path / "labels", site.calm) == []


def test_a_node_that_joins_late_gets_work(ask: Ask, tmp_path: Path) -> None:
    assert ask(do="join", notes=str(tmp_path)) == {"nodes": 2, "shards": 8}


def test_a_node_that_is_announced_to_go_finishes_what_it_has_and_gets_nothing_more(ask: Ask, tmp_path: Path) -> None:
    answer = ask(do="drain", notes=str(tmp_path))
    assert answer == {"shards": 20, "on_the_node_that_went": 2, "restarts": 0, "retries": 0}
