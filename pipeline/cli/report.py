"""`fcn report`: a run as a page to look at."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE


def report(
    output: str,
    run: str | None = None,
    *,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"])] = None,
) -> int:
    """Write the report of a run: one HTML file with images, charts, errors, model and configuration, readable offline.

    `fcn segment` makes it at the end of every run; this makes it again, or for a run that is not finished.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    run
        Which run, as `fcn runs` lists them. Default: the newest.
    file
        Write the page to this file. Default: OUTPUT/reports/RUN/index.html.
    """
    from pipeline.cli import console
    from pipeline.errors import InputError, ObjectMissing
    from pipeline.outputs.runs import records
    from pipeline.report.make import make_report, write_report
    from pipeline.storage.opening import open_store

    store = open_store(output)
    store.check_readable()
    if run is None:
        newest = next(records(store), None)
        if newest is None:
            raise InputError(f"there is no run under {output}; give the OUTPUT of fcn segment")
        run = newest.run_id
    if "/" in run:
        raise InputError(f"{run!r} is no run; `fcn runs {output}` lists them")
    screen = console.stderr_console()
    with screen.status("making the report") as status:
        try:
            if file is None:
                key = write_report(store, run, status.update)
                print(f"{store.uri.rstrip('/')}/{key}" if "?" not in store.uri else f"{key} under {store.uri}")
                return DONE
            html = make_report(store, run, status.update)
        except ObjectMissing as error:
            raise InputError(f"there is no run {run} under {output}; `fcn runs {output}` lists them") from error
    try:
        file.write_bytes(html.encode())
    except OSError as error:
        raise InputError(f"cannot write the report to {file} ({error}); choose another with --file") from error
    print(file)
    return DONE
