"""The suite keeps to its machine and its folders: a home folder of its own, and a guard in every Python process.

At the end of the session the run fails if any process reached for a host other than loopback, wrote outside the
checkout and the temporary folder, or left a file in the home folder.
"""

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUARD = ROOT / "tests" / "guard"
SHOWN = 20


RAY_REPORTS_NOTHING = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A Ray that is started with `ray start` reports even that it will report nothing.
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
}


def child_path() -> str:
    """PYTHONPATH for the processes that tests start: the guard, then the checkout."""
    return os.pathsep.join((str(GUARD), str(ROOT)))


def isolate() -> Path | None:
    """Set up the environment, once per session: xdist's workers inherit it. Returns the session's folder there."""
    if "FCN_TEST_GUARD" in os.environ:
        _keep_to_its_own_rays()
        return None
    folder = Path(tempfile.mkdtemp(prefix="fcn-tests-"))
    for name in ("home", "violations"):
        (folder / name).mkdir()
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[name]
    os.environ["HOME"] = str(folder / "home")
    os.environ["PREFECT_HOME"] = str(folder / "prefect")  # else ~/.prefect, which every import of Prefect makes
    os.environ["FCN_TEST_GUARD"] = str(folder / "violations")
    os.environ["FCN_TEST_GUARD_WRITABLE"] = os.pathsep.join((str(ROOT), tempfile.gettempdir(), "/tmp"))
    os.environ["FCN_TEST_GUARD_HOSTS"] = _own_address()
    os.environ |= RAY_REPORTS_NOTHING
    # Not in `folder`: the sockets below it may have paths of 107 bytes.
    os.environ["FCN_TEST_RAYS"] = tempfile.mkdtemp(prefix="r", dir="/tmp")
    _keep_to_its_own_rays()
    # Ray's own is 15: beside anything else that runs, what the tests wait for would come last.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray's spelling)
    given = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(GUARD), given)))
    sys.path.insert(0, str(GUARD))
    try:
        # Python has imported the machine's own module of this name already, if there is one.
        sys.modules.pop("sitecustomize", None)
        import sitecustomize  # noqa: F401  (installs the guard)
    finally:
        sys.path.remove(str(GUARD))
    return folder


def _keep_to_its_own_rays() -> None:
    """Give each of xdist's workers a folder for Rays. A job's driver joins the Ray that its folder names as newest."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main").removeprefix("gw")
    os.environ["RAY_TMPDIR"] = f"{os.environ['FCN_TEST_RAYS']}/{worker}"


def _own_address() -> str:
    """This machine's own address, at which Ray's parts find one another; empty where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class Isolation:
    """What was found at the end, in the process that leads the session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._found = [
            line for file in (self._folder / "violations").iterdir() for line in file.read_text().splitlines()
        ]
        home = self._folder / "home"
        self._found += [f"left in the home folder: {file.relative_to(home)}" for file in home.rglob("*")]
        if self._found and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._found:
            return
        terminalreporter.section("reached beyond this machine or the folders given", red=True)
        for line in self._found[:SHOWN]:
            terminalreporter.line(line[:500])
        if len(self._found) > SHOWN:
            terminalreporter.line(f"and {len(self._found) - SHOWN} more")

    def pytest_unconfigure(self) -> None:
        for folder in (self._folder, os.environ["FCN_TEST_RAYS"]):
            shutil.rmtree(folder, ignore_errors=True)
