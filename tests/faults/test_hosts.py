"""Three hosts with addresses of their own: network namespaces on one switch, Ray on each, and a cable to pull."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Site
from tests.faults.harness import SHARDS, Moment, committed, differences, small_job, wait_for
from tests.faults.three_nodes import QUICK
from tests.plugins.isolation import RAY_REPORTS_NOTHING, child_path
from tests.processes import environment_without_ray

ADDRESSES = ("10.213.78.1", "10.213.78.2", "10.213.78.3")
PORT = 6399
ROOT = Path(__file__).parents[2]

DRIVER = """
import socket, sys, time
from pathlib import Path
import ray
from pipeline import SegmentJob, segment
from tests.faults.halting_driver import Halts

job = SegmentJob.model_validate_json(sys.argv[1])
deadline = time.monotonic() + 300
while True:
    try:
        socket.create_connection(job.ray_address.split(":"), timeout=1).close()
        break
    except OSError:
        assert time.monotonic() < deadline, "the first host's Ray did not start"
        time.sleep(0.2)
ray.init(job.ray_address, log_to_driver=False, logging_level="error")
while len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}) < 3:
    assert time.monotonic() < deadline, "the other hosts did not join"
    time.sleep(0.2)
report = segment(job, Halts(int(sys.argv[2]), Path(sys.argv[3])))
print(f"ok={report.counts.ok} errors={report.counts.errors}")
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass
class Hosts:
    """A switch, and hosts with one cable each."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def switch(self) -> str:
        return f"fcn-{self.mark}-switch"

    @property
    def names(self) -> list[str]:
        return [f"fcn-{self.mark}-{number}" for number in range(len(ADDRESSES))]

    def build(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "bridge0", "type", "bridge")
        ip("-n", self.switch, "link", "set", "bridge0", "up")
        for number, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True)):
            ip("netns", "add", name)
            ends = [("name", f"port{number}", "netns", self.switch), ("name", "cable0", "netns", name)]
            ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
            ip("-n", self.switch, "link", "set", f"port{number}", "master", "bridge0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable0")
            ip("-n", name, "link", "set", "cable0", "up")

    def remove(self) -> None:
        for name in self.names:
            # Asked politely, Ray drains its node for a minute first.
            found = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
            for pid in map(int, found.stdout.split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(timeout=120)
        for name in (*self.names, self.switch):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def cable(self, number: int, state: str) -> None:
        """Pull a host's cable ("down") or put it back ("up")."""
        ip("-n", self.switch, "link", "set", f"port{number}", state)

    def start(self, number: int, log: Path, *command: str) -> "subprocess.Popen[bytes]":
        """Run a command on a host."""
        environment = environment_without_ray()
        environment |= RAY_REPORTS_NOTHING | {"PYTHONPATH": child_path(), "RAY_AUTH_MODE": "disabled"}
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[number], *command],
                stdout=sink,
                stderr=sink,
                env=environment,
                cwd=ROOT,
            )
        self.processes.append(process)
        return process


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    found = Hosts()
    try:
        try:
            found.build()
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            pytest.skip(f"this machine does not let us make network namespaces: {reason.strip()}")
        yield found
    finally:
        found.remove()


@pytest.fixture
def sessions() -> Iterator[str]:
    """Where Ray keeps its sockets: they want a short path."""
    folder = tempfile.mkdtemp(prefix="fcn-", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_host_that_is_cut_off_and_comes_back_changes_nothing(
    hosts: Hosts, sessions: str, site: Site, tmp_path: Path
) -> None:
    """Meanwhile its actor goes on and commits to the storage, which it can reach: nobody is harmed by that."""
    ray = str(Path(sys.executable).with_name("ray"))
    common = ["--block", "--object-store-memory", "100000000", "--disable-usage-stats", "--temp-dir", sessions]
    roles: list[list[str]] = [
        ["--head", "--port", str(PORT), "--include-dashboard", "false", "--num-cpus", "0",
         "--system-config", json.dumps(QUICK)],
        *[["--address", f"{ADDRESSES[0]}:{PORT}", "--num-cpus", "1"]] * 2,
    ]  # fmt: skip
    for number, (address, role) in enumerate(zip(ADDRESSES, roles, strict=True)):
        log = tmp_path / f"ray{number}"
        node = hosts.start(number, log, ray, "start", "--node-ip-address", address, *role, *common)
        # One after the other: nodes that start at once on one disk choose the same names for their sockets.
        while "will now block" not in log.read_text():
            assert node.poll() is None, log.read_text()
            time.sleep(0.1)

    output = tmp_path / "labels"
    job: Any = small_job(site.source, output, site.model, ray_address=f"{ADDRESSES[0]}:{PORT}")
    moment = Moment("host", 2)
    halt = (str(moment.shards + 2), str(tmp_path / "cut"))
    driver = hosts.start(0, tmp_path / "driver", sys.executable, "-c", DRIVER, job.model_dump_json(), *halt)

    def over() -> bool:
        return driver.poll() is not None

    wait_for(moment, output, over)
    hosts.cable(2, "down")
    (tmp_path / "cut").touch()
    at_the_cut = committed(output)
    lost_actor = time.monotonic() + 300
    while not over() and "actor=lost" not in (tmp_path / "driver").read_text() and time.monotonic() < lost_actor:
        time.sleep(0.05)
    hosts.cable(2, "up")
    code = driver.wait(timeout=300)
    told = (tmp_path / "driver").read_text()
    assert code == 0, told
    assert at_the_cut < SHARDS, "the cable was pulled too late"
    assert "actor=lost" in told, "the host was cut off, and its actor was not missed"
    assert differences(output, site.calm) == []
