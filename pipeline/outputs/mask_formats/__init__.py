"""How masks lie under OUTPUT: the formats by name, `--masks` of a job.

To add one, write a module with a class that is a `base.MaskFormat`, and give it a line in `MASK_FORMATS`. Only names
are read here: a format is imported when it is first used.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.outputs.mask_formats.base import MaskFormat

MASK_FORMATS = {
    "objects": "objects:ObjectMasks",
    "tar": "tar:TarMasks",
}
"""Each format's name, and the module and name of its class."""

if TYPE_CHECKING:
    MaskFormatName = str
else:
    MaskFormatName = Literal[tuple(MASK_FORMATS)]


@cache
def mask_format(name: MaskFormatName) -> "MaskFormat":
    """The format of that name in MASK_FORMATS."""
    module, _, attribute = MASK_FORMATS[name].partition(":")
    found: MaskFormat = getattr(import_module(f"{__name__}.{module}"), attribute)()
    return found


@cache
def mask_formats() -> tuple["MaskFormat", ...]:
    """All formats, in the order of MASK_FORMATS."""
    return tuple(map(mask_format, MASK_FORMATS))


def format_of(mask_key: str) -> "MaskFormat":
    """The format in which the mask of a row's `mask_key` was written; its folder tells. An object by default."""
    return _by_folder().get(mask_key.partition("/")[0], mask_format("objects"))


@cache
def _by_folder() -> dict[str, "MaskFormat"]:
    return {each.folder: each for each in mask_formats()}
