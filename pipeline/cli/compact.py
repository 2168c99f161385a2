"""`fcn compact`: the index that spares planning the reading of all history."""

from pipeline.cli.common import DONE, Flag


def compact(output: str, *, allow_empty: Flag = False, json: Flag = False) -> int:
    """Build one sorted index of what is done in an output, so that the next run plans faster.

    Runs do it themselves before they plan, where 256 results files or 256 MB of them are in no index yet. Harmless at
    any time, also while a run is at work.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    allow_empty
        Make no index where no job has run yet, instead of exit code 2: for schedules.
    json
        Print what was made as JSON.
    """
    from dataclasses import asdict

    from pipeline.cli import console
    from pipeline.outputs.compact import compact as make
    from pipeline.outputs.runs import require_output
    from pipeline.storage.opening import open_store

    store = open_store(output)
    require_output(store, allow_empty=allow_empty)
    made = make(store)
    if json:
        console.print_json(None if made is None else asdict(made))
    elif made is None:
        print(f"there are no results under {output}")
    else:
        new = f"{made.added:,} of them new" if made.changed else "nothing was new"
        print(f"index {made.id} covers {made.shards:,} results files ({made.rows:,} rows), {new}")
    return DONE
