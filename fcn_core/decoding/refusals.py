"""Why a file is refused: stable reasons, sentences for people, and how other kinds of files are recognised."""

from PIL import Image, UnidentifiedImageError

from fcn_core.decoding.other_kinds import other_kind
from fcn_core.errors import DecodeError

CUT_OFF = "The file ends before the picture does; it was cut off on its way here."

# How files begin: where Pillow recognises nothing, this tells a broken photo from another kind of file.
_OURS = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\0\0\0\x0cjP"),
    *(b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
)
_OTHERS = {
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "EPS",
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"\0\0\1\0": "icon (ICO)",
    b"\0\0\2\0\0\0": "TGA",
    b"\0\0\x0a\0\0\0": "TGA",
    b"\0\0\2\0": "cursor (CUR)",
    b"\x28\0\0\0": "DIB (a BMP without its first header)",
    b"icns": "icon (ICNS)",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"BLP1": "BLP",
    b"BLP2": "BLP",
    b"\x01\xda": "SGI",
    b"\x0a\x05\x01": "PCX",
    b"SIMPLE  =": "FITS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"#?RGBE": "Radiance HDR",
    b"DanM": "MSP",
    b"LinS": "MSP",
    b"#define ": "XBM",
    b"Image type: ": "IM",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"P7": "PAM",
    b"PF": "PFM in colour",
}
_BRANDS = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"avif": "AVIF",
    b"avis": "AVIF",
}
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


def damaged(text: str) -> DecodeError:
    """`text`: the decoder's words."""
    return DecodeError("damaged", f"The file is damaged; the decoder's words: {short(text)}.")


def unsupported(variant: str) -> DecodeError:
    """`variant`: its name, such as "TIFF with 16-bit CMYK"."""
    return DecodeError("unsupported_format", f"This variant of the format cannot be read ({short(variant)}).")


def decode_error(error: Exception, data: bytes, known: tuple[str, ...]) -> DecodeError:
    """What an exception of a decoder says about the file; `known`: the names of the formats that are read."""
    text = str(error)
    if data.startswith(b"BM") and (kind := other_kind(data)) is not None:
        return DecodeError("not_an_image", f"The file is {kind}.")  # a text may begin with these two letters
    match error:
        case DecodeError():
            return error
        case UnidentifiedImageError():
            return _unidentified(data, known)
        case Image.DecompressionBombError():
            return DecodeError("too_many_pixels", "The image declares far more pixels than any limit allows.")
        case MemoryError():
            return out_of_memory()
        case NotImplementedError():
            return unsupported(text)
        case OSError() if "out of memory" in text:
            return out_of_memory()
        case OSError() | ValueError() if "truncated" in text.lower() or "Unexpected end" in text:
            return DecodeError("truncated", CUT_OFF)
        case ValueError() if "not enough image data" in text:
            return DecodeError("truncated", CUT_OFF)
        case OSError() if "not available" in text or "unsupported" in text.lower():
            return unsupported(text)
        case _ if is_cut_webp(data):
            return DecodeError("truncated", CUT_OFF)
        case OSError() | SyntaxError() | ValueError() if text:
            return damaged(text)
        case _:  # an accident inside the decoder, whose text tells of its code and not of the file
            return DecodeError("damaged", "The file is damaged; its parts contradict one another.")


def is_cut_webp(data: bytes) -> bool:
    """Whether a WebP file says that it is longer than it is."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data)


def short(text: str) -> str:
    """An exception's text for a table's cell: one printable line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    return line if len(line) <= 120 else line[:117] + "..."


def _unidentified(data: bytes, known: tuple[str, ...]) -> DecodeError:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    name = _BRANDS.get(brand) or ("TGA" if data.endswith(_TGA_FOOTER) else None)
    name = name or next((name for magic, name in _OTHERS.items() if data.startswith(magic)), None)
    if name is not None and name not in known:
        return DecodeError("unsupported_format", f"{name} files are not supported; convert them to JPEG or PNG.")
    kind = other_kind(data)
    if kind is not None and not (data.startswith(_OURS) and data[:1] != b"P"):
        return DecodeError("not_an_image", f"The file is {kind}.")
    if name is not None or data.startswith(_OURS) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return DecodeError("damaged", "The file begins like an image but its header is damaged or cut off.")
    return DecodeError("not_an_image", "The file is not an image of a supported format.")


def out_of_memory() -> DecodeError:
    return DecodeError("out_of_memory", "Decoding the image takes more memory than a codec worker may use.")
