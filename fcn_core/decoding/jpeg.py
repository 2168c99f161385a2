"""JPEG through libjpeg-turbo's strict mode: what an ordinary reader only warns of (codes that mean nothing, data left
over or missing) is an error here, for all that follows it in the picture is guesswork.
"""

import io

import numpy as np
import simplejpeg
from PIL import Image

from fcn_core.decoding.refusals import CUT_OFF, damaged, short, unsupported
from fcn_core.decoding.samples import grey
from fcn_core.decoding.stored import Pixels, Stored, check_size, exif_orientation
from fcn_core.errors import DecodeError

_END = b"\xff\xd9"
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 500  # libjpeg-turbo's own limit against files that are made to take for ever
_SCANS_OF_ANY_SIZE = 30
"""What a large picture may have, too: three times what programs write."""

_MOST_WORK = 5_000_000_000
"""Scans times pixels. Each scan goes over the whole picture, however few bytes it has."""

_STARTS_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LS = 0xF7
_OF_FREQUENCIES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""The frames that a decoder makes smaller by leaving frequencies out. Lossless ones have none: asked for less,
libjpeg-turbo writes the whole picture, beyond the end of the memory that was made for the smaller one."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def read(data: bytes, max_pixels: int, max_side: int | None) -> Stored:
    """With `max_side`, a larger picture comes reduced by a power of two, yet not below that side, which is faster."""
    process, precision = _frame(data)
    if process == _JPEG_LS:
        raise unsupported("JPEG-LS")
    if precision not in (None, 8):
        raise unsupported(f"JPEG with {precision} bits a sample; only 8 are read")
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        size, mode = image.size, image.mode
        check_size(*size, max_pixels)
        check_scans(data, size[0] * size[1])
        orientation = exif_orientation(image)
    scale = _scale(size, max_side) if process in _OF_FREQUENCIES else 1
    color_space = {"L": "GRAY", "CMYK": "CMYK"}.get(mode, "RGB")
    try:
        pixels = _decode(data, size, color_space, scale)
    except ValueError as error:
        raise _decode_error(str(error), data) from error
    if mode == "L":
        return Stored(grey(pixels[:, :, 0]), orientation, size)
    if mode == "CMYK":
        # Adobe's programs store ink as its opposite, and every reader takes it for that, also without Adobe's marker.
        inks = Image.frombuffer("CMYK", pixels.shape[1::-1], pixels, "raw", "CMYK;I", 0, 1)
        pixels = np.asarray(inks.convert("RGB"))
    return Stored(pixels, orientation, size)


def check_scans(data: bytes, pixels: int) -> None:
    """Raises DecodeError for a JPEG in more scans than a picture of so many pixels may have."""
    most = min(_MAX_SCANS, max(_SCANS_OF_ANY_SIZE, _MOST_WORK // max(pixels, 1)))
    if data.count(_START_OF_SCAN) > most and _scans(data) > most:
        raise unsupported(f"JPEG of {pixels:,} pixels in more than {most} scans")


def check_strictly(data: bytes) -> None:
    """Raises DecodeError if a JPEG, of any colours, is damaged; its pixels are for somebody else to decode."""
    try:
        simplejpeg.decode_jpeg(data, colorspace="GRAY")
    except ValueError as error:
        text = str(error)
        if "Unsupported" not in text and "recision" not in text:
            raise damaged(text) from error


def _decode(data: bytes, size: tuple[int, int], color_space: str, scale: int) -> Pixels:
    least = tuple(-(-side // scale) for side in size)
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != size:
            raise damaged("two headers declare two sizes")
        pixels: Pixels = simplejpeg.decode_jpeg(
            data, color_space, min_width=least[0], min_height=least[1], min_factor=scale
        )
    except ValueError as error:
        # Cameras and cut transfers leave the end marker out. With one added, what is really missing shows.
        if "Premature end" not in str(error) or data.endswith(_END) or not _is_complete(data):
            raise
        whole = data.rstrip(b"\0") + _END
        pixels = simplejpeg.decode_jpeg(whole, color_space, min_width=least[0], min_height=least[1], min_factor=scale)
    return pixels


def _scale(size: tuple[int, int], max_side: int | None) -> int:
    """How many times smaller, 1, 2, 4 or 8, the decoder is to make a picture whose longer side is wanted at
    `max_side`.
    """
    if max_side is None or max(size) <= max_side:
        return 1
    longest = max(size)
    wanted = [max(1, round(side * max_side / longest)) for side in size]
    most = min(size[0] // wanted[0], size[1] // wanted[1])
    return next(scale for scale in (8, 4, 2, 1) if most >= scale)


def _segments(data: bytes) -> list[tuple[int, bytes]]:
    """The markers with their contents, compressed data left out."""
    found, position = [], 2
    while position + 4 <= len(data):
        if data[position] != 0xFF or data[position + 1] in (0x00, 0xFF):
            position = data.find(b"\xff", position + 1)
            if position < 0:
                break
            continue
        marker = data[position + 1]
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        if marker == _END[1]:
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        found.append((marker, data[position + 4 : position + 2 + length]))
        position += 2 + max(2, length)
    return found


def _scans(data: bytes) -> int:
    """How many scans the picture has; a film behind it (as in motion photos) may look as if it held some, too."""
    return sum(marker == _START_OF_SCAN[1] for marker, _ in _segments(data))


def _frame(data: bytes) -> tuple[int | None, int | None]:
    """The marker of the frame (which process: baseline, progressive, ...) and its bits a sample.

    None where the file does not say so plainly: what stands between markers, libjpeg passes over in a way of its own.
    """
    position = 2
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _STARTS_OF_FRAME or marker == _JPEG_LS:
            return marker, data[position + 4]
        if marker == 0xFF:
            position += 1
            continue
        if marker in (0x00, _START_OF_SCAN[1], _END[1]):
            break
        position += 2
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return None, None


def _is_complete(data: bytes) -> bool:
    """Whether every component's every coefficient was refined to its last bit, by the headers of the scans.

    A file cut between two scans decodes without complaint, to a coarse picture.
    """
    segments = _segments(data)
    frame = next(((m, c) for m, c in segments if m in _STARTS_OF_FRAME), None)
    if frame is None or len(frame[1]) < 6:
        return False
    marker, content = frame
    components = {content[6 + 3 * i] for i in range(content[5]) if 6 + 3 * i < len(content)}
    done: set[tuple[int, int]] = set()
    for scan in (c for m, c in segments if m == _START_OF_SCAN[1]):
        if not scan or len(scan) < 4 + 2 * scan[0]:
            return False
        first, last, bits = scan[1 + 2 * scan[0] :][:3]
        of_scan = [scan[1 + 2 * i] for i in range(scan[0])]
        if marker != 0xC2 and marker != 0xCA:  # not progressive: a scan is all of its components
            first, last, bits = 0, 63, 0
        if bits & 15 == 0:
            done.update((component, k) for component in of_scan for k in range(first, min(last, 63) + 1))
    return len(done) == 64 * len(components)


def header_error(text: str, data: bytes) -> DecodeError:
    """Why a header is refused; `text`: the decoder's words."""
    if "subsampling level" not in text:
        return damaged(text)
    frame = next((content for marker, content in _segments(data) if marker in _STARTS_OF_FRAME), b"")
    factors = ", ".join(f"{factor >> 4}x{factor & 15}" for factor in frame[7::3])
    return unsupported(f"JPEG of components sampled {factors}")


def _decode_error(text: str, data: bytes) -> DecodeError:
    if "subsampling level" in text:
        return header_error(text, data)
    if "Unsupported" in text:
        return unsupported(f"JPEG: {short(text)}")
    if "nsufficient memory" in text:
        return DecodeError("out_of_memory", "Decoding the image takes more memory than there is.")
    if "Premature end" in text or (text.endswith("premature end of data segment") and not data.endswith(_END)):
        return DecodeError("truncated", CUT_OFF)
    return damaged(text)
