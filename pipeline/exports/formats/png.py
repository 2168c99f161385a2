"""Masks as they are: palette PNGs of class indices, under plain names."""

from pipeline.exports.formats.base import Exported, MaskedImage
from pipeline.exports.formats.one_file import OneFile


class PngMasks(OneFile):
    """See `base.ExportFormat`."""

    def write(self, image: MaskedImage) -> Exported:
        return Exported(image.png)
