"""The guard that the whole suite runs under (tests/guard): it can find what it is there to find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("code", "noted"),
    [
        ("import urllib.request; urllib.request.urlopen('http://example.com')", "looks up 'example.com'"),
        ("import socket; socket.create_connection(('203.0.113.1', 80))", "203.0.113.1"),
        ("import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('203.0.113.1', 53))", "203.0.113.1"),
        ("open('/var/tmp/fcn-tests-guard', 'w')", "writes /var/tmp/fcn-tests-guard"),
        ("import os; os.mkdir('/var/tmp/fcn-tests-guard')", "writes /var/tmp/fcn-tests-guard"),
        ("import pathlib; pathlib.Path('/var/tmp/fcn-tests-guard').unlink(missing_ok=True)", "writes /var/tmp"),
    ],
)
def test_what_leaves_the_machine_or_the_folders_is_refused_and_noted(code: str, noted: str, tmp_path: Path) -> None:
    done = _python(code, tmp_path)
    assert "PermissionError: tests/guard" in done.stderr
    (notes,) = tmp_path.iterdir()
    assert noted in notes.read_text()


def test_loopback_and_the_folders_given_are_free(tmp_path: Path) -> None:
    code = """
import pathlib, socket, tempfile
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
socket.getaddrinfo("localhost", 80)
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "file").write_text("text")
    pathlib.Path(folder, "file").rename(pathlib.Path(folder, "other"))
"""
    done = _python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_this_process_and_its_children_are_guarded() -> None:
    with pytest.raises(PermissionError, match="tests/guard"):
        os.mkdir("/proc-of-nobody")
    notes = Path(os.environ["FCN_TEST_GUARD"])
    # What was noted of this test itself is taken back.
    (own,) = notes.glob(f"{os.getpid()}.txt")
    lines = [line for line in own.read_text().splitlines() if "/proc-of-nobody" not in line]
    own.write_text("".join(f"{line}\n" for line in lines))
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0].endswith("tests/guard")


def _python(code: str, notes: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"FCN_TEST_GUARD": str(notes)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
