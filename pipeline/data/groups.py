"""Parts of a split by groups of images: those of one place, day or camera are kept together.

A part is named where a split is: `train:folder=night,rain` has the images of split train in these two folders,
`train:folder!=night,rain` all others; `train:prefix<0.2` those of a fifth of the prefixes, `train:prefix>=0.2` the
rest; `train:image@1of5` the first of five folds, `train:image!@1of5` the other four. `column.camera` groups by a column
of a manifest, `image` takes each image by itself.

The one thing to know: which groups a share takes follows from their names alone, so it is the same on every machine,
and stays what it is when other groups come. Folds are of nearly equal size instead, and change with the images.
"""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from fcn_core.text.printable import listed
from pipeline.data.layouts import Split
from pipeline.errors import InputError
from pipeline.jobs.held_out import COLUMN, MOST_FOLDS

_PART = re.compile(
    rf"(?P<split>[^:]+):(?P<by>folder|prefix|image|column\.{COLUMN})(?P<test>!@|@|!=|>=|=|<)(?P<value>.+)", re.DOTALL
)
_FOLD = re.compile(r"(\d{1,4})of(\d{1,4})")
_PREFIX = re.compile(r"[^_\-]+(?=[_\-])|\D+(?=\d)")
_LISTED_AT_MOST = 8


@dataclass(frozen=True)
class PartOfSplit:
    """What a name of a part says: `groups`, a `share` of them or a `fold`, or all `others`."""

    split: str
    by: str
    groups: frozenset[str] = frozenset()
    share: float | None = None
    fold: tuple[int, int] | None = None
    others: bool = False

    @property
    def column(self) -> str | None:
        """The column of a manifest that the groups are of."""
        return self.by.removeprefix("column.") if self.by.startswith("column.") else None

    def of(self, found: Split, values: Mapping[str, str] | None = None) -> Split:
        """This part of a split. `values`: of the column, by name. Raises InputError where a group is not there, or
        nothing is left."""
        names = [*(pair.name for pair in found.pairs), *(gone.name for gone in found.missing), *found.duplicates]
        group = {name: values[name] if values is not None else group_of(name, self.by) for name in names}
        sizes = Counter(group[name] for name in dict.fromkeys(names))
        unknown = sorted(self.groups - sizes.keys())
        what = self.column or self.by
        if unknown:
            raise InputError(f"split {self.split} has no {what} {unknown[0]!r} ({_listed(sizes)}); name others")
        chosen = self._chosen(sizes)
        here = {name for name in names if (group[name] in chosen) != self.others}
        part = replace(
            found,
            pairs=tuple(pair for pair in found.pairs if pair.name in here),
            missing=tuple(gone for gone in found.missing if gone.name in here),
            duplicates=tuple(name for name in found.duplicates if name in here),
        )
        if not part.pairs and not part.missing:
            raise InputError(
                f"of split {self.split} nothing is in this part, by {what} ({_listed(sizes)}); choose other "
                "groups, or another share"
            )
        return part

    def _chosen(self, sizes: Mapping[str, int]) -> frozenset[str]:
        """The groups that the name speaks of, among all, which have so many images each."""
        if self.fold is not None:
            number, folds = self.fold
            if len(sizes) < folds:
                raise InputError(
                    f"split {self.split} cannot be cut into {folds} folds by {self.column or self.by}: it has "
                    f"{len(sizes)} ({_listed(sizes)}); choose fewer folds, or others"
                )
            return frozenset(group for group, fold in _folds(sizes, folds).items() if fold == number)
        if self.share is not None:
            return frozenset(group for group in sizes if place_of(group) < self.share)
        return self.groups


def parse_part(name: str) -> PartOfSplit | None:
    """What a name says, if it is one of a part. Raises InputError for a share or a fold that is none."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    split, by, test, value = match["split"], match["by"], match["test"], match["value"]
    if test in ("=", "!="):
        return PartOfSplit(split, by, groups=frozenset(value.split(",")), others=test == "!=")
    if test in ("@", "!@"):
        numbers = _FOLD.fullmatch(value)
        number, folds = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
        if not (2 <= folds <= MOST_FOLDS and 1 <= number <= folds):
            raise InputError(f"{name!r} wants one of 2 to {MOST_FOLDS} folds, such as @1of5")
        return PartOfSplit(split, by, fold=(number, folds), others=test == "!@")
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise InputError(f"{name!r} wants a share of the groups between 0 and 1, such as 0.2")
    return PartOfSplit(split, by, share=share, others=test == ">=")


def group_of(name: str, by: str) -> str:
    """The folder of a name ("" without one), the name itself, or its prefix: what its last part begins with, up to the
    first "_" or "-", else to its first digit, else all of it.
    """
    if by == "image":
        return name
    folder, last = posixpath.split(name)
    if by == "folder":
        return folder
    match = _PREFIX.match(last)
    return match[0] if match else last


def _folds(sizes: Mapping[str, int], folds: int) -> dict[str, int]:
    """The fold, 1 to `folds`, of each group: the largest first, each where there are fewest images yet."""
    images = [0] * folds
    found = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], place_of(group), group)):
        smallest = images.index(min(images))
        images[smallest] += sizes[group]
        found[group] = smallest + 1
    return found


def place_of(group: str) -> float:
    """Where among all groups one stands, 0..1, by its name."""
    return int.from_bytes(hashlib.sha256(group.encode(errors="surrogatepass")).digest()[:8], "big") / 2**64


def _listed(groups: Iterable[str]) -> str:
    return f"it has {listed(sorted(groups), _LISTED_AT_MOST)}"
