"""The processes of a site: started as soon as what they need is ready, watched, and ended to the last one.

The one thing to know: this process adopts what its children leave behind (Linux calls it a subreaper), so that
everything that ever started below it can be found and ended, also what has detached itself; and should this process be
killed, its children are told to end.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.parts import Part
from deploy.local.settings import ROOT
from pipeline.errors import PipelineError

POLL_SECONDS = 0.2
START_SECONDS = 480.0
"""How long the whole start may take on a slow machine."""

WORKER_STOP_SECONDS = 20.0
"""Flows under way stop their jobs, which write down where they are."""

STOP_SECONDS = 8.0

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class PartFailed(PipelineError):
    """A part has ended, or does not get ready."""


class Processes:
    """The running parts of a site. `hurried` tells whether somebody no longer wants to wait."""

    def __init__(self, environment: Mapping[str, str], logs: Path, hurried: Callable[[], bool]) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._hurried = hurried
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._parts: dict[str, Part] = {}
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def start(self, parts: list[Part], told: Callable[[str, float], None], stopping: Callable[[], bool]) -> bool:
        """Start all parts and wait until they are ready; `told` hears of each, with the seconds it took.

        Returns False when `stopping` turned true on the way. Raises PartFailed for a part that ends or does not get
        ready.
        """
        begun = time.monotonic()
        started: dict[str, float] = {}
        ready: set[str] = set()
        while len(ready) < len(parts):
            if stopping():
                return False
            for part in parts:
                if part.name in started and part.name not in ready and self._is_ready(part):
                    ready.add(part.name)
                    told(part.name, time.monotonic() - started[part.name])
                elif part.name not in started and ready.issuperset(part.needs):
                    self._spawn(part)
                    started[part.name] = time.monotonic()
            self._refuse_ended()
            if time.monotonic() - begun > START_SECONDS:
                slow = next(part for part in parts if part.name not in ready)
                raise PartFailed(f"the {slow.name} is not ready after {START_SECONDS:.0f} s; {self._log_of(slow)}")
            time.sleep(POLL_SECONDS)
        return True

    def ended(self) -> list[tuple[str, str]]:
        """The parts that have ended since this was last asked: a sentence, and the command of each."""
        found = []
        for name, process in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                part = self._parts[name]
                found.append((f"the {name} has ended ({_how(code)}); {self._log_of(part)}", shlex.join(part.command)))
        return found

    def stop(self) -> None:
        """End everything: the worker first, for its flows need the others in order to end well, then all the rest."""
        worker = self._running.pop("Prefect worker", None)
        if worker is not None:
            _signal(worker, signal.SIGTERM)
            self._wait([worker], WORKER_STOP_SECONDS)
        rest = list(self._running.values())
        self._running.clear()
        for process in rest:
            _signal(process, signal.SIGTERM)
        self._wait(rest, STOP_SECONDS)
        _end_all_children()
        for process in (*rest, *([worker] if worker else ())):
            process.wait()

    def _spawn(self, part: Part) -> None:
        with (self._logs / part.log).open("wb") as log:
            self._running[part.name] = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,  # the S3 server ends with it
                stdout=log,
                stderr=log,
                start_new_session=True,  # a terminal's Ctrl-C is for this process, which knows in which order to stop
                preexec_fn=_end_with_parent,
            )
        self._parts[part.name] = part

    def _is_ready(self, part: Part) -> bool:
        process = self._running.get(part.name)
        if part.is_ready is not None:
            return process is not None and process.poll() is None and part.is_ready()
        if process is not None and process.poll() == 0:
            del self._running[part.name]
            return True
        return False

    def _refuse_ended(self) -> None:
        for part in self._parts.values():
            process = self._running.get(part.name)
            if process is not None and process.poll() is not None and (process.returncode or part.is_ready):
                raise PartFailed(f"the {part.name} has ended ({_how(process.returncode)}); {self._log_of(part)}")

    def _wait(self, processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in processes):
            if self._hurried() or time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS / 4)

    def _log_of(self, part: Part) -> str:
        log = self._logs / part.log
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its log is {log}" + (f", which ends with: {last[:300]}" if last else "")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_all_children() -> None:
    """Kill children until there are none: the children of a killed one come to this process, and are next."""
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS / 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _children() -> list[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
