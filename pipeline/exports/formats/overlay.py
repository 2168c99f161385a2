"""Images with their masks laid over them, as JPEGs to look at."""

import io
from typing import ClassVar

from PIL import Image

from fcn_core import LabelSet
from fcn_core.labels import VOID
from fcn_core.render import overlay
from pipeline.exports.formats.base import Exported, MaskedImage
from pipeline.exports.formats.one_file import OneFile

QUALITY = 90


class Overlays(OneFile):
    """See `base.ExportFormat`."""

    suffix: ClassVar[str] = ".jpg"
    needs_pixels: ClassVar[bool] = True

    def write(self, image: MaskedImage) -> Exported:
        assert image.pixels is not None, "the format needs pixels"
        colors = [tuple(color) for color in image.palette.tolist()]
        names = tuple(f"class {index}" for index in range(VOID))
        labels = LabelSet(name="palette", names=names, palette=tuple(colors[:VOID]), ignore_color=colors[VOID])
        sink = io.BytesIO()
        Image.fromarray(overlay(image.pixels, image.mask, labels)).save(sink, "JPEG", quality=QUALITY)
        return Exported(sink.getvalue())
