"""TIFF through tifffile and imagecodecs, strip by strip: every bit depth, plane order and compression that they know.

What is not certain to come out right (inks other than CMYK, camera raw, complex numbers) is refused by its name. Of
more bands than a picture has colours, the first three are red, green and blue.
"""

import io
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.decoding.libraries import tifffile
from fcn_core.decoding.refusals import CUT_OFF, damaged, short, unsupported
from fcn_core.decoding.samples import finite_range, grey, over_white, ranged, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size, valid_orientation
from fcn_core.decoding.tiff_pages import MAGICS, TiffBytes, picture
from fcn_core.decoding.tiff_segments import APERIO_YCBCR, JPEG, KNOWN, NONE, OLD_JPEG, check_segment
from fcn_core.decoding.ycbcr import Subsampled, to_rgb
from fcn_core.errors import DecodeError

if TYPE_CHECKING:
    from tifffile import TiffPage

_MAX_SEGMENTS = 1 << 20
_SLACK = 32 << 20  # samples
_MOST_WORK = 4
_ORIENTATION = 274
_INK_SET, _CMYK_INKS = 332, 1

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLORS = {_RGB: 3, _PALETTE: 1, _SEPARATED: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_UNSIGNED, _SIGNED, _FLOAT, _VOID = 1, 2, 3, 4
_COMPLEX = (5, 6)


def is_tiff(data: bytes) -> bool:
    return data[:4] in MAGICS


def read(data: bytes, max_pixels: int) -> Stored:
    """The first page of full resolution (see `tiff_pages`). How samples become 0..255 is in `samples`."""
    library = tifffile()
    file = TiffBytes.of(data)
    directory = picture(file)
    file.check_complete(directory)
    own, first = (file.integers(file.directory(at), _ORIENTATION, 1) for at in (directory.offset, file.first))
    try:
        with library.TiffFile(io.BytesIO(file.starting_at(directory.offset))) as opened:
            page = opened.pages.first
            check_size(page.imagewidth, page.imagelength, max_pixels)
            pixels = _Reader(page, max_pixels).rgb()
            return Stored(pixels, valid_orientation((own or first or [1])[0]), (page.imagewidth, page.imagelength))
    except library.TiffFileError as error:
        raise damaged(str(error)) from error


class _Reader:
    """Checks what a page says of itself, then decodes it."""

    def __init__(self, page: "TiffPage", max_pixels: int) -> None:
        self.page = page
        self.photometric = int(page.photometric)
        self.bits = page.bitspersample
        self.is_planar = page.planarconfig == 2 and page.samplesperpixel > 1
        self._check_kind()
        is_jpeg = page.compression in (JPEG, OLD_JPEG)
        self.subsampled = Subsampled(page, self._name()) if page.is_subsampled and not is_jpeg else None
        extra = [int(kind) for kind in page.extrasamples]
        self.colors = self._count_colors(extra)
        self.alpha, self.is_premultiplied = self._find_alpha(extra)
        self._check_amount(max_pixels)

    def rgb(self) -> Pixels:
        kept = [*range(self.colors), *([] if self.alpha is None else [self.alpha])]
        samples = self._samples(kept)
        colors = self._colors(samples[:, :, : self.colors])
        if self.alpha is not None:
            colors = over_white(colors, self._opacity(samples), premultiplied=self.is_premultiplied)
        return np.ascontiguousarray(grey(colors[:, :, 0]) if colors.shape[2] == 1 else colors)

    def _check_kind(self) -> None:
        page = self.page
        name = self._name()
        if int(page.compression) not in KNOWN:
            raise unsupported(name)
        if page.imagedepth != 1:
            raise unsupported(f"{name}, a volume {page.imagedepth} deep")
        if page.sampleformat not in (_UNSIGNED, _SIGNED, _FLOAT, _VOID) or page.dtype is None:
            kind = "complex numbers" if page.sampleformat in _COMPLEX else f"sample format {page.sampleformat}"
            raise unsupported(f"{name}, {kind} of {self.bits} bits")
        if not isinstance(self.bits, int):
            raise unsupported(f"{name}, samples of unequal depth")
        if self.photometric not in (_MIN_IS_WHITE, _MIN_IS_BLACK, *_COLORS):
            raise unsupported(name)
        if self.photometric == _SEPARATED and page.tags.valueof(_INK_SET, _CMYK_INKS) != _CMYK_INKS:
            raise unsupported(f"{name}, inks other than CMYK")
        of_bytes = self.photometric in (_YCBCR, _CIELAB, _ICCLAB)
        if of_bytes and self.bits != 8:
            raise unsupported(f"{name} of {self.bits} bits")
        if page.compression in (JPEG, OLD_JPEG) and (
            self.photometric in (_CIELAB, _ICCLAB) or (self.photometric == _YCBCR and page.extrasamples)
        ):
            raise unsupported(f"{name}, whose colours libjpeg would take for others")
        if page.compression == APERIO_YCBCR and self.photometric == _RGB:
            raise unsupported(f"{name}, of which one says RGB and one YCbCr")
        if self.photometric in (_PALETTE, _SEPARATED) and page.sampleformat not in (_UNSIGNED, _VOID):
            raise unsupported(f"{name} of samples that are not unsigned integers")

    def _name(self) -> str:
        kind = getattr(self.page.photometric, "name", None) or f"photometric {self.photometric}"
        how = getattr(self.page.compression, "name", None) or f"compression {self.page.compression}"
        raw = ", camera raw" if self.photometric in (32803, 34892) else ""
        return f"TIFF, {kind.lower()}, {how.lower()}{raw}"

    def _count_colors(self, extra: list[int]) -> int:
        count = self.page.samplesperpixel
        colors = _COLORS.get(self.photometric)
        if colors is None:  # shades of grey, or bands that nobody has named
            others = count - sum(kind in (_ASSOCIATED, _UNASSOCIATED) for kind in extra)
            if others > 1 and self.photometric == _MIN_IS_WHITE:
                raise unsupported(f"{self._name()} of {others} bands")
            colors = 3 if others >= 3 else 1
        if count < colors:
            raise damaged(f"{self._name()} has {count} samples a pixel")
        return colors

    def _find_alpha(self, extra: list[int]) -> tuple[int | None, bool]:
        count = self.page.samplesperpixel
        if not extra and self.photometric == _RGB and count == 4:
            return 3, False  # many writers forget to say so; readers agree on taking it as opacity
        for index, kind in enumerate(extra, start=count - len(extra)):
            if kind in (_ASSOCIATED, _UNASSOCIATED) and index >= self.colors:
                return index, kind == _ASSOCIATED
        return None, False

    def _check_amount(self, max_pixels: int) -> None:
        """That the strips or tiles are there, and together not much more than the picture."""
        page = self.page
        name = self._name()
        self.planes = page.samplesperpixel if self.is_planar else 1
        samples = 1 if self.is_planar else page.samplesperpixel
        if page.is_tiled:
            if page.tilewidth < 1 or page.tilelength < 1:
                raise damaged(f"{name} has tiles of {page.tilewidth}x{page.tilelength} pixels")
            columns, rows = math.ceil(page.imagewidth / page.tilewidth), math.ceil(page.imagelength / page.tilelength)
            self.area = page.tilewidth * page.tilelength
        else:
            height = min(max(page.rowsperstrip, 1), page.imagelength)
            columns, rows, self.area = 1, math.ceil(page.imagelength / height), height * page.imagewidth
        self.per_plane = columns * rows
        count = self.per_plane * self.planes
        work = self.area * samples * count  # far more than the picture's if most of each tile is cut off
        if work > _MOST_WORK * page.imagewidth * page.imagelength * page.samplesperpixel + _SLACK:
            raise unsupported(f"{name} in {count:,} strips or tiles of {self.area:,} pixels each")
        if self.area * samples > max(_SLACK, 4 * max_pixels):
            raise unsupported(f"{name} in strips or tiles of {self.area:,} pixels with {samples} samples each")
        if count > _MAX_SEGMENTS:
            raise unsupported(f"{name} in {count:,} strips or tiles")
        there = min(len(page.dataoffsets), len(page.databytecounts))
        if there < count:
            raise damaged(f"{name} lists {there} of its {count} strips or tiles")

    def _samples(self, kept: list[int]) -> npt.NDArray[Any]:
        """The samples of these bands as they are stored, [H, W, bands]."""
        page = self.page
        height, width = page.imagelength, page.imagewidth
        result = np.empty((height, width, len(kept)), page.dtype)
        for index, data in self._segments(kept):
            try:
                segment, top, left = self._segment(data, index)
            except (DecodeError, MemoryError):
                raise
            except Exception as error:
                raise self._decode_error(error) from error
            if segment is not None and result.dtype == np.bool_ and segment.dtype == np.uint8:
                segment = segment != 0  # as the readers of faxes say it
            if segment is None or segment.dtype.kind != result.dtype.kind or segment.itemsize != result.itemsize:
                raise damaged(f"{self._name()}: its data is not of the depth that it says")
            rows = slice(top, min(height, top + segment.shape[0]))
            columns = slice(left, min(width, left + segment.shape[1]))
            part = segment[: rows.stop - top, : columns.stop - left]
            if self.is_planar:
                result[rows, columns, kept.index(index // self.per_plane)] = part[:, :, 0]
            else:
                result[rows, columns] = part if part.shape[2] == len(kept) else part[:, :, kept]
        return result

    def _segment(self, data: bytes, index: int) -> tuple[npt.NDArray[Any] | None, int, int]:
        """The samples of a strip or tile, [rows, columns, bands], and its first row and column."""
        if self.subsampled is not None:
            return self.subsampled.segment(data, index)
        page = self.page
        segment, (_, _, top, left, _), _ = page.decode(
            data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
        )
        return None if segment is None else segment[0], top, left

    def _segments(self, kept: list[int]) -> Iterator[tuple[int, bytes]]:
        page = self.page
        file = page.parent.filehandle
        for index in range(self.per_plane * self.planes):
            if self.is_planar and index // self.per_plane not in kept:
                continue
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if not offset or not count:
                raise damaged(f"{self._name()}: strip or tile {index} is empty")
            file.seek(offset)
            data = file.read(count)
            if len(data) < count and page.compression != NONE:
                raise DecodeError("truncated", CUT_OFF)
            tables = page.jpegheader if page.compression == OLD_JPEG else page.jpegtables
            check_segment(data, tables, int(page.compression), self.area)
            yield index, data

    def _decode_error(self, error: Exception) -> DecodeError:
        text = short(str(error))
        if isinstance(error, NotImplementedError) or "not supported" in text or "not available" in text:
            return unsupported(f"{self._name()}: {text}")
        if isinstance(error, ValueError) and ("requires the" in text or "unknown" in text):
            return unsupported(f"{self._name()}: {text}")
        if self.page.compression == NONE:
            return DecodeError("truncated", CUT_OFF)
        return damaged(f"{self._name()}: {text}")

    def _colors(self, samples: npt.NDArray[Any]) -> Pixels:
        kind = self.photometric
        if kind == _PALETTE:
            return self._looked_up(samples[:, :, 0])
        if kind == _SEPARATED:
            return _converted(self._scaled(samples), "CMYK")
        if kind == _YCBCR and self.page.compression not in (JPEG, OLD_JPEG):
            return to_rgb(samples, self.page)
        if kind == _CIELAB:
            return _converted(samples, "LAB")
        if kind == _ICCLAB:  # whose a and b have an offset where CIELAB's have a sign
            return _converted(np.bitwise_xor(samples, np.array([0, 128, 128], np.uint8)), "LAB")
        pixels = self._scaled(samples)
        return 255 - pixels if self.photometric == _MIN_IS_WHITE else pixels

    def _scaled(self, samples: npt.NDArray[Any]) -> Pixels:
        is_known = self._is_counted(samples) and int(self.bits) < 32
        return scaled(samples, int(self.bits)) if is_known else ranged(samples)

    def _is_counted(self, samples: npt.NDArray[Any]) -> bool:
        return self.page.sampleformat in (_UNSIGNED, _VOID) and samples.dtype.kind in "bu"

    def _opacity(self, samples: npt.NDArray[Any]) -> Pixels:
        """The last band, 255 where it is opaque. Its range is never that of its own values: those may all be alike."""
        alpha, bits = samples[:, :, -1], int(self.bits)
        is_counted = self._is_counted(samples)
        if is_counted and bits < 32:
            return scaled(alpha, bits)
        if self.is_premultiplied and (is_counted or finite_range(samples)[1] > 1):
            raise unsupported(f"{self._name()}, associated opacity over colours whose range the file does not say")
        if is_counted:
            return scaled(alpha >> (bits - 16), 16)
        low, high = finite_range(alpha)
        if alpha.dtype.kind != "f" or low < 0 or high > 255:
            raise unsupported(f"{self._name()}, opacity of unknown range")
        return ranged(alpha)

    def _looked_up(self, indices: npt.NDArray[Any]) -> Pixels:
        table = self.page.colormap
        if table is None or table.ndim != 2 or table.shape[0] != 3 or table.shape[1] < 1 << int(self.bits):
            raise damaged(f"{self._name()} has no whole palette")
        # Entries have 16 bits, of which writers fill the upper 8 or both halves alike; some write 8 bits alone.
        entries = (table >> 8 if int(table.max()) > 255 else table).astype(np.uint8)
        return entries.T[indices.astype(np.uint16)]


def _converted(samples: npt.NDArray[Any], mode: str) -> Pixels:
    """Bytes [H, W, bands] of one of Pillow's colour spaces to RGB."""
    height, width = samples.shape[:2]
    data = np.ascontiguousarray(samples).view(np.uint8)
    return np.asarray(Image.frombuffer(mode, (width, height), data, "raw", mode, 0, 1).convert("RGB"))
