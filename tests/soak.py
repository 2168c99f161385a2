"""Jobs on a bad day, for hours: `python -m tests.soak --seconds 7200`.

Labels the same images again and again, each time into a new output, behind a proxy that lets one request in a hundred
go wrong, in each way it knows by turns. Keys live for 65 seconds, the service restarts every twelfth of the time, and a
driver is killed every sixth, though not more often than a driver needs to get anywhere. Each output must equal that of
an undisturbed run, byte for byte.
"""

import argparse
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3, Weather
from tests.samples import jpeg, model

IMAGES = 240
KEY_SECONDS = 65
RATE = 0.01
CALLS_AT_MOST = 20
RESTART_SECONDS = 10.0
COMPARED = ("masks/", "results/", "class_areas/", "class_totals/")
KINDS = (
    *("unavailable", "500 InternalError", "503 SlowDown", "reset", "lost_reply", "late_500", "cut", "corrupt"),
    *("silence", "stall", "empty", "page", "error_200"),
    *("400 ExpiredToken", "400 InvalidToken", "403 RequestTimeTooSkewed", "400 RequestTimeout"),
)
BROKER = f"""#!/bin/sh
end=$(( $(date +%s) + {KEY_SECONDS} ))
printf '{{"Version": 1, "AccessKeyId": "K%s", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "%s"}}' \\
  "$end" "$(date -u -d "@$end" +%Y-%m-%dT%H:%M:%SZ)"
"""
_SIGNED_BY = re.compile(r"Credential=K(\d+)/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fcn-soak-")))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        soak = Soak(folder, patch, stack, given.seconds, given.seed)
        return soak.run()


class Soak:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack, seconds: float, seed: int) -> None:
        self._folder, self._seconds = folder, seconds
        # A driver that is killed before it has got anywhere says nothing.
        self._restart_interval, self._kill_interval = max(45.0, seconds / 12), max(90.0, seconds / 6)
        self._random = random.Random(seed)
        self._kills = self._restarts = self._late = 0
        self._lost: list[str] = []
        self._environment(patch)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        stack.callback(server.stop)
        self._direct = "http://{}:{}".format(*server.get_host_and_port())
        self._proxy = stack.enter_context(
            FaultyS3(self._direct, silence_seconds=70, stall_seconds=3, weather=Weather(seed, RATE, KINDS))
        )
        self._proxy.remembers = False
        self._proxy.judge = self._judge
        self._model = folder / "model"
        model().save(self._model)
        boto3.client("s3", endpoint_url=self._direct).create_bucket(Bucket="soak")
        photos = open_store(self._uri("photos", self._direct))
        for index in range(IMAGES):
            photos.put(f"{index:04d}.jpg", jpeg(90 + index % 3, 70, seed=index))
        from pipeline.actors.cluster import private_ray

        stack.enter_context(private_ray(num_cpus=4, num_gpus=0, others_join=True))

    def run(self) -> int:
        """Returns 1 where any output differs."""
        import ray

        address = ray.get_runtime_context().gcs_address
        assert self._label("calm", self._direct, address) == 0
        calm = self._files("calm")
        began = time.monotonic()
        self._ends = began + self._seconds
        self._next_restart, self._next_kill = began + self._restart_interval, began + self._kill_interval
        rounds, differing = 0, 0
        while time.monotonic() < self._ends or not rounds:
            rounds += 1
            name = f"round-{rounds:04d}"
            code, calls = 1, 0
            while code and calls < CALLS_AT_MOST:
                calls += 1
                code = self._label(name, self._proxy.endpoint, address)
                if code not in (0, -9):
                    self._lost.append(f"{name}: exit code {code}")
            found = self._files(name)
            wrong = sorted(key for key in found.keys() | calm.keys() if found.get(key) != calm.get(key))
            differing += bool(wrong)
            print(f"{name}: {'differs: ' + ', '.join(wrong[:5]) if wrong else 'equal'}", flush=True)
        result: dict[str, Any] = {
            "seconds": round(time.monotonic() - began),
            "rounds": rounds,
            "images": rounds * IMAGES,
            "differing": differing,
            "requests": self._proxy.asked,
            "failed": dict(Counter(self._proxy.suffered)),
            "requests with keys that had ended": self._late,
            "restarts of the service": self._restarts,
            "drivers killed": self._kills,
            "runs that ended early": self._lost,
        }
        print(json.dumps(result, indent=2))
        return 1 if differing else 0

    def _environment(self, patch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        broker = self._folder / "broker.sh"
        broker.write_text(BROKER)
        broker.chmod(0o755)
        (self._folder / "config").write_text(f"[default]\nregion = us-east-1\ncredential_process = {broker}\n")
        values = {
            "AWS_CONFIG_FILE": str(self._folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        for name, value in values.items():
            patch.setenv(name, value)

    def _judge(self, headers: dict[str, str]) -> str | None:
        """Refuse keys that have ended, as S3 does."""
        signed = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
        key = _SIGNED_BY.search(signed)
        if key and int(key[1]) < time.time():
            self._late += 1
            return "400 ExpiredToken"
        return None

    def _label(self, output: str, endpoint: str, address: str) -> int:
        """One driver, until it ends or is killed; meanwhile the service restarts when it is time."""
        command = [sys.executable, "-P", "-c", "from pipeline.cli.app import main; main()", "segment"]
        command += [self._uri("photos", endpoint), self._uri(output, endpoint), "--model", str(self._model)]
        command += [
            "--device",
            "cpu",
            "--engine",
            "torch",
            "--cpus-per-actor",
            "1",
            "--actors",
            "2",
            "--codec-workers",
            "1",
        ]
        command += ["--shard-size", "5", "--batch-size", "1", "--no-report", "--ray-address", address]
        with (self._folder / f"{output}.log").open("ab") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log)
        while driver.poll() is None:
            time.sleep(0.2)
            now = time.monotonic()
            if endpoint != self._proxy.endpoint:
                continue
            if now > self._next_restart:
                self._restarts += 1
                self._next_restart = now + self._restart_interval
                self._proxy.away = True
                time.sleep(min(RESTART_SECONDS, self._seconds / 30))
                self._proxy.away = False
            if now > self._next_kill:
                time.sleep(self._random.random() * 5)
                if driver.poll() is None:
                    self._kills += 1
                    self._next_kill = now + self._kill_interval
                    driver.kill()
        if driver.returncode not in (0, -9):
            print((self._folder / f"{output}.log").read_text(errors="replace")[-2000:], flush=True)
        return driver.returncode

    def _uri(self, folder: str, endpoint: str) -> str:
        return f"s3://soak/{folder}?endpoint_url={endpoint}"

    def _files(self, output: str) -> dict[str, bytes]:
        store = open_store(self._uri(output, self._direct))
        return {
            re.sub(r"run_id=[^/]+", "run_id=RUN", info.key): store.get(info.key)
            for part in COMPARED
            for info in store.list(part)
        }


if __name__ == "__main__":
    sys.exit(main())
