"""Masks as RGB PNGs, for tools that know classes by their colours: those of each mask's own palette."""

import io

from PIL import Image

from pipeline.exports.formats.base import Exported, MaskedImage
from pipeline.exports.formats.one_file import OneFile


class ColorMasks(OneFile):
    """See `base.ExportFormat`."""

    def write(self, image: MaskedImage) -> Exported:
        sink = io.BytesIO()
        Image.fromarray(image.palette[image.mask]).save(sink, "PNG")
        return Exported(sink.getvalue())
