"""A val_split by groups of images, as a job file may have it: {by: folder, hold_out: [night]}.

The names that it stands for are those of two parts of train_split; `pipeline.data.groups` reads them.
"""

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Grouping = Literal["folder", "prefix", "image", "column"]

COLUMN = r"[^=<>!@:,/]{1,200}"
"""Names of columns, as a pattern, that the name of a part can hold."""

MOST_FOLDS = 100


class HeldOutGroups(BaseModel):
    """A val_split as a job file may have it: the groups of train_split that are validated on, by name or as a share.

    `column`: that of the manifest whose values are the groups.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    by: Grouping
    column: str | None = None
    hold_out: tuple[str, ...] = ()
    share: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.hold_out) == (self.share is not None):
            raise ValueError("give either hold_out, the groups to validate on, or the share of the groups")
        strange = next((name for name in self.hold_out if "," in name or name != name.strip()), None)
        if strange is not None:
            raise ValueError(f"the group {strange!r} has a comma or blanks around it, and cannot be named here")
        if (self.by == "column") != (self.column is not None):
            raise ValueError("by: column wants the name of a column of the manifest, {by: column, column: camera, ...}")
        if self.column is not None and not re.fullmatch(COLUMN, self.column):
            raise ValueError(f"the column {self.column!r} cannot be named here; rename it in the manifest")
        return self

    def parts(self, split: str) -> tuple[str, str]:
        """The names of the two parts of `split`: to train on, and to validate on."""
        by = self.by if self.column is None else f"column.{self.column}"
        if self.share is not None:
            return f"{split}:{by}>={self.share:g}", f"{split}:{by}<{self.share:g}"
        groups = ",".join(self.hold_out)
        return f"{split}:{by}!={groups}", f"{split}:{by}={groups}"


def with_parts(options: Any) -> Any:
    """The options of a training with a `val_split` of groups as the names of two parts of `train_split`."""
    if not isinstance(options, dict) or not isinstance(options.get("val_split"), dict):
        return options
    split = options.get("train_split") or "train"
    trained_on, validated_on = HeldOutGroups.model_validate(options["val_split"]).parts(split)
    return options | {"train_split": trained_on, "val_split": validated_on}


def fold_parts(split: str, by: str, fold: int, folds: int) -> tuple[str, str]:
    """The names of the two parts of `split` in a cross-validation: all other folds to train on, and one to validate on.

    `by`: image, folder, prefix, or the name of a manifest's column. Raises ValueError for one that cannot be named.
    """
    if by not in ("image", "folder", "prefix"):
        if not re.fullmatch(COLUMN, by):
            raise ValueError(f"images cannot be grouped by {by!r}: give image, folder, prefix, or a manifest's column")
        by = f"column.{by}"
    return f"{split}:{by}!@{fold}of{folds}", f"{split}:{by}@{fold}of{folds}"
