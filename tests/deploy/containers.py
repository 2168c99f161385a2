"""Containers of a real engine, for the tests that are switched on by naming one.

FCN_CONTAINER_ENGINE  the program, with options where it needs some: docker, or "podman --runtime runc"
FCN_BASE_IMAGE        the image to build on: any Debian with a Python that the project supports
FCN_IMAGE_WORDS       further words for `make image`, such as "VARIANT=cuda PIP_CONF=/etc/pip.conf"
FCN_IMAGE             an image that is built already, to run that one
"""

import contextlib
import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, ROOT, documents

ENGINE = shlex.split(os.environ.get("FCN_CONTAINER_ENGINE", ""))
BASE = os.environ.get("FCN_BASE_IMAGE")

needs_engine = pytest.mark.skipif(
    not ENGINE or not BASE,
    reason="FCN_CONTAINER_ENGINE and FCN_BASE_IMAGE name no container engine and base image: CONTRIBUTING.md says how",
)

CLOSED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
"""As closed as the manifests run our containers."""

SECONDS = 600


def engine(*words: str | Path, seconds: float = SECONDS, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the engine's program. Raises AssertionError with its words when it fails, unless `check` is false."""
    done = subprocess.run(
        [*ENGINE, *map(str, words)], capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
    )
    assert not check or done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def build() -> str:
    """`make image` on the base that is named. Returns the image's name."""
    if built := os.environ.get("FCN_IMAGE"):
        return built
    words = shlex.split(os.environ.get("FCN_IMAGE_WORDS", ""))
    done = subprocess.run(
        ["make", "image", f"ENGINE={shlex.join(ENGINE)}", f"BASE={BASE}", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    variant = dict(word.split("=", 1) for word in words).get("VARIANT", "cpu")
    return f"fcn-pipeline:{variant}"


def run(image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command in a container of its own, closed and without a network, which is gone afterwards."""
    return engine("run", "--rm", "--network", "none", *CLOSED, *options, image, *command)


def stand_in(words: Sequence[str], target: str, image: str) -> None:
    """Build `image` from standins/Dockerfile with the engine that `words` call, unless it is there."""
    there = subprocess.run([*words, "image", "inspect", image], capture_output=True, check=False, timeout=SECONDS)
    if there.returncode == 0:
        return
    moto = re.search(r"^moto==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert moto
    assert BASE, f"{image} is not there; FCN_BASE_IMAGE would name what to build its stand-in on"
    folder = ROOT / "tests" / "deploy"
    command = ["build", "--file", str(folder / "standins" / "Dockerfile"), "--target", target, "--tag", image]
    command += ["--build-arg", f"BASE={BASE}", "--build-arg", f"MOTO={moto[1]}", str(folder)]
    done = subprocess.run(
        [*words, *command], env=os.environ | {"DOCKER_BUILDKIT": "1"}, capture_output=True, text=True, check=False,
        timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def image_of(service: str) -> str:
    """The image that compose.yaml names for a service."""
    (site,) = documents((DEPLOY / "compose" / "compose.yaml").read_text())
    name: str = site["services"][service]["image"]
    return name


class Network:
    """A network of containers, which call each other by name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._containers: list[str] = []

    def start(
        self, host: str, image: str, *command: str, environment: dict[str, str], options: tuple[str, ...] = ()
    ) -> str:
        """A container in the background; returns its name, for `engine("exec", ...)`."""
        name = f"{self._name}-{host}"
        variables = [word for key, value in environment.items() for word in ("--env", f"{key}={value}")]
        self._containers.append(name)
        engine(
            "run", "--detach", "--name", name, "--hostname", host, "--network", self._name, "--network-alias", host,
            "--shm-size", "256m", *CLOSED, *variables, *options, image, *command,
        )  # fmt: skip
        return name

    def end(self) -> None:
        for name in self._containers:
            engine("rm", "--force", "--volumes", name, check=False)
        engine("network", "rm", self._name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Everything in it is gone afterwards."""
    name = f"fcn-test-{uuid.uuid4().hex[:8]}"
    engine("network", "create", name)
    made = Network(name)
    try:
        yield made
    finally:
        made.end()


def healthy(container: str) -> bool:
    """What the image's own health check says, now."""
    return engine("exec", container, "python", "/opt/fcn/healthcheck.py", check=False).returncode == 0


def wait_until_healthy(container: str, seconds: float = 300.0) -> None:
    give_up = time.monotonic() + seconds
    while not healthy(container):
        assert time.monotonic() < give_up, engine("logs", container).stdout[-4000:]
        time.sleep(1)
