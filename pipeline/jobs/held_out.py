"""A val_split by groups of images, as a job file may have it: {by: folder, hold_out: [night]}.

The names that it stands for are those of two parts of train_split; `pipeline.data.groups` reads them.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Grouping = Literal["folder", "prefix"]


class HeldOutGroups(BaseModel):
    """A val_split as a job file may have it: the groups of train_split that are validated on, by name or as a share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Grouping
    hold_out: tuple[str, ...] = ()
    share: float | None = Field(None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.hold_out) == (self.share is not None):
            raise ValueError("give either hold_out, the groups to validate on, or the share of the groups")
        strange = next((name for name in self.hold_out if "," in name or name != name.strip()), None)
        if strange is not None:
            raise ValueError(f"the group {strange!r} has a comma or blanks around it, and cannot be named here")
        return self

    def parts(self, split: str) -> tuple[str, str]:
        """The names of the two parts of `split`: to train on, and to validate on."""
        if self.share is not None:
            return f"{split}:{self.by}>={self.share:g}", f"{split}:{self.by}<{self.share:g}"
        groups = ",".join(self.hold_out)
        return f"{split}:{self.by}!={groups}", f"{split}:{self.by}={groups}"


def with_parts(options: Any) -> Any:
    """The options of a training with a `val_split` of groups as the names of two parts of `train_split`."""
    if not isinstance(options, dict) or not isinstance(options.get("val_split"), dict):
        return options
    split = options.get("train_split") or "train"
    trained_on, validated_on = HeldOutGroups.model_validate(options["val_split"]).parts(split)
    return options | {"train_split": trained_on, "val_split": validated_on}
