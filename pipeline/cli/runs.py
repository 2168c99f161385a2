"""`fcn runs`: which runs an output has, and `fcn runs watch`: how one of them goes, from whatever machine.

Both show what is committed (`pipeline.outputs.standing`), which is what the run's own terminal and its report show.
"""

import time

from cyclopts import App

from pipeline.cli.common import DONE, FAILED, INTERRUPTED, Flag

runs_app = App(name="runs", help="List the runs of an output, or watch one of them.")

WATCH_SECONDS = 2.0
"""How often the storage is asked; a run writes its progress every few seconds."""


@runs_app.default
def runs(output: str, *, json: Flag = False) -> int:
    """List the runs of an output, newest first.

    Images and errors are those that are committed, of all attempts; the overall speed is images per second of all
    attempts, the start of Ray and of the model included. Of each run that has not ended a line says whether its driver
    is alive, and how far it is; of the newest, why it failed or was stopped.

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
    from pipeline.outputs.pulse import Listener, before_a_run, holder_of
    from pipeline.outputs.runs import RunRecord, records
    from pipeline.outputs.standing import live_progress, standing
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
    holder = holder_of(store)
    by_id = {record.run_id: record for record in found}
    running = {each.run_id: live_progress(store, each) for each in found if each.state == "running"}
    pulses = {run_id: Listener().hear(by_id[run_id], progress, holder) for run_id, progress in running.items()}
    alive = any(pulse is not None and pulse.state == "running" for pulse in pulses.values())
    waiting = None if alive else before_a_run(holder)
    if json:
        console.print_json(
            [console.run_json(each, running.get(each.run_id), pulses.get(each.run_id)) for each in found]
        )
    elif found:
        screen = Screen()
        # Wider than a terminal when it is read by another program.
        screen = screen if screen.is_terminal else Screen(width=200)
        screen.print(console.runs_table(found, pulses))
        for run_id, pulse in pulses.items():
            # A run that is not at work has no speed.
            at_work = pulse is not None and pulse.state == "running"
            far = console.how_far(running[run_id]) if at_work else console.committed(by_id[run_id])
            screen.print(printable(f"run {run_id} is {pulse}; {far}"), markup=False, soft_wrap=True)
        newest = found[0]
        if newest.reason is not None:
            screen.print(
                printable(f"run {newest.run_id} {newest.state}: {newest.reason}"), markup=False, soft_wrap=True
            )
    else:
        console.stderr_console().print(f"no runs under {output}", markup=False)
    if waiting is not None:
        console.stderr_console().print(printable(waiting), markup=False)
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
    from pipeline.numbers import counted
    from pipeline.outputs.current import choose_run
    from pipeline.outputs.pulse import Listener, before_a_run, holder_of
    from pipeline.outputs.runs import read_record, records
    from pipeline.outputs.standing import live_progress, standing
    from pipeline.storage.opening import open_store

    screen = console.stderr_console()
    store = open_store(output)
    store.check_readable()
    record = choose_run(store, run) if run else next(records(store), None)
    waiting = before_a_run(holder_of(store)) if record is None or record.state != "running" else None
    if waiting is not None:
        screen.print(printable(waiting), markup=False)
    if record is None:
        screen.print(f"no runs under {output}", markup=False)
        return FAILED
    listener = Listener()
    told: str | None = None
    try:
        with console.watch(screen, record.run_id) as show:
            while record.state == "running":
                progress = live_progress(store, record)
                pulse = listener.hear(record, progress, holder_of(store))
                if progress is not None:
                    show(progress)
                state = None if pulse is None else pulse.state
                shown = "running" if told is None and progress is not None else told  # the bar or the line says it
                if state != shown:
                    far = console.committed(standing(store, record)) + ("" if progress else ", no progress yet")
                    screen.print(printable(f"{pulse}; {far}"), markup=False)
                told = state
                time.sleep(WATCH_SECONDS)
                record = read_record(store, record.run_id)
    except KeyboardInterrupt:
        return INTERRUPTED
    record = standing(store, record)
    reason = f" ({printable(record.reason)})" if record.reason else ""
    screen.print(
        f"run {printable(record.run_id)} {record.state}{reason}: {record.counts.ok} of "
        f"{counted(record.images, 'image')} segmented, {console.describe_errors(record.counts)}",
        markup=False,
    )
    return DONE if record.state == "finished" else FAILED
