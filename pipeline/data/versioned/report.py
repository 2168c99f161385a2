"""What an import or an addition did, and how a person reads it."""

from collections import Counter
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from pipeline.data.annotations.source_files import short

_SHOWN = 10
_NAMES_SHOWN = 20


class AddReport(BaseModel):
    """What became of a source. `version` is the one that was made; None if nothing changed or was to be written.

    `left_out`: (image or record, why). `mapped`: classes of the source and what they are in the data set; `unmapped`:
    those that are no class here, whose pixels have no label. `splits`: images per split of the whole version.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    version: int | None
    dry_run: bool
    format: str
    labels: tuple[str, ...]
    added: int
    corrected: int
    unchanged: int
    splits: dict[str, int]
    mapped: dict[str, str]
    unmapped: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    split_notes: tuple[str, ...]

    @property
    def usable(self) -> int:
        """Images of the source that could be used."""
        return self.added + self.corrected + self.unchanged


def describe(report: AddReport) -> Iterator[str]:
    """The report for a person, line by line."""
    yield f"format {report.format}: {report.usable:,} usable images, {len(report.left_out):,} left out"
    yield f"{report.added:,} new, {report.corrected:,} corrected, {report.unchanged:,} as they were"
    same = sum(name == target for name, target in report.mapped.items())
    others = [f"{short(name)} -> {short(target)}" for name, target in report.mapped.items() if name != target]
    listed = f"; {', '.join(others[:_NAMES_SHOWN])}" if others else ""
    more = f" and {len(others) - _NAMES_SHOWN} more" if len(others) > _NAMES_SHOWN else ""
    yield f"classes: {same:,} by their own name{listed}{more}"
    if report.unmapped:
        named = ", ".join(map(short, report.unmapped[:_NAMES_SHOWN]))
        more = f" and {len(report.unmapped) - _NAMES_SHOWN:,} more" if len(report.unmapped) > _NAMES_SHOWN else ""
        yield f"no class here, their pixels have no label: {named}{more} (--map NAME=CLASS says otherwise)"
    yield from (f"note: {note}" for note in (*report.split_notes, *report.notes[:_SHOWN]))
    if report.left_out:
        yield ""
        yield f"left out ({len(report.left_out):,}):"
        yield from (f"    {short(key)}: {why}" for key, why in report.left_out[:_SHOWN])
        rest = report.left_out[_SHOWN:]
        if rest:
            (commonest, count), *_ = Counter(why for _, why in rest).most_common(1)
            yield f"    and {len(rest):,} more, {count:,} of them because: {commonest}"
    yield ""
    if report.version is not None:
        splits = ", ".join(f"{count:,} {split}" for split, count in report.splits.items())
        yield f"version {report.version} of {report.dataset}: {splits}"
    elif report.dry_run:
        yield "dry run: nothing was written"
    else:
        yield "nothing changed, and no version was made"
