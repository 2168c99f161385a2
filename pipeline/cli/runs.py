"""`fcn runs`: which runs an output has, and `fcn runs watch`: how one of them goes, from whatever machine.

Both show what is committed (`pipeline.outputs.standing`), which is what the run's own terminal and its report show.
"""

import time
from datetime import UTC, datetime

from cyclopts import App

from pipeline.cli.common import DONE, FAILED, INTERRUPTED, Flag

runs_app = App(name="runs", help="List the runs of an output, or watch one of them.")

WATCH_SECONDS = 2.0
"""How often the storage is asked; a run writes its progress every few seconds."""

SILENT_SECONDS = 90.0
"""A run that has written nothing for so long, though it says that it runs, may have lost its driver."""


@runs_app.default
def runs(output: str, *, json: Flag = False) -> int:
    """List the runs of an output, newest first.

    Images and errors are those that are committed, of all attempts; the overall speed is images per second of all
    attempts, the start of Ray and of the model included.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    json
        Print the run records as JSON.
    """
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.cli.terminal import Screen
    from pipeline.errors import StorageError
    from pipeline.outputs.runs import RunRecord, records
    from pipeline.outputs.standing import standing
    from pipeline.storage.opening import open_store

    store = open_store(output)
    store.check_readable()

    def stands(record: RunRecord) -> RunRecord:
        try:
            return standing(store, record)
        except StorageError as error:  # one damaged file must not hide the other runs
            text = f"run {record.run_id} could not be counted ({error}); its numbers are as its driver left them"
            console.stderr_console().print(printable(text), markup=False)
            return record

    found = [stands(record) for record in records(store)]
    if json:
        console.print_json(
            [
                {**record.model_dump(mode="json"), "overall_images_per_second": record.images_per_second}
                for record in found
            ]
        )
    elif found:
        screen = Screen()
        # Wider than a terminal when it is read by another program.
        (screen if screen.is_terminal else Screen(width=200)).print(console.runs_table(found))
    else:
        console.stderr_console().print(f"no runs under {output}", markup=False)
    return DONE


@runs_app.command
def watch(output: str, run: str | None = None) -> int:
    """Follow a run until it ends, from this or any other machine. Ctrl-C ends the watching, not the run.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    run
        Its id, or the beginning of it. Default: the newest.
    """
    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.outputs.current import choose_run
    from pipeline.outputs.runs import read_record, records
    from pipeline.outputs.standing import live_progress, standing
    from pipeline.storage.opening import open_store

    screen = console.stderr_console()
    store = open_store(output)
    store.check_readable()
    record = choose_run(store, run) if run else next(records(store), None)
    if record is None:
        screen.print(f"no runs under {output}", markup=False)
        return FAILED
    try:
        with console.watch(screen, record.run_id) as show:
            told_silent = False
            while record.state == "running":
                progress = live_progress(store, record)
                if progress is not None:
                    show(progress)
                    silent = (datetime.now(UTC) - progress.updated).total_seconds()
                    if silent > SILENT_SECONDS and not told_silent:
                        told_silent = True
                        committed = standing(store, record).counts
                        screen.print(
                            f"nothing was heard of it for {silent:.0f} s, and {committed.images} of {record.images} "
                            f"images are committed, {console.describe_errors(committed)}; if its driver is gone, the "
                            "command that began it resumes it",
                            markup=False,
                        )
                time.sleep(WATCH_SECONDS)
                record = read_record(store, record.run_id)
    except KeyboardInterrupt:
        return INTERRUPTED
    record = standing(store, record)
    reason = f" ({printable(record.reason)})" if record.reason else ""
    screen.print(
        f"run {printable(record.run_id)} {record.state}{reason}: {record.counts.ok} of {record.images} images "
        f"labelled, {console.describe_errors(record.counts)}",
        markup=False,
    )
    return DONE if record.state == "finished" else FAILED
