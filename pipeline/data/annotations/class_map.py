"""Which class of the target label set a class of the source is: by rule, by name, or none."""

import re
from collections import Counter
from collections.abc import Mapping

from fcn_core.labels import LabelSet
from fcn_core.text.printable import printable
from pipeline.errors import InputError

IGNORE = "ignore"
"""The right side of a rule that leaves a class's pixels without a label."""

_NO_LABEL = frozenset({"", "background", "unlabeled", "unlabelled", "void", "ignore", "ignored", "unknown", "none"})
"""Names that mean "no label", in any spelling, where the target label set has no class of that name."""


class ClassMap:
    """Maps names of the source to class indices.

    A name is looked up in `rules` first, then among the label set's names as it is, then without regard to case and to
    the difference between space, "-" and "_". `unlabelled` is the class of pixels that nobody has annotated; None
    leaves them at the ignore index. A class of the source that is no class here always becomes the ignore index, never
    `unlabelled`: those pixels are something else.

    Raises InputError for rules that name a class that the label set does not have.
    """

    def __init__(self, labels: LabelSet, rules: Mapping[str, str] | None = None, unlabelled: str | None = None) -> None:
        self.labels = labels
        self.unlabelled = labels.ignore_index if unlabelled is None else self._named(unlabelled, "unlabelled pixels")
        self._rules = {name: self._ruled(name, wanted) for name, wanted in (rules or {}).items()}
        self._exact = {name: index for index, name in enumerate(labels.names)}
        alike = Counter(map(plain_name, labels.names))
        self._alike = {
            plain_name(name): index for index, name in enumerate(labels.names) if alike[plain_name(name)] == 1
        }
        self._found: dict[str, int] = {}

    def index(self, name: str) -> int:
        """The class index of a name of the source; the ignore index if it is none."""
        if name not in self._found:
            self._found[name] = self._look_up(name)
        return self._found[name]

    def is_no_label(self, name: str) -> bool:
        """Whether a name of the source says that nothing was labelled there, such as CVAT's "background"."""
        return name not in self._rules and self.index(name) == self.labels.ignore_index and means_no_label(name)

    def value(self, name: str) -> int:
        """What a pixel of this name becomes: its class, `unlabelled` if the name means that, else the ignore index."""
        return self.unlabelled if self.is_no_label(name) else self.index(name)

    def mapped(self) -> dict[str, str]:
        """The names of the source that were asked for and are classes, and which."""
        ignore = self.labels.ignore_index
        return {name: self.labels.names[index] for name, index in self._found.items() if index != ignore}

    def unmapped(self) -> list[str]:
        """The names of the source that were asked for and are no classes; without those that mean "no label" and those
        that a rule leaves out."""
        ignore = self.labels.ignore_index
        return [
            name
            for name, index in self._found.items()
            if index == ignore and name not in self._rules and not means_no_label(name)
        ]

    def _look_up(self, name: str) -> int:
        if name in self._rules:
            return self._rules[name]
        if name in self._exact:
            return self._exact[name]
        return self._alike.get(plain_name(name), self.labels.ignore_index)

    def _ruled(self, name: str, wanted: str) -> int:
        return self.labels.ignore_index if wanted == IGNORE else self._named(wanted, f"class {name!r}")

    def _named(self, wanted: str, what: str) -> int:
        if wanted in self.labels.names:
            return self.labels.names.index(wanted)
        there = ", ".join(self.labels.names[:12]) + (", ..." if self.labels.num_classes > 12 else "")
        raise InputError(
            f"{what} cannot become {printable(wanted)!r}: label set {self.labels.name} has no such class ({there})"
        )


def plain_name(name: str) -> str:
    """A name without what people write differently: case, and space, "-" or "_" between words."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def means_no_label(name: str) -> bool:
    """Whether tools use this name for pixels that nobody has labelled."""
    return plain_name(name) in _NO_LABEL
