"""Which split a new image goes to. An image never changes its split, and a group of near-duplicates stays together.

The split is that of the image's group, if the group has one; else what the source says; else a share of the new groups,
chosen by a digest of their names, becomes val.
"""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.errors import InputError

TRAIN, VAL = "train", "val"


class Grouping:
    """The group of a key. `rule`: "folder" (its folder, and by itself without one), "none" (each by itself), or a
    regular expression: what its first parenthesis matches, or all that it matches.

    Raises InputError for a rule that is no regular expression.
    """

    def __init__(self, rule: str) -> None:
        self._rule = rule
        try:
            self._pattern = None if rule in ("folder", "none") else re.compile(rule)
        except re.error as error:
            raise InputError(
                f"--group {rule!r} is no regular expression ({error}); write folder, none, or one"
            ) from error

    def of(self, key: str) -> str:
        """The group that a key is in; the key itself where it is alone."""
        if self._pattern is not None:
            match = self._pattern.search(key)
            found = None if match is None else match.group(1 if match.re.groups else 0)
            return found or key
        return key if self._rule == "none" else posixpath.dirname(key) or key


def choose_splits(
    new: Sequence[tuple[str, str, str | None]], there: Mapping[str, str], val_share: float
) -> tuple[dict[str, str], list[str]]:
    """The split of each key of `new`, and notes for a person.

    `new`: (key, group, the split that the source says). `there`: the split of each group that the data set has already.
    """
    splits: dict[str, str] = {}
    free: dict[str, list[str]] = {}
    overruled = 0
    for key, group, said in new:
        if group in there:
            splits[key] = there[group]
            overruled += said is not None and said != there[group]
        elif said is not None:
            splits[key] = said
        else:
            free.setdefault(group, []).append(key)
    notes = []
    if overruled:
        notes.append(f"{overruled:,} images went to the split that their group is in, not to the one of the source")
    wanted = round(val_share * sum(map(len, free.values())))
    taken = 0
    order = sorted(free, key=lambda group: hashlib.sha256(group.encode(errors="surrogatepass")).digest())
    for index, group in enumerate(order):
        # Never all of them: somebody has to be trained on.
        is_val = taken < wanted and (index < len(order) - 1 or TRAIN in splits.values() or TRAIN in there.values())
        taken += len(free[group]) if is_val else 0
        splits |= dict.fromkeys(free[group], VAL if is_val else TRAIN)
    if wanted and not taken:
        notes.append("all new images are of one group, so none went to val; --group none says that they are unlike")
    return splits, notes


def group_splits(rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The split of each group, of rows (group, split). Of a group that is in several, the one with most of its images;
    train where two have as many."""
    counts: dict[str, Counter[str]] = {}
    for group, split in rows:
        counts.setdefault(group, Counter())[split] += 1
    return {
        group: max(found, key=lambda split: (found[split], split == TRAIN, split)) for group, found in counts.items()
    }
