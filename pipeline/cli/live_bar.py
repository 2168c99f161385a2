"""What a job shows on a terminal: a spinner while a phase has no numbers, a bar when it has."""

from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from fcn_core.text.printable import printable


class LiveBar:
    """The part of an observer that is the same for every kind of job. A context manager."""

    def __init__(self, console: Console, bar_width: int = 40) -> None:
        self._console = console
        self._bar = Bar(
            SpinnerColumn(finished_text="[green]done[/]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=bar_width),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def phase(self, name: str) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(escape(printable(name)), total=None, numbers="")

    def note(self, text: str) -> None:
        self._console.print(f"[dim]{escape(printable(text))}[/]")

    def show(self, completed: int, total: int, numbers: str) -> None:
        """How far the present phase is; `numbers` (Rich markup) stands beside the bar."""
        if self._task is not None:
            self._bar.update(self._task, total=total, completed=completed, numbers=numbers)
