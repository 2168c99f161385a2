"""`fcn report`: a run as a page to look at."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli.common import DONE, Flag


def report(
    output: str,
    run: str | None = None,
    *,
    all: Flag = False,
    file: Annotated[Path | None, Parameter(name=["--file", "-f"])] = None,
    open: Flag = False,
) -> int:
    """Write the report of a run: one HTML file with images, charts, errors, model and configuration, readable offline.

    `fcn segment` makes it at the end of every run; this makes it again, or for a run that is not finished. With --all,
    the page is about the whole output: what is current, and every run.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    run
        Which run, as `fcn runs` lists them. Default: the newest.
    all
        Write a page about the whole output instead, with links to the reports of its runs.
    file
        Write the page to this file. Default: OUTPUT/reports/RUN/index.html, with --all OUTPUT/reports/index.html.
    open
        Show the page in a browser of this machine. Of an output in a bucket, it needs --file.
    """
    from pipeline.cli import console
    from pipeline.cli.open_page import open_page, page_folder
    from pipeline.errors import InputError, ObjectMissing
    from pipeline.outputs.runs import records
    from pipeline.report.make import make_report, report_key
    from pipeline.report.overview import OVERVIEW_KEY, make_overview
    from pipeline.storage.opening import open_store

    if all and run is not None:
        raise InputError("--all is about the whole output; leave out --all, or the run")
    folder = page_folder(output, "--file FILE") if open and file is None else None
    store = open_store(output)
    store.check_readable()
    newest = next(records(store), None)
    if newest is None:
        raise InputError(f"there is no run under {output}; give the OUTPUT of fcn segment")
    run = run or newest.run_id
    if "/" in run:
        raise InputError(f"{run!r} is no run; `fcn runs {output}` lists them")
    key = OVERVIEW_KEY if all else report_key(run)
    screen = console.stderr_console()
    with screen.status("making the report") as status:
        try:
            html = make_overview(store, links=file is None) if all else make_report(store, run, status.update)
        except ObjectMissing as error:
            raise InputError(f"there is no run {run} under {output}; `fcn runs {output}` lists them") from error
        if file is None:
            store.put(key, html.encode())
    if file is None:
        print(f"{store.uri.rstrip('/')}/{key}" if "?" not in store.uri else f"{key} under {store.uri}")
        written = folder / key if folder is not None else None
    else:
        try:
            file.write_bytes(html.encode())
        except OSError as error:
            raise InputError(f"cannot write the report to {file} ({error}); choose another with --file") from error
        print(file)
        written = file
    if open and written is not None:
        open_page(screen, written)
    return DONE
