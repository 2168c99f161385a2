"""Blob services for the tests: Azurite, Microsoft's own emulator, where it is installed; moto dressed as Google's."""

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tests.pipeline.storage.gcs_service import environment, gcs_service

ACCOUNT = "devstoreaccount1"
# Not a secret: the same in every Azurite, from its documentation.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
START_SECONDS = 60


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service's URL; AZURE_* point there while the session lasts."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed (npm install -g azurite)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    url = f"http://127.0.0.1:{port}/{ACCOUNT}"
    process = subprocess.Popen(
        [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent",
         "--skipApiVersionCheck", "--disableTelemetry"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port, process)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
            patch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
            patch.setenv("AZURE_STORAGE_ENDPOINT", url)
            yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def container(azure: str) -> str:
    """The name of a fresh, empty container there."""
    name = f"test-{uuid.uuid4().hex[:20]}"
    create_container(azure, name)
    return name


@pytest.fixture(scope="session")
def google() -> Iterator[str]:
    """The URL of what answers as Google Cloud Storage; GOOGLE_* point there while the session lasts."""
    with gcs_service() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(url).items():
            patch.setenv(name, value)
        yield url


@pytest.fixture(params=["az", "gs"])
def cloud(request: pytest.FixtureRequest) -> str:
    """The URI of a fresh, empty container or bucket, on either service."""
    if request.param == "az":
        return f"az://{request.getfixturevalue('container')}"
    name = f"test-{uuid.uuid4().hex[:20]}"
    made = urllib.request.Request(f"{request.getfixturevalue('google')}/{name}", method="PUT")
    with urllib.request.urlopen(made, timeout=30) as answer:
        assert answer.status == 200
    return f"gs://{name}"


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Azurite does not answer on port {port}")


def create_container(url: str, name: str) -> None:
    """One signed request, so that no client of Azure's is needed: https://learn.microsoft.com/rest/api/storageservices/
    authorize-with-shared-key.
    """
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    listed = "".join(f"{header}:{headers[header]}\n" for header in sorted(headers))
    # The emulator's account name is part of the path, so it comes twice.
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    to_sign = "PUT" + "\n" * 12 + listed + resource
    digest = hmac.new(base64.b64decode(KEY), to_sign.encode(), hashlib.sha256).digest()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Length": "0"}
    request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 201
