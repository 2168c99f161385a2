"""The one order of an output's runs: by their ids, in which they commit.

Whoever reads results across runs takes the newest row of each image, and the newest run is that of the largest id. So a
new run's id is larger than all there are, whatever the clock says, and a run commits only while its id is the largest
that has committed anything.
"""

import re
import secrets
from datetime import UTC, datetime, timedelta

from pipeline.errors import InputError
from pipeline.outputs.plan import manifest_key
from pipeline.outputs.runs import is_run_id
from pipeline.storage.store import Store

_SECOND, _SECOND_CHARS = "%Y%m%dT%H%M%SZ", 16
_PLANNED = re.compile(r"runs/([^/]+)/")
_COMMITTED = re.compile(r"results/run_id=([^/]+)/")


def new_run_id(output: Store) -> str:
    """A UTC second, then four random hexadecimal digits; larger than every id in `output`.

    The second is now, or the one after the newest run's where the clock is not past that. Raises InputError where there
    is none.
    """
    newest = max((run_id for run_id in _run_ids(output) if is_run_id(run_id)), default="")[:_SECOND_CHARS]
    second = datetime.now(UTC)
    if newest >= f"{second:{_SECOND}}":
        try:
            second = datetime.strptime(newest, _SECOND).replace(tzinfo=UTC) + timedelta(seconds=1)
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{output.uri}: no run can be named to come after run {newest}-...; move what that has under runs/ and "
                "results/ away"
            ) from error
    return f"{second:{_SECOND}}-{secrets.token_hex(2)}"


def overtaken_by(output: Store, run_id: str) -> str | None:
    """A run that has committed something since `run_id` was planned, or has a larger id; None where there is none.

    What `run_id` has left over may be done by now, or replaced, and its rows would come too late in the order.
    """
    planned = next((info.last_modified for info in output.list(manifest_key(run_id))), None)
    for info in output.list("results/"):
        match = _COMMITTED.match(info.key)
        if match is None or match[1] == run_id:
            continue
        # Names that are not ours have no place in the order. Both dates are the storage's own.
        is_newer = is_run_id(match[1]) and match[1] > run_id
        if is_newer or (planned is not None and info.last_modified > planned):
            return match[1]
    return None


def _run_ids(output: Store) -> set[str]:
    """Of all runs that have a folder, be it a plan's that was never finished, or results whose record is lost."""
    planned = {match[1] for info in output.list("runs/") if (match := _PLANNED.match(info.key))}
    return planned | {match[1] for info in output.list("results/") if (match := _COMMITTED.match(info.key))}
