"""deploy/docker: the image is what the Makefile installs, pinned, not root; its health check asks what it should."""

import fnmatch
import http.server
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY, ROOT, tool

DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
HEALTHCHECK = DEPLOY / "docker" / "healthcheck.py"


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, lines joined and comments left out."""
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    lines = [line for line in re.sub(r"\\\n\s*", "", code).splitlines() if line.strip()]
    return [(words[0].upper(), words[1]) for words in (line.split(maxsplit=1) for line in lines)]


@pytest.fixture(scope="module")
def found() -> list[tuple[str, str]]:
    return instructions(DOCKERFILE.read_text())


def test_hadolint_finds_nothing() -> None:
    done = tool("hadolint", "--no-color", str(DOCKERFILE))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("old", "new"), [("USER 10001:10001", "USER root"), ("WORKDIR /src", "WORKDIRR /src")])
def test_hadolint_finds_what_is_wrong(tmp_path: Path, old: str, new: str) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new, 1))
    assert tool("hadolint", "--no-color", str(tmp_path / "Dockerfile")).returncode != 0


def test_what_is_installed_is_what_the_makefile_says(found: list[tuple[str, str]]) -> None:
    runs = [words for name, words in found if name == "RUN"]
    (installing,) = (words for words in runs if "make runtime" in words)
    assert installing.endswith("&& make runtime VENV=/opt/fcn")
    for words in runs:
        if "pip install" in words:
            assert "--no-deps --no-index" in words, "one list, the Makefile's"
    for variant, index in (("cpu", True), ("cuda", False)):
        done = make("runtime", "VENV=/opt/fcn", f"VARIANT={variant}")
        assert "/opt/fcn/bin/python -m pip install" in done
        assert "-c constraints.txt" in done
        assert "test" not in done
        assert ("--extra-index-url https://download.pytorch.org/whl/cpu" in done) is index


def test_a_change_of_code_leaves_the_layer_with_pytorch_as_it_is(found: list[tuple[str, str]]) -> None:
    """What is copied before the packages are installed has no code in it, and code enters the image after them."""
    at = next(index for index, (name, words) in enumerate(found) if name == "RUN" and "make runtime" in words)
    before = {source for name, words in found[:at] if name == "COPY" for source in words.split()[:-1]}
    assert before == {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    last = found[max(index for index, (name, _) in enumerate(found) if name == "FROM") :]
    entering = [words for name, words in last if "/opt/fcn" in words and name in ("COPY", "RUN")]
    assert entering[0].startswith("--from=packages /opt/fcn")
    assert "from=code" in entering[1]


def test_an_image_is_built_with_the_engine_base_settings_and_certificates_that_are_named() -> None:
    plain = make("image", "ENGINE=docker")
    assert "--tag fcn-pipeline:cpu --build-arg VARIANT=cpu" in plain
    assert "PYTHON_IMAGE" not in plain
    assert "--secret" not in plain
    assert "--format" not in plain
    words = (
        "ENGINE=/usr/bin/podman",
        "VARIANT=cuda",
        "BASE=registry.example.org/python:3.12",
        "PIP_CONF=a",
        "CERTIFICATES=b",
    )
    own = make("image", *words, "OPTIONS=--network=host")
    assert "/usr/bin/podman build --format docker" in own, "its own format has no health checks"
    assert "--tag fcn-pipeline:cuda --build-arg VARIANT=cuda" in own
    assert "--build-arg PYTHON_IMAGE=registry.example.org/python:3.12 --build-arg TORCH_INDEX= " in own
    assert "--secret id=pip.conf,src=a" in own
    assert "--secret id=certificates,src=b --network=host ." in own


def make(*words: str) -> str:
    """What make would run."""
    done = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", "")


def test_all_packages_are_copied_and_reach_the_builder(found: list[tuple[str, str]]) -> None:
    copied = {
        source for name, words in found if name == "COPY" and "--from" not in words for source in words.split()[:-1]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert copied >= packages | {"Makefile", "pyproject.toml", "constraints.txt"}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    assert ignored[1] == "*", "what is not named stays outside"
    for source in copied:
        assert (ROOT / source).exists()
        assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), f"{source} is kept from the builder"


def test_the_image_is_pinned_has_no_root_and_knows_how_it_is(found: list[tuple[str, str]]) -> None:
    arguments = dict(words.split("=", 1) for name, words in found if name == "ARG" and "=" in words)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", arguments["PYTHON_IMAGE"])
    last = [words for name, words in found if name == "USER"][-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last)
    (check,) = [words for name, words in found if name == "HEALTHCHECK"]
    assert "/opt/fcn/healthcheck.py" in check


@pytest.fixture(scope="module")
def answering() -> Iterator[str]:
    """A server whose pages are named after the status that they answer with."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("pages", "well"), [([], True), (["200"], True), (["200", "503"], False), (["404"], False), (["200", "200"], True)]
)
def test_a_container_is_well_when_all_its_pages_answer(answering: str, pages: list[str], well: bool) -> None:
    done = check_health(*(f"{answering}/{page}" for page in pages))
    assert (done.returncode == 0) is well
    assert ("answered" in done.stdout) is not well


def test_a_container_in_which_nobody_answers_is_not_well() -> None:
    done = check_health("http://127.0.0.1:1/health")
    assert done.returncode == 1
    assert "http://127.0.0.1:1/health" in done.stdout


def check_health(*urls: str) -> subprocess.CompletedProcess[str]:
    # A proxy would be asked for addresses of its own machine, and say that it does not answer.
    environment = {"FCN_HEALTH_URLS": " ".join(urls), "http_proxy": "http://127.0.0.1:2"}
    words = [sys.executable, "-S", HEALTHCHECK]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_hashes_of_what_would_be_installed_are_what_pip_asks_for(tmp_path: Path) -> None:
    """A wheel of our own making, by pip's own report; pip then takes it, and refuses another of the same name."""
    wheel = tmp_path / "little-1.0-py3-none-any.whl"

    def write(text: str) -> None:
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("little.py", text)
            archive.writestr("little-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: little\nVersion: 1.0\n")
            archive.writestr("little-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr("little-1.0.dist-info/RECORD", "")

    def pip(*words: str | Path) -> subprocess.CompletedProcess[str]:
        common = ["install", "--no-index", "--find-links", tmp_path, "--ignore-installed", "--quiet"]
        return subprocess.run(
            [sys.executable, "-m", "pip", *common, *words],
            env=os.environ | {"HOME": str(tmp_path)},  # pip asks rustc for its version, which may make files there
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    write("x = 1")
    report = tmp_path / "report.json"
    assert pip("--dry-run", "--report", report, "little").returncode == 0
    hashed = subprocess.run(
        [sys.executable, DEPLOY / "docker" / "hash_requirements.py"],
        input=report.read_text(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert re.fullmatch(r"little==1\.0 --hash=sha256:[0-9a-f]{64}\n", hashed)
    (tmp_path / "hashed.txt").write_text(hashed)
    asked = ("--target", tmp_path / "there", "--require-hashes", "-r", tmp_path / "hashed.txt")
    assert pip(*asked).returncode == 0
    write("x = 2")
    assert "DO NOT MATCH" in pip(*asked).stderr


def test_runtime_installs_by_hashes_when_it_is_given_some() -> None:
    done = make("runtime", "VENV=/opt/fcn", "HASHES=hashed.txt")
    first, second = (line for line in done.splitlines() if "pip install" in line)
    assert first.endswith("--require-hashes -r hashed.txt")
    assert "--no-deps --no-build-isolation" in second
