"""Tells a person how far a script of several steps is: a live bar on a terminal, a line now and then anywhere else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

LINE_SECONDS = 10.0
"""Where there is no terminal, a line at most this often."""


class Step:
    """A step under way. Its methods may be called from any thread."""

    def __init__(self, console: Console, bar: Progress | None, task: TaskID | None) -> None:
        self._console = console
        self._bar = bar
        self._task = task
        self._told = time.monotonic()
        self._lock = threading.Lock()
        self.outcome = ""

    def update(self, share: float | None, text: str = "") -> None:
        """How much is done, 0..1 or unknown, and what is going on."""
        if self._bar is not None and self._task is not None:
            total = None if share is None else 1.0
            self._bar.update(self._task, total=total, completed=share or 0.0, description=text)
            return
        with self._lock:
            if time.monotonic() - self._told >= LINE_SECONDS:
                self._told = time.monotonic()
                percent = "" if share is None else f"{share:4.0%}  "
                self._console.print(f"      {percent}{text}", markup=False)

    def done(self, outcome: str) -> None:
        """What came of it, in a line."""
        self.outcome = outcome


class Steps:
    """The numbered steps of a script on `console`."""

    def __init__(self, console: Console, count: int) -> None:
        self._console = console
        self._count = count
        self._number = 0

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step: announced at its start, timed, and summed up at its end."""
        self._number += 1
        self._console.print(f"[bold cyan]\\[{self._number}/{self._count}][/] [bold]{name}[/]")
        started = time.monotonic()
        if self._console.is_terminal:
            columns = (SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            with Progress("     ", *columns, console=self._console, transient=True) as bar:
                step = Step(self._console, bar, bar.add_task("", total=None))
                yield step
        else:
            step = Step(self._console, None, None)
            yield step
        took = f"{time.monotonic() - started:.1f} s"
        self._console.print(f"      {step.outcome} [dim]({took})[/]" if step.outcome else f"      [dim]{took}[/]")
