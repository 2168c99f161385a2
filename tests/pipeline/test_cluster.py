"""A private Ray: guarded, alone, and there as often as it is needed in one process."""

import os
import subprocess
import sys
from pathlib import Path

TWICE = """
import ray
from pipeline import cluster

@ray.remote
def ask():
    import os
    return os.environ["RAY_AUTH_MODE"], len(os.environ["RAY_AUTH_TOKEN"])

for number in range(2):
    with cluster.connect():
        print(number, ray.get(ask.remote()), len(cluster.nodes()))
    assert not ray.is_initialized()
"""


def test_a_private_ray_can_be_started_again_is_guarded_and_leaves_no_token_behind(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    result = subprocess.run(
        [sys.executable, "-c", TWICE],
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["0 ('token', 64) 1", "1 ('token', 64) 1"]
    assert not (tmp_path / ".ray").exists()
