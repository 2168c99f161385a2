"""How annotations become a version of a data set: options of `fcn data import` and `fcn data add`."""

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.storage.uri import Uri


class AddOptions(BaseModel):
    """How annotations are read, and what becomes of new images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        default="auto",
        description="Format of the annotations: cvat, coco, coco-panoptic, label-studio, label-studio-png, labelme, "
        "supervisely, cityscapes or pairs. auto: recognised by the files.",
    )
    map: tuple[str, ...] = Field(
        default=(),
        description="NAME=CLASS: a class of the source is this class of the data set; NAME=ignore leaves its pixels "
        "without a label. May be given several times. Default: by name, whatever the case.",
    )
    unlabelled: str | None = Field(
        default=None, description="Class of the pixels that nobody has annotated. Default: no label (255)."
    )
    images: Uri | None = Field(
        default=None, description="Folder or bucket with the images, where they are not with the annotations."
    )
    names: Uri | None = Field(
        default=None,
        description="CSV that says which image a copy is, with the columns name and key: the images.csv of `fcn rank "
        "--copy-to`. Default: the one in the source, if any.",
    )
    prefix: str = Field(default="", description="Put before the keys of new images, such as site-3/.")
    group: str = Field(
        default="folder",
        description="Which images are near-duplicates and stay in one split: those of a folder; none; or a regular "
        "expression, whose first parenthesis (or whole match) in a key is the group.",
    )
    val_share: float = Field(
        default=0.2, ge=0, lt=1, description="Share of new images that go to split val where the source has no splits."
    )
    follow_links: bool = Field(
        default=False, description="Also read what lies behind links that lead out of a local source."
    )
    dry_run: bool = Field(default=False, description="Report what would be done, and write nothing.")

    @field_validator("map")
    @classmethod
    def _are_pairs(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            if not rule.rpartition("=")[0] or not rule.rpartition("=")[2]:
                raise ValueError("should be NAME=CLASS")
        return rules

    def rules(self) -> dict[str, str]:
        """The mapping that `map` says, by name of the source."""
        return {rule.rpartition("=")[0]: rule.rpartition("=")[2] for rule in self.map}


class ImportOptions(AddOptions):
    """The same, for the first version of a data set."""

    labels: str | None = Field(
        default=None,
        description="The classes: voc, camvid, cityscapes or a .json file. Default: those that the source has.",
    )


class Annotations(BaseModel):
    """What an annotation tool exported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    annotations: Uri = Field(description="A folder, .zip or .json, path or URI.")
