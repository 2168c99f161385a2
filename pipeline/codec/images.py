"""Image bytes to RGB pixels, whatever the bytes are: `decode` returns pixels or raises ImageError, nothing
else.

The bytes are not to be trusted. Only the formats listed here are tried (Pillow's EPS reader would start
Ghostscript), the size is checked before any pixel is decoded, and every exception of Pillow's becomes an
ImageError with a stable reason: empty_file, not_an_image, unsupported_format, truncated, damaged,
too_many_pixels, out_of_memory. What no `except` can catch (a crash, a stall) is for `pipeline.codec.processes`, which
runs this in processes of their own.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError, features

from pipeline.errors import ImageError

Pixels = npt.NDArray[np.uint8]

# MPO (two JPEGs in one file, as 3D cameras and some phones write) comes with JPEG.
FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"),
    *(("AVIF",) if features.check("avif") else ()),
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SWAPPING = {_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8)}

# How files begin: where Pillow recognises nothing, this tells a broken photo from another kind of file.
_OURS = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP"),
    *(b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"),
)
_OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\1\0": "icon",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"SIMPLE  =": "FITS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
}
_TRUNCATED = "The file ends before the picture does; it was cut off on its way here."
_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
}


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image as it is meant to be seen.

    pixels: uint8 [H, W, 3], RGB, C-contiguous, the EXIF orientation already applied. orientation: the EXIF
    orientation (1..8) that the file asked for; 1 is "as stored". full_size: (H, W) of the picture, where `pixels` are a
    smaller version of it.
    """

    pixels: Pixels
    orientation: int
    full_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture, and so of its mask."""
        return self.full_size or (self.pixels.shape[0], self.pixels.shape[1])


def decode(data: bytes, max_pixels: int, max_side: int | None = None) -> Decoded:
    """The first frame of an image file as RGB.

    - Transparent pixels are laid over white.
    - 16-bit grey is divided by 257. 32-bit integers likewise when all lie in 0..65535; floats are multiplied
      by 255 when all lie in 0..1, and taken as they are in 0..255. Any other range is stretched from its
      smallest and largest value to 0..255. NaN counts as the smallest, infinities as the ends of the finite
      range.
    - 16-bit colour keeps its upper 8 bits (Pillow reads it so). CMYK and LAB are converted without regard to
      profiles inside the file.

    With `max_side`, a picture that is wider or higher is reduced until neither side has more pixels than that. A JPEG's
    decoder leaves out frequencies, which is faster, as far as that goes in powers of two; the rest, and other formats,
    are averaged (Pillow's antialiased bilinear).

    Raises ImageError; `too_many_pixels` when width times height is over `max_pixels`.
    """
    if not data:
        raise ImageError("empty_file", "The file is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, max_pixels)
            stored_orientation = _orientation(image)
            size = image.size
            side = max_side or max_pixels  # which no picture exceeds
            is_drafted = max(size) > side and image.draft(None, _within(size, side)) is not None
            image.load()
            # A frame may turn out larger than its header said; readers of TIFF turn the image themselves.
            _check_size(image, max_pixels)
            if not is_drafted:
                size = image.size
            turn = _TRANSPOSE.get(_orientation(image))
            pixels = _rgb(image)
            reduced = None
            if max(size) > side:
                reduced = _turned(size, turn)
                pixels = np.asarray(Image.fromarray(pixels).resize(_within(size, side), Image.Resampling.BILINEAR))
            if turn is not None:
                pixels = np.asarray(Image.fromarray(pixels).transpose(turn))
            return Decoded(np.ascontiguousarray(pixels), stored_orientation, reduced)
    except Exception as error:
        raise _image_error(error, data) from error


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(W, H) of the same proportions, with neither over `side`; `size` itself where it is so already."""
    longest = max(size)
    if longest <= side:
        return size
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def _turned(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    """(H, W) of a picture stored as `size`, (W, H), once it is turned."""
    return size if turn in _SWAPPING else (size[1], size[0])


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            "too_many_pixels",
            f"The image has {image.width}x{image.height} pixels; the limit is {max_pixels:,} in all.",
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF does not make a broken picture; viewers ignore it too
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _rgb(image: Image.Image) -> Pixels:
    """uint8 [H, W, 3] from a loaded image of any of Pillow's modes."""
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        return _grey(((values + 128) // 257).astype(np.uint8))
    if mode in ("I", "F"):
        return _grey(_to_bytes(np.asarray(image)))
    if mode in ("La", "RGBa"):  # colours already multiplied by alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, (255, 255, 255))
        image.paste(layer, mask=layer.getchannel("A"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_bytes(values: npt.NDArray[Any]) -> Pixels:
    """Grey values of unknown range to 0..255, by the rule that `decode` documents."""
    wide = values.astype(np.float64)  # at most float32 comes in, so that no difference overflows
    finite = np.isfinite(wide)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = float(wide[finite].min()), float(wide[finite].max())
    wide = np.clip(np.nan_to_num(wide, nan=low, posinf=high, neginf=low), low, high)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        wide *= 255
    elif values.dtype.kind == "f" and low >= 0 and high <= 255:
        pass
    elif values.dtype.kind != "f" and low >= 0 and high <= 65535:
        wide /= 257
    else:
        wide = (wide - low) / (high - low) * 255 if high > low else np.zeros_like(wide)
    return np.floor(wide + 0.5).clip(0, 255).astype(np.uint8)


def _grey(values: Pixels) -> Pixels:
    return np.repeat(values[:, :, np.newaxis], 3, axis=2)


def _image_error(error: Exception, data: bytes) -> ImageError:
    """What Pillow's exception says about the file."""
    text = str(error)
    match error:
        case ImageError():
            return error
        case UnidentifiedImageError():
            return _unidentified(data)
        case Image.DecompressionBombError():
            return ImageError("too_many_pixels", "The image declares far more pixels than any limit allows.")
        case MemoryError():
            return _out_of_memory()
        case NotImplementedError():
            return ImageError("unsupported_format", f"This variant of the format cannot be read ({_short(text)}).")
        case OSError() if "out of memory" in text:
            return _out_of_memory()
        case OSError() if "truncated" in text.lower() or "Unexpected end" in text:
            return ImageError("truncated", _TRUNCATED)
        case OSError() if "not available" in text or "unsupported" in text.lower():
            return ImageError("unsupported_format", f"This variant of the format cannot be read ({_short(text)}).")
        case _ if _is_cut_webp(data):
            return ImageError("truncated", _TRUNCATED)
        case OSError() | SyntaxError() | ValueError() if text:
            return ImageError("damaged", f"The file is damaged; the decoder's words: {_short(text)}.")
        case _:  # an accident inside the decoder, whose text tells of its code and not of the file
            return ImageError("damaged", "The file is damaged; its parts contradict one another.")


def _unidentified(data: bytes) -> ImageError:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    name = _BRANDS.get(brand) or next((name for magic, name in _OTHERS.items() if data.startswith(magic)), None)
    if name is not None and name not in FORMATS:
        return ImageError("unsupported_format", f"{name} files are not supported; convert them to JPEG or PNG.")
    if name is not None or data.startswith(_OURS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return ImageError("damaged", "The file begins like an image but its header is damaged or cut off.")
    return ImageError("not_an_image", "The file is not an image of a supported format.")


def _is_cut_webp(data: bytes) -> bool:
    """Whether a WebP file says that it is longer than it is; its decoder only says that it cannot start."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _out_of_memory() -> ImageError:
    return ImageError("out_of_memory", "Decoding the image takes more memory than a codec worker may use.")


def _short(text: str) -> str:
    """An exception's text for a table's cell: one printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    return line if len(line) <= 120 else line[:117] + "..."
