"""Which annotated images, and how to read them: options that training, evaluation and checks share."""

from typing import Literal

from pydantic import Field

from fcn_core.data.coding_names import MaskCoding
from fcn_core.options import Options
from pipeline.storage.uri import Uri

Preset = Literal["voc2012", "sbd", "camvid", "cityscapes"]


class DatasetPlace(Options):
    """Which annotated images."""

    dataset: Uri = Field(
        min_length=1,
        description="Annotated images: a folder in PASCAL VOC's layout, a manifest (.parquet, .csv, .tsv), a version "
        "of a data set (DATASET@latest, DATASET@3), or what `fcn segment` predicted (output:OUTPUT, "
        "output:OUTPUT@VARIANT); path or URI.",
    )


class PredictedOptions(Options):
    """Which predictions of an output make a data set."""

    min_confidence: float = Field(
        default=0.0, ge=0, le=1, description="Of an output: leave out images whose confidence is lower."
    )
    per_class: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Of an output: images to take, by chance, of those that show a class. Default: all.",
    )
    val_share: float = Field(
        default=0.1, ge=0, lt=1, description="Of an output: share of the groups of images that is split val."
    )
    group: str = Field(
        default="folder",
        min_length=1,
        description="Of an output: what stays in one split: folder, none, or a regular expression for the key.",
    )


class ReadingOptions(Options):
    """How a data set is read: everything but its place, which command lines take by position."""

    preset: Preset | None = Field(
        default=None, description="A well-known data set: its layout, where that is not VOC's, and its classes."
    )
    labels: str | None = Field(
        default=None,
        description="The classes: voc, camvid, cityscapes or a .json file. Default: the preset's, else labels.json or "
        "classes.txt in the data set.",
    )
    mask_coding: MaskCoding = Field(
        default="auto",
        description="How masks hold classes: index, from_one (0 is no label, 1 the first class), rgb (the label set's "
        "colours), gray, or binary (black is class 0, the other colour class 1). auto: by each file, and what could be "
        "meant otherwise is refused.",
    )
    predicted: PredictedOptions = Field(
        default_factory=PredictedOptions, description="Which predictions to take, where the data set is an output."
    )
    follow_links: bool = Field(
        default=False,
        description="Also read what lies behind links that lead out of a local data set's folder. Default: that is "
        "refused by name.",
    )
    cache: str | None = Field(
        default=None,
        description="Local folder for fetched files, shared by all processes. Default: none for local data, else one "
        "among the temporary files.",
    )
    cache_bytes: int = Field(
        default=10 << 30, ge=0, le=2**63 - 1, description="Bytes that folder may hold. 0: no cache."
    )


class DatasetOptions(ReadingOptions, DatasetPlace):
    """Which annotated images, and how their masks are read."""
