"""The first frame of a GIF, which two readers must agree on: giflib notices data that ends before the frame does,
Pillow codes that mean nothing, and each passes over what the other notices.

The blocks are walked here, and both get the first frame alone, as if it were the whole picture.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from PIL import Image

from fcn_core.decoding.libraries import imagecodecs
from fcn_core.decoding.refusals import CUT_OFF, damaged
from fcn_core.decoding.stored import Pixels, Stored, check_size
from fcn_core.errors import DecodeError

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B
_GRAPHIC_CONTROL = 0xF9
_INTERLACED = 0x40
_MOST = 65535  # pixels of a side


@dataclass(frozen=True, slots=True)
class _Frame:
    """Place on the canvas, palette as RGB triples, index of the transparent entry, flags, and compressed data."""

    left: int
    top: int
    width: int
    height: int
    flags: int
    palette: bytes
    transparent: int | None
    data: bytes


def read(data: bytes, max_pixels: int) -> Stored:
    """What the first frame leaves uncovered of the canvas, and its transparent pixels, are white."""
    codecs = imagecodecs()
    if len(data) < 13:
        raise DecodeError("truncated", CUT_OFF)
    width, height = struct.unpack_from("<HH", data, 6)
    check_size(max(width, 1), max(height, 1), max_pixels)
    frame = _first_frame(data)
    width, height = max(width, frame.left + frame.width), max(height, frame.top + frame.height)
    check_size(width, height, max_pixels)
    check_size(frame.width, frame.height, max_pixels)
    alone = _alone(frame, frame.width, frame.height, frame.flags & _INTERLACED)
    try:
        indices = codecs.gif_decode(alone, asrgb=False).reshape(frame.height, frame.width)
    except codecs.GifError as error:
        raise damaged(str(error)) from error
    with Image.open(io.BytesIO(alone), formats=("GIF",)) as image:
        if not np.array_equal(np.asarray(image), indices):
            raise damaged("its codes contradict one another")
    if _has_more(frame, codecs):
        raise damaged("its data goes on after the picture")
    canvas = np.full((height, width, 3), 255, np.uint8)
    part = canvas[frame.top :, frame.left :][: frame.height, : frame.width]
    part[:] = _colors(frame)[indices]
    return Stored(canvas, 1, (width, height))


def _alone(frame: _Frame, width: int, height: int, flags: int = 0) -> bytes:
    """The frame's data as a GIF of its own, of such a size."""
    header = struct.pack("<6sHHBBB", b"GIF89a", width, height, 0xF7, 0, 0) + bytes(range(256)) * 3
    return header + struct.pack("<BHHHHB", _IMAGE, 0, 0, width, height, flags) + frame.data + bytes([_TRAILER])


def _has_more(frame: _Frame, codecs: ModuleType) -> bool:
    """Whether the data is enough for a picture of one pixel more, or, where no rectangle has so many, few more."""
    pixels = frame.width * frame.height
    for more in range(pixels + 1, _MOST**2 + 1):
        for width in range(-(-more // _MOST), _MOST + 1):
            if more % width == 0:
                try:
                    codecs.gif_decode(_alone(frame, width, more // width), asrgb=False)
                except codecs.GifError:
                    return False
                return True
    return False


def _colors(frame: _Frame) -> Pixels:
    colors = np.zeros((256, 3), np.uint8)
    entries = np.frombuffer(frame.palette, np.uint8).reshape(-1, 3)
    if not entries.size:  # a file without any palette is shades of grey, as everywhere
        entries = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
    colors[: len(entries)] = entries
    if frame.transparent is not None:
        colors[frame.transparent] = 255
    return colors


def _first_frame(data: bytes) -> _Frame:
    """Raises DecodeError if the blocks of the file, up to its end, are not whole."""
    position, palette = 13, b""
    if data[10] & 0x80:
        palette, position = _palette(data, position, data[10])
    transparent, frame = None, None
    while position < len(data):
        kind = data[position]
        if kind == _TRAILER:
            break
        if kind == _EXTENSION:
            content, after = _blocks(data, position + 2)
            if frame is None and data[position + 1] == _GRAPHIC_CONTROL and len(content) >= 4:
                transparent = content[3] if content[0] & 1 else None
        elif kind == _IMAGE:
            if position + 11 > len(data):
                raise DecodeError("truncated", CUT_OFF)
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position + 1)
            local, start = _palette(data, position + 10, flags) if flags & 0x80 else (palette, position + 10)
            _, after = _blocks(data, start + 1)
            if frame is None:
                frame = _Frame(left, top, width, height, flags, local, transparent, data[start:after])
        elif frame is not None and not any(data[position:]):
            break  # padding
        else:
            raise damaged(f"there is no block at byte {position}")
        position = after
    if frame is None:
        raise DecodeError("truncated", CUT_OFF) if position >= len(data) else damaged("there is no picture in it")
    return frame


def _palette(data: bytes, position: int, flags: int) -> tuple[bytes, int]:
    end = position + 3 * (2 << (flags & 7))
    if end > len(data):
        raise DecodeError("truncated", CUT_OFF)
    return data[position:end], end


def _blocks(data: bytes, position: int) -> tuple[bytes, int]:
    """The content of a chain of sub-blocks, and where it ends."""
    parts = []
    for start, length in _lengths(data, position):
        parts.append(data[start : start + length])
        position = start + length
    return b"".join(parts), position


def _lengths(data: bytes, position: int) -> Iterator[tuple[int, int]]:
    while True:
        if position >= len(data):
            raise DecodeError("truncated", CUT_OFF)
        length = data[position]
        if position + 1 + length > len(data):
            raise DecodeError("truncated", CUT_OFF)
        yield position + 1, length
        if length == 0:
            return
        position += 1 + length
