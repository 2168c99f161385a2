"""Parts of a split by groups of images: those of one place, day or camera are kept together.

A part is named where a split is: `train:folder=night,rain` has the images of split train in these two folders,
`train:folder!=night,rain` all others; `train:prefix<0.2` those of a fifth of the prefixes, `train:prefix>=0.2` the
rest. The one thing to know: which groups a share takes follows from their names alone, so it is the same on every
machine, and stays what it is when other groups come.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.data.layouts import Split
from pipeline.errors import InputError
from pipeline.jobs.held_out import Grouping

_PART = re.compile(r"(?P<split>[^:]+):(?P<by>folder|prefix)(?P<test>!=|>=|=|<)(?P<value>.+)", re.DOTALL)
_PREFIX = re.compile(r"[^_\-]+(?=[_\-])|\D+(?=\d)")
_LISTED_AT_MOST = 8


@dataclass(frozen=True)
class PartOfSplit:
    """What a name of a part says."""

    split: str
    by: Grouping
    groups: frozenset[str]
    share: float | None
    others: bool

    def of(self, found: Split) -> Split:
        """This part of a split. Raises InputError where a group is not there, or nothing is left."""
        names = [*(pair.name for pair in found.pairs), *(gone.name for gone in found.missing)]
        groups = {group_of(name, self.by) for name in names}
        unknown = sorted(self.groups - groups)
        if unknown:
            raise InputError(f"split {self.split} has no {self.by} {unknown[0]!r} ({_listed(groups)}); name others")
        part = replace(
            found,
            pairs=tuple(pair for pair in found.pairs if self._has(pair.name)),
            missing=tuple(gone for gone in found.missing if self._has(gone.name)),
            duplicates=tuple(name for name in found.duplicates if self._has(name)),
        )
        if not part.pairs and not part.missing:
            raise InputError(
                f"of split {self.split} nothing is in this part, by {self.by} ({_listed(groups)}); choose other "
                "groups, or another share"
            )
        return part

    def _has(self, name: str) -> bool:
        group = group_of(name, self.by)
        chosen = group in self.groups if self.share is None else _place(group) < self.share
        return chosen != self.others


def parse_part(name: str) -> PartOfSplit | None:
    """What a name says, if it is one of a part. Raises InputError for a share that is none."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    by: Grouping = "folder" if match["by"] == "folder" else "prefix"
    if match["test"] in ("=", "!="):
        groups = frozenset(match["value"].split(","))
        return PartOfSplit(match["split"], by, groups, None, others=match["test"] == "!=")
    try:
        share = float(match["value"])
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise InputError(f"{name!r} wants a share of the groups between 0 and 1, such as 0.2")
    return PartOfSplit(match["split"], by, frozenset(), share, others=match["test"] == ">=")


def group_of(name: str, by: Grouping) -> str:
    """The folder of a name ("" without one), or what its last part begins with: up to the first "_" or "-", else to its
    first digit, else all of it.
    """
    folder, last = posixpath.split(name)
    if by == "folder":
        return folder
    match = _PREFIX.match(last)
    return match[0] if match else last


def _place(group: str) -> float:
    """Where among all groups one stands, 0..1, by its name."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64


def _listed(groups: Iterable[str]) -> str:
    names = sorted(groups)
    more = f" and {len(names) - _LISTED_AT_MOST} more" if len(names) > _LISTED_AT_MOST else ""
    return f"it has {', '.join(map(repr, names[:_LISTED_AT_MOST]))}{more}"
