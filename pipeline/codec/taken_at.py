"""When an image was taken, as its EXIF says: DateTimeOriginal, and OffsetTimeOriginal where the camera wrote one.

EXIF is a stranger's data like the pixels, and is read in the codec's processes. What is damaged or makes no sense says
nothing: the image is as good as without it.
"""

import io
import re
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta

from PIL import ExifTags, Image

from fcn_core.decoding import heif, png, without_text_before

FORMATS = ("JPEG", "WEBP", "TIFF", "AVIF")

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MARKS = (b"Exif\0\0", b"eXIf", b"Raw profile type exif", b"EXIF")  # of JPEG, AVIF and HEIC, PNG (two ways), WebP
_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_LARGEST_OFFSET = 14 * 60


@dataclass(frozen=True, slots=True)
class TakenAt:
    """`time` is what the camera's clock showed, without a time zone; `offset` its minutes east of UTC, None where the
    camera did not say."""

    time: datetime
    offset: int | None = None

    @property
    def utc(self) -> datetime | None:
        """The same moment in UTC, without a time zone; None where that cannot be known."""
        return None if self.offset is None else self.time - timedelta(minutes=self.offset)


def taken_at(data: bytes) -> TakenAt | None:
    """When the image in a file's bytes was taken. None where the file does not say; never raises for what it holds."""
    data = without_text_before(data)
    if not data.startswith(_TIFF) and not any(mark in data for mark in _MARKS):
        return None  # most files have no EXIF, and opening one costs
    try:
        with warnings.catch_warnings(action="ignore"):
            tags = _tags(data)
        return _parsed(tags.get(ExifTags.Base.DateTimeOriginal), tags.get(ExifTags.Base.OffsetTimeOriginal))
    except Exception:  # whatever a reader makes of damaged EXIF
        return None


def _tags(data: bytes) -> dict[int, object]:
    """The tags of EXIF's own directory."""
    if data.startswith(png.SIGNATURE):
        return png.exif(data).get_ifd(ExifTags.IFD.Exif)
    if heif.is_heif(data):
        exif = Image.Exif()
        exif.load(heif.exif(data))
        return exif.get_ifd(ExifTags.IFD.Exif)
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        exif = Image.Exif()
        if image.format == "TIFF":
            exif = image.getexif()
        elif "exif" in image.info:
            exif.load(image.info["exif"])
        return exif.get_ifd(ExifTags.IFD.Exif)


def _parsed(time: object, offset: object) -> TakenAt | None:
    found = _TIME.fullmatch(_text(time))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups())
    # A clock that was never set has month 0: ValueError, as for any day that there is not.
    moment = datetime(year, month, day, hour, minute, second)
    shift = _OFFSET.fullmatch(_text(offset))
    minutes = None
    if shift is not None and int(shift[3]) < 60:
        minutes = (int(shift[2]) * 60 + int(shift[3])) * (-1 if shift[1] == "-" else 1)
    return TakenAt(moment, minutes if minutes is not None and abs(minutes) <= _LARGEST_OFFSET else None)


def _text(value: object) -> str:
    return value.strip("\0 ") if isinstance(value, str) else ""
