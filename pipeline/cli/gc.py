"""`fcn gc`: remove from an output what nothing refers to."""

from datetime import timedelta

from pipeline.cli.common import DONE, Flag


def gc(
    output: str,
    *,
    delete: Flag = False,
    older_than: timedelta = timedelta(hours=24),
    allow_empty: Flag = False,
    json: Flag = False,
) -> int:
    """Find files that dead shards, plans and drivers left in an output; --delete removes them.

    Only files that nothing refers to: masks without a row, plans without a run, old leases, superseded indexes.

    Parameters
    ----------
    output
        The OUTPUT of `fcn segment`.
    delete
        Remove what is found. Without it nothing changes.
    older_than
        Leave younger files alone: 24h, 7d, 90m.
    allow_empty
        Nothing is left over where no job has run yet, instead of exit code 2: for schedules.
    json
        Print what was found as JSON.
    """
    from dataclasses import asdict

    from fcn_core.text.printable import printable
    from pipeline.cli import console
    from pipeline.numbers import counted
    from pipeline.outputs.gc import collect
    from pipeline.outputs.runs import require_output
    from pipeline.storage.opening import open_store

    store = open_store(output)
    require_output(store, allow_empty=allow_empty)
    found = collect(store, older_than, delete=delete)
    if json:
        console.print_json({**asdict(found), "files": found.files, "bytes": found.bytes})
        return DONE
    for name, kind in sorted(found.kinds.items()):
        print(f"{name}: {counted(kind.files, 'file')}, {kind.bytes:,} bytes")
        for example in kind.examples:
            print(f"    {printable(example)}")
    what = f"{counted(found.files, 'leftover file')}, {found.bytes:,} bytes"
    if not found.files:
        print("nothing is left over")
    else:
        print(f"{what} removed" if delete else f"{what}; --delete removes them")
    return DONE
