"""One line shows how far the tests are and which run now: redrawn on a terminal, printed twice a minute elsewhere."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

TERMINAL_SECONDS, LOG_SECONDS = 1.0, 30.0


class LiveLine:
    """Stands in for dots and file names. pytest-instafail shows failures in full as they happen."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        reporter.showfspath = False
        self._reporter = reporter
        self._terminal = sys.stdout.isatty()
        self._total = 0
        self._outcomes: Counter[str] = Counter()
        self._running: dict[str, float] = {}
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._lock = threading.RLock()

    def pytest_sessionstart(self) -> None:
        threading.Thread(target=self._repeat, daemon=True).start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = self._total or len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        with self._lock:
            self._running[nodeid] = time.monotonic()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Iterator[None]:
        with self._lock:
            if report.when == "call" or report.outcome != "passed":
                self._outcomes[report.outcome] += 1
            if report.when == "teardown":
                self._running.pop(report.nodeid, None)
            self._clear()  # a failure is about to be shown
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
        if report.when == "call" and report.outcome == "passed":
            return "passed", "", "PASSED"
        if report.outcome == "skipped":
            return "skipped", "", "SKIPPED"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._ended.set()
        with self._lock:
            self._clear()

    def text(self) -> str:
        """How many tests are done, how they ended, how long it took, and what runs now, longest first."""
        now = time.monotonic()
        done = self._outcomes.total()
        minutes, seconds = divmod(int(now - self._started), 60)
        parts = [f"{100 * done // self._total if self._total else 0:3d} %", f"{done} of {self._total}"]
        parts += [f"{count} {name}" for name, count in sorted(self._outcomes.items()) if name != "passed"]
        parts.append(f"{minutes}:{seconds:02d}")
        running = sorted(self._running.items(), key=lambda item: item[1])
        parts += [f"{name.removeprefix('tests/')} ({int(now - since)} s)" for name, since in running]
        return "  ".join(parts)

    def _repeat(self) -> None:
        while not self._ended.wait(TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            with self._lock:
                if not self._total or self._ended.is_set():
                    continue
                if self._terminal:
                    self._reporter.rewrite(self.text()[: self._reporter._tw.fullwidth - 1], erase=True)
                else:
                    self._reporter.write_line(self.text())

    def _clear(self) -> None:
        if self._terminal:
            self._reporter.rewrite("", erase=True)
