"""What a check of a data set found: counts a split, problems and warnings, and how a person reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import InputError
from pipeline.numbers import percent

Kind = Literal[
    "missing_image",
    "missing_mask",
    "two_files",
    "unreadable_image",
    "unreadable_mask",
    "size_mismatch",
    "illegal_values",
    "colors_for_indices",
    "unknown_colors",
    "black_and_white",
    "other_palette",
    "listed_twice",
    "name_in_two_splits",
    "image_in_two_splits",
    "similar_in_two_splits",
    "empty_split",
    "empty_mask",
    "absent_class",
    "repeated_image",
    "turned_image",
    "mask_not_turned",
]

EXPLANATIONS: dict[Kind, tuple[str, str]] = {
    "missing_image": ("images that are listed and not there", "add the files or take the names off the list"),
    "missing_mask": ("masks that are not there", "add the files or take the names off the list"),
    "two_files": ("names that several files answer to", "rename or remove all but one"),
    "unreadable_image": ("images that cannot be read", "copy them again or leave them out"),
    "unreadable_mask": ("masks that cannot be read", "copy or make them again, as PNG"),
    "size_mismatch": ("masks of another size than their image", "find the image that the mask was drawn on"),
    "illegal_values": ("masks with values that are no class", "recode the masks or choose their label set"),
    "colors_for_indices": ("masks with colours where indices are expected", "use --mask-coding rgb or auto"),
    "unknown_colors": (
        "masks with colours that the label set does not have",
        "choose the label set they were made with",
    ),
    "black_and_white": ("masks of only 0 and 255, where 255 would be ignored", "write 1 for white, or use a coding"),
    "other_palette": ("masks whose palette gives classes each other's colours", "say --mask-coding index or rgb"),
    "listed_twice": ("names that a split lists more than once", "list every image once"),
    "name_in_two_splits": ("images that are in two splits", "take them off one, or scores mean nothing"),
    "image_in_two_splits": ("the same image under two names in two splits", "take one out, or scores mean nothing"),
    "similar_in_two_splits": (
        "images that look nearly like one of another split",
        "if they are the same or frames next to each other, take one out, or scores promise too much",
    ),
    "empty_split": ("splits that list nothing", "list images, or remove the split"),
    "empty_mask": ("masks in which nothing is labelled", "they teach nothing; leave them out or label them"),
    "absent_class": ("classes that never occur", "they cannot be learnt or scored there"),
    "repeated_image": ("the same image under two names", "it counts twice in training"),
    "turned_image": (
        "images that EXIF turns for display",
        "their masks must fit the images as displayed; if not, store both upright",
    ),
    "mask_not_turned": (
        "masks that fit the stored image better than the displayed one",
        "look at them with fcn data show; turn the mask, or store the image upright without the EXIF entry",
    ),
}
"""What each kind is, and what to do about it."""

WARNINGS: frozenset[Kind] = frozenset(
    {"empty_mask", "absent_class", "repeated_image", "similar_in_two_splits", "turned_image", "mask_not_turned"}
)
"""Kinds that do not keep anybody from training."""


_NAMED_AT_MOST = 3
"""Problems, and examples of a warning, that one sentence names."""


class BadData(InputError):
    """The data set is not fit for training."""


class DataFinding(BaseModel):
    """All that was found of one kind in one split: `count` of them, the first few spelled out in `examples`."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    split: str
    count: int
    examples: tuple[str, ...]


class ClassCount(BaseModel):
    """How much of a split one class has: pixels, and images in which it occurs."""

    model_config = ConfigDict(frozen=True)

    class_id: int
    class_name: str
    pixels: int
    images: int


class SplitReport(BaseModel):
    """One split: how many images it lists, how many of those can be used, and what their masks hold."""

    model_config = ConfigDict(frozen=True)

    name: str
    listed: int
    usable: int
    pixels: int
    ignored_pixels: int
    classes: tuple[ClassCount, ...]


@dataclass(frozen=True)
class SplitContent:
    """What the files of a split hold: a digest of all names, pixels and masks; and each image's pixel digest."""

    digest: str
    images: tuple[bytes, ...]


class DataReport(BaseModel):
    """A check's outcome. With any of `problems` the data set is not fit for training; `warnings` are worth a look."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    labels: str
    splits: tuple[SplitReport, ...]
    problems: tuple[DataFinding, ...]
    warnings: tuple[DataFinding, ...]
    notes: tuple[str, ...] = ()
    contents: dict[str, SplitContent] = Field(default_factory=dict, exclude=True)
    """Of each split that was read: not part of the report as JSON."""

    @property
    def ok(self) -> bool:
        """Whether training and evaluation would take it."""
        return not self.problems


def describe(report: DataReport) -> Iterator[str]:
    """The report for a person, line by line."""
    classes = report.splits[0].classes if report.splits else ()
    yield f"{report.dataset}: label set {report.labels}, {len(classes)} classes"
    yield ""
    yield f"{'split':12}{'listed':>10}{'usable':>10}{'pixels':>18}{'ignored':>10}"
    for split in report.splits:
        share = _percent(split.ignored_pixels, split.pixels)
        yield f"{split.name:12}{split.listed:>10,}{split.usable:>10,}{split.pixels:>18,}{share:>10}"
    yield ""
    width = max((len(item.class_name) for item in classes), default=0) + 6
    yield f"{'class':{width}}" + "".join(f"{split.name:>12} {'images':>9}" for split in report.splits)
    for index, item in enumerate(classes):
        counts = (split.classes[index] for split in report.splits)
        labelled = (split.pixels - split.ignored_pixels for split in report.splits)
        cells = (
            f"{_percent(count.pixels, whole):>12} {count.images:>9,}"
            for count, whole in zip(counts, labelled, strict=True)
        )
        yield f"{item.class_id:>3} {item.class_name:{width - 4}}" + "".join(cells)
    for note in report.notes:
        yield from ("", f"note: {note}")
    for name, findings in (("problem", report.problems), ("warning", report.warnings)):
        for finding in findings:
            what, remedy = EXPLANATIONS[finding.kind]
            yield ""
            yield f"{name} {finding.kind} in split {finding.split} ({finding.count:,}): {what}; {remedy}"
            yield from (f"    {example}" for example in finding.examples)
            if finding.count > len(finding.examples):
                yield f"    and {finding.count - len(finding.examples):,} more"
    yield ""
    yield f"{_sum(report.problems, 'problem')}, {_sum(report.warnings, 'warning')}"


def refusal(report: DataReport) -> str:
    """One sentence of the first problems, for whoever cannot train on this."""
    problems = report.problems
    named = "; ".join(
        f"{EXPLANATIONS[problem.kind][0]} ({problem.count} in split {problem.split}: {problem.examples[0]}"
        f"{', ...' if problem.count > 1 else ''})"
        for problem in problems[:_NAMED_AT_MOST]
    )
    more = f"; and {len(problems) - _NAMED_AT_MOST} more kinds of problems" if len(problems) > _NAMED_AT_MOST else ""
    return (
        f"data set {report.dataset} is not fit for training: {named}{more}; `fcn data check` tells all, and what to do"
    )


def warning_lines(report: DataReport) -> Iterator[str]:
    """One line per kind of warning and split, with the first examples."""
    for finding in report.warnings:
        named = ", ".join(finding.examples[:_NAMED_AT_MOST])
        more = ", ..." if finding.count > _NAMED_AT_MOST else ""
        what, remedy = EXPLANATIONS[finding.kind]
        yield f"warning: {what} ({finding.count} in split {finding.split}: {named}{more}): {remedy}"


def _percent(part: int, whole: int) -> str:
    if not part or not whole:
        return "-"
    return percent(part / whole, 2)


def _sum(findings: tuple[DataFinding, ...], name: str) -> str:
    total = sum(finding.count for finding in findings)
    return f"{total:,} {name}{'' if total == 1 else 's'}" if total else f"no {name}s"
