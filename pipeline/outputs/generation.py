"""Generations of masks: what makes it safe to remove masks while processes may be slow beyond any bound.

A mask that no row names may be named by one in the next moment: by a run that finds it in its way and takes it over, or
by an actor that froze before its commit. And a deletion, once decided, may take effect at any later time, when an
object of that name counts again. No lease and no look back helps against that, for who looks may freeze after looking.
So a name that was once released for deletion is never given to a mask again:

- Who removes masks first creates the next number, gc/00000001.json, and looks only then for plans, records and results.
  It removes masks of lower generations that no committed row names, and no plan of a run that is not finished.
- Who plans a run writes the plan first, and asks for the number only then. The run keeps it for life, in run.json, and
  its masks' names end in it (`-1`; those of generation 0 in nothing).

Either the plan was there when the other looked, so its masks stay; or the number was there when the run asked, so its
masks have other names than any that may be removed. docs/decisions/0016-names-of-masks-are-never-used-again.md has the
whole argument.
"""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.errors import ObjectExists
from pipeline.storage.store import Store

_GENERATION = re.compile(r"gc/(\d{8})\.json")


def current_generation(output: Store) -> int:
    """The generation of runs that are planned now: 0 where masks were never removed."""
    return max((int(match[1]) for info in output.list("gc/") if (match := _GENERATION.fullmatch(info.key))), default=0)


def begin_generation(output: Store) -> int:
    """Have all runs that are planned from now on make masks of a new generation; returns which."""
    number = current_generation(output) + 1
    since = json.dumps({"since": datetime.now(UTC).isoformat(timespec="milliseconds")}).encode()
    # Where another creates the same number, it is there all the same, which is all that is asked for.
    with suppress(ObjectExists):
        output.create(f"gc/{number:08d}.json", since)
    return number
