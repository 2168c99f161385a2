"""What differs between two versions of a data set."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from pipeline.data.versioned.references import split_reference
from pipeline.data.versioned.versions import Version, VersionRow, numbers, read_version
from pipeline.errors import InputError
from pipeline.sources.opening import open_source


@dataclass(frozen=True)
class VersionDiff:
    """Images by what happened to them between two versions, each sorted by key."""

    added: tuple[VersionRow, ...]
    removed: tuple[VersionRow, ...]
    corrected: tuple[VersionRow, ...]
    """Other masks of the same images."""
    replaced: tuple[VersionRow, ...]
    """Other images under the same keys."""
    moved: tuple[VersionRow, ...]


def compare_versions(before: Version, after: Version) -> VersionDiff:
    """What `after` has otherwise than `before`. Rows are those of `after`, of `removed` those of `before`."""
    old, new = ({row.key: row for row in version.rows} for version in (before, after))
    both = [(old[key], new[key]) for key in sorted(old.keys() & new.keys())]
    return VersionDiff(
        added=tuple(new[key] for key in sorted(new.keys() - old.keys())),
        removed=tuple(old[key] for key in sorted(old.keys() - new.keys())),
        corrected=tuple(b for a, b in both if a.image == b.image and a.mask != b.mask),
        replaced=tuple(b for a, b in both if a.image != b.image),
        moved=tuple(b for a, b in both if a.split != b.split),
    )


class LogEntry(BaseModel):
    """One version: who made it of what, its images per split, and what it changed in the one before."""

    model_config = ConfigDict(frozen=True)

    version: int
    created: str
    source: str
    format: str
    splits: dict[str, int]
    added: int
    corrected: int

    def line(self) -> str:
        """The entry for a person."""
        splits = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        change = f"{self.added:,} new, {self.corrected:,} corrected"
        return f"{self.version:>4}  {self.created}  {splits}  ({change}; from {self.source}, {self.format})"


def history(dataset: str) -> list[LogEntry]:
    """The versions of a data set, newest first. Raises InputError for one that has none."""
    place, version = split_reference(dataset)
    if version is not None:
        raise InputError(f"{dataset} names a version; give {place} to list them all")
    store = open_source(place)
    store.check_readable()
    found = numbers(store)
    if not found:
        raise InputError(f"{dataset} has no versions; `fcn data import SOURCE -o {dataset}` makes the first")
    entries = []
    before = Version(0, (), {})
    for number in found:
        version_now = read_version(store, number)
        change = compare_versions(before, version_now)
        notes = version_now.notes
        entries.append(
            LogEntry(
                version=number,
                created=notes.get("created", ""),
                source=notes.get("source", ""),
                format=notes.get("format", ""),
                splits=dict(sorted(Counter(row.split for row in version_now.rows).items())),
                added=len(change.added),
                corrected=len(change.corrected),
            )
        )
        before = version_now
    return entries[::-1]


def describe_diff(diff: VersionDiff, names: int) -> Iterator[str]:
    """The difference for a person, line by line; of each kind so many images are named."""
    kinds = {
        "added": diff.added,
        "removed": diff.removed,
        "mask corrected": diff.corrected,
        "image replaced": diff.replaced,
        "moved to another split": diff.moved,
    }
    for kind, rows in kinds.items():
        if rows:
            yield f"{kind} ({len(rows):,}):"
            yield from (f"    {row.key} ({row.split})" for row in rows[:names])
            if len(rows) > names:
                yield f"    and {len(rows) - names:,} more"
    if not any(kinds.values()):
        yield "no difference"
