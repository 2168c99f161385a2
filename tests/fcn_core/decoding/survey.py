"""Sound image files in every variant that Pillow and imagecodecs can write, each with what must come out.

What is expected follows from the array that was written, by the documented rules in plain numpy; of lossy formats, from
a second reader. A variant that is not read has the name that its refusal must give.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

HEIGHT, WIDTH = 19, 26


@dataclass(frozen=True)
class Variant:
    """A file. `expected`: uint8 [H, W, 3], within `tolerance`; or `refused`: a word of the refusal."""

    name: str
    data: bytes
    expected: Array | None = None
    tolerance: int = 0
    refused: str | None = None


def picture() -> Array:
    """uint8 [H, W, 3], no two rows or columns alike, with black and white."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = np.random.default_rng(0).integers(0, 30, (HEIGHT, WIDTH))
    pixels = np.stack([x * 9, y * 12, (x + y) * 4 + noise], 2).astype(np.uint8)
    pixels[-2:, -2:] = 255
    return pixels


def opacity() -> Array:
    """uint8 [H, W]: from nothing to all, all of it, and some between."""
    alpha = np.tile(np.linspace(0, 255, WIDTH).round().astype(np.uint8), (HEIGHT, 1))
    alpha[:4] = 0
    alpha[-4:] = 255
    return alpha


PICTURE, ALPHA = picture(), opacity()
GREY = PICTURE[:, :, 2]


def rgb(grey: Array) -> Array:
    return np.repeat(grey[:, :, None], 3, 2)


def over_white(colors: Array, alpha: Array, most: int = 255) -> Array:
    share = alpha.astype(np.float64)[:, :, None] / most
    return np.floor(colors * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def by_rule(values: Array) -> Array:
    """The documented rule for numbers of unknown range."""
    wide = values.astype(np.float64)
    low, high = wide.min(), wide.max()
    if low >= 0 and high <= 255:
        out = wide * 255 if values.dtype.kind == "f" and high <= 1 else wide
    elif low >= 0 and high <= 65535 and values.dtype.kind != "f":
        out = wide / 257
    else:
        out = (wide - low) / (high - low) * 255
    return np.floor(out + 0.5).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def jpeg() -> Iterator[Variant]:
    image = Image.fromarray(PICTURE)
    for name, options in {
        "444": {"subsampling": 0},
        "422": {"subsampling": 1},
        "420": {"subsampling": 2},
        "progressive": {"progressive": True},
        "optimized": {"optimize": True},
        "restarts": {"restart_marker_blocks": 1},
        "rgb": {"keep_rgb": True},
        "quality 1": {"quality": 1},
        "quality 100": {"quality": 100},
    }.items():
        data = saved(image, "JPEG", **options)
        yield Variant(f"jpeg {name}", data, by_pillow(data))
    for mode in ("L", "1", "CMYK"):
        data = saved(image.convert(mode), "JPEG")
        yield Variant(f"jpeg {mode}", data, by_pillow(data))
    ycck = imagecodecs.jpeg8_encode(np.dstack([PICTURE, GREY]), colorspace="CMYK", outcolorspace="YCCK")
    yield Variant("jpeg YCCK", ycck, by_pillow(ycck))
    cmyk = saved(image.convert("CMYK"), "JPEG", quality=100)
    marker = cmyk.index(b"\xff\xee")
    without = cmyk[:marker] + cmyk[marker + 2 + int.from_bytes(cmyk[marker + 2 : marker + 4], "big") :]
    yield Variant("jpeg CMYK without Adobe's marker", without, by_pillow(without))
    odd = bytearray(saved(image.crop((0, 0, 16, 16)), "JPEG", subsampling=2))
    odd[odd.index(b"\xff\xc0") + 11] = 0x41  # four blocks beside each other
    odd[odd.index(b"\xff\xc0") + 14] = 0x12
    yield Variant("jpeg sampled unusually", bytes(odd), refused="sampled 4x1, 1x2, 1x1")
    film = saved(image, "JPEG") + b"\xff\xda\0\x08" * 600
    yield Variant("jpeg with a film behind it", film, by_pillow(film))
    data = saved(image, "MPO", save_all=True, append_images=[image.rotate(180)])
    yield Variant("mpo", data, by_pillow(data))
    twelve = imagecodecs.jpeg8_encode(PICTURE.astype(np.uint16) * 16, bitspersample=12)
    yield Variant("jpeg 12 bits", twelve, refused="12 bits")
    lossless = imagecodecs.ljpeg_encode(GREY, bitspersample=8)
    yield Variant("jpeg lossless", lossless, rgb(GREY))
    yield Variant("jpeg lossless 16 bits", imagecodecs.ljpeg_encode(GREY.astype(np.uint16) * 257), refused="16 bits")


def png_file(samples: Array, depth: int, color: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """`samples` [H, W, C] as one PNG, filter 0."""
    height, width, _ = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    raw = b""
    for top, left, down, right in passes:
        for row in samples[top::down, left::right]:
            if not row.size:
                continue
            if depth == 16:
                raw += b"\0" + row.astype(">u2").tobytes()
            else:
                bits = np.unpackbits(row.reshape(-1, 1).astype(np.uint8), axis=1)[:, 8 - depth :]
                raw += b"\0" + np.packbits(bits).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    body = b"".join(
        [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + body


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png() -> Iterator[Variant]:
    for interlaced in (False, True):
        how = " interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            most = 2**depth - 1
            values = (GREY.astype(np.int64) * most // 255)[:, :, None]
            shown = rgb(np.floor(values[:, :, 0] * 255 / most + 0.5).astype(np.uint8))
            key = int(values[7, 9, 0])
            white = np.where(values == key, 255, shown).astype(np.uint8)
            transparent = png_chunk(b"tRNS", struct.pack(">H", key))
            yield Variant(f"png grey {depth}{how}", png_file(values, depth, 0, interlaced=interlaced), shown)
            yield Variant(
                f"png grey {depth} tRNS{how}", png_file(values, depth, 0, transparent, interlaced=interlaced), white
            )
        for depth in (1, 2, 4, 8):
            indices = (GREY.astype(np.int64) * (2**depth - 1) // 255)[:, :, None]
            palette = np.random.default_rng(1).integers(0, 256, (2**depth, 3), dtype=np.uint8)
            alphas = np.random.default_rng(2).integers(0, 256, 2**depth, dtype=np.uint8)
            plte = png_chunk(b"PLTE", palette.tobytes())
            looked_up = palette[indices[:, :, 0]]
            yield Variant(
                f"png palette {depth}{how}", png_file(indices, depth, 3, plte, interlaced=interlaced), looked_up
            )
            data = png_file(indices, depth, 3, plte, png_chunk(b"tRNS", alphas.tobytes()), interlaced=interlaced)
            yield Variant(f"png palette {depth} tRNS{how}", data, over_white(looked_up, alphas[indices[:, :, 0]]))
        for depth, factor in ((8, 1), (16, 257)):
            wide = PICTURE.astype(np.int64) * factor
            alpha = ALPHA.astype(np.int64)[:, :, None] * factor
            key = wide[7, 9]
            white = np.where((wide == key).all(2, keepdims=True), 255, PICTURE).astype(np.uint8)
            transparent = png_chunk(b"tRNS", struct.pack(">HHH", *key))
            for name, samples, color, chunks, expected in (
                ("rgb", wide, 2, [], PICTURE),
                ("rgb tRNS", wide, 2, [transparent], white),
                ("grey alpha", np.dstack([wide[:, :, 2], alpha]), 4, [], over_white(rgb(GREY), ALPHA)),
                ("rgba", np.dstack([wide, alpha]), 6, [], over_white(PICTURE, ALPHA)),
            ):
                data = png_file(samples, depth, color, *chunks, interlaced=interlaced)
                yield Variant(f"png {name} {depth}{how}", data, expected)
    fine = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) * 132
    yield Variant("png grey 16 fine", png_file(fine, 16, 0), rgb((fine[:, :, 0] / 257 + 0.5).astype(np.uint8)))
    apng = saved(Image.fromarray(PICTURE), "PNG", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    yield Variant("apng", apng, PICTURE)


def gif() -> Iterator[Variant]:
    indexed = Image.fromarray(PICTURE).quantize(64)
    shown = np.asarray(indexed.convert("RGB"))
    key = int(np.asarray(indexed)[7, 9])
    white = np.where((np.asarray(indexed) == key)[:, :, None], 255, shown).astype(np.uint8)
    for interlace in (0, 1):
        yield Variant(f"gif interlace {interlace}", saved(indexed, "GIF", interlace=interlace, optimize=False), shown)
    yield Variant("gif transparent", saved(indexed, "GIF", transparency=key, optimize=False), white)
    yield Variant("gif grey", saved(Image.fromarray(GREY), "GIF"), rgb(GREY))
    bilevel = Image.fromarray(GREY > 90)
    yield Variant("gif bilevel", saved(bilevel, "GIF"), rgb((GREY > 90) * np.uint8(255)))
    other = Image.fromarray(PICTURE[::-1].copy()).quantize(64)
    yield Variant("gif animated", saved(indexed, "GIF", save_all=True, append_images=[other], optimize=False), shown)
    whole = saved(indexed, "GIF", optimize=False)
    at = whole.index(b",", 13 + 3 * (2 << (whole[10] & 7)))
    canvas = np.full((HEIGHT + 7, WIDTH + 9, 3), 255, np.uint8)
    canvas[5 : 5 + HEIGHT, 4 : 4 + WIDTH] = shown
    data = bytearray(whole)
    data[6:10] = struct.pack("<HH", WIDTH + 9, HEIGHT + 7)
    data[at + 1 : at + 5] = struct.pack("<HH", 4, 5)
    yield Variant("gif first frame smaller than the canvas", bytes(data), canvas)


def webp() -> Iterator[Variant]:
    rgba = Image.fromarray(np.dstack([PICTURE, ALPHA]))
    yield Variant("webp lossless", saved(Image.fromarray(PICTURE), "WEBP", lossless=True), PICTURE)
    yield Variant("webp lossless alpha", saved(rgba, "WEBP", lossless=True, exact=True), over_white(PICTURE, ALPHA))
    lossy = saved(Image.fromarray(PICTURE), "WEBP", quality=80)
    yield Variant("webp lossy", lossy, imagecodecs.webp_decode(lossy))
    lossy = saved(rgba, "WEBP", quality=80)
    read = imagecodecs.webp_decode(lossy)
    yield Variant("webp lossy alpha", lossy, over_white(read[:, :, :3], read[:, :, 3]))
    frames = saved(
        Image.fromarray(PICTURE),
        "WEBP",
        lossless=True,
        save_all=True,
        append_images=[Image.new("RGB", (WIDTH, HEIGHT))],
    )
    yield Variant("webp animated", frames, PICTURE)


def avif() -> Iterator[Variant]:
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:0:0"):
        data = saved(Image.fromarray(PICTURE), "AVIF", subsampling=subsampling)
        read = imagecodecs.avif_decode(data)
        yield Variant(f"avif {subsampling}", data, read if read.ndim == 3 else rgb(read), 1)
    data = saved(Image.fromarray(np.dstack([PICTURE, ALPHA])), "AVIF")
    read = imagecodecs.avif_decode(data)
    yield Variant("avif alpha", data, over_white(read[:, :, :3], read[:, :, 3]), 1)
    for bits in (10, 12):
        wide = PICTURE.astype(np.uint16) << (bits - 8)
        data = imagecodecs.avif_encode(wide, level=100, bitspersample=bits)
        read = imagecodecs.avif_decode(data).astype(np.float64) * 255 / (2**bits - 1)
        yield Variant(f"avif {bits} bits", data, np.floor(read + 0.5).astype(np.uint8), 2)


def by_openjpeg(samples: Array, colors: int) -> tuple[bytes, Array]:
    """A file of 16 bits a sample, of which those after `colors` are opacity, and what must come out."""
    data = imagecodecs.jpeg2k_encode(samples.astype(np.uint16) * 257, level=0, reversible=True, codecformat="jp2")
    shown = rgb(samples[:, :, 0]) if colors == 1 else samples[:, :, :3]
    return data, over_white(shown, samples[:, :, colors])


def jpeg2000() -> Iterator[Variant]:
    image = Image.fromarray(PICTURE)
    yield Variant("jp2", saved(image, "JPEG2000"), PICTURE)
    yield Variant("j2k", saved(image, "JPEG2000", no_jp2=True), PICTURE)
    yield Variant("jp2 tiled", saved(image, "JPEG2000", tile_size=(16, 16)), PICTURE)
    yield Variant("jp2 grey", saved(Image.fromarray(GREY), "JPEG2000"), rgb(GREY))
    rgba = Image.fromarray(np.dstack([PICTURE, ALPHA]))
    yield Variant("jp2 rgba", saved(rgba, "JPEG2000"), over_white(PICTURE, ALPHA))
    grey_alpha = Image.fromarray(np.dstack([GREY, ALPHA]))
    yield Variant("jp2 grey alpha", saved(grey_alpha, "JPEG2000"), over_white(rgb(GREY), ALPHA))
    lossy = saved(image, "JPEG2000", irreversible=True, quality_layers=[20])
    yield Variant("jp2 lossy", lossy, imagecodecs.jpeg2k_decode(lossy))
    for name, source in (("grey alpha", GREY), ("rgba", PICTURE)):
        data, shown = by_openjpeg(np.dstack([source, ALPHA]), 1 if source.ndim == 2 else 3)
        yield Variant(f"jp2 {name} 16 bits", data, shown, 1)
    for kind in (np.int8, np.int16):
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        for name, source in (("grey", GREY), ("rgb", PICTURE)):
            for spread, values in (("small", source // 3), ("wide", low + source * ((high - low) / 255))):
                array = values.astype(kind)
                data = imagecodecs.jpeg2k_encode(array, level=0, reversible=True, codecformat="jp2")
                shown = by_rule(array)
                yield Variant(f"jp2 {name} {kind.__name__} {spread}", data, rgb(shown) if shown.ndim == 2 else shown)
    five = np.ascontiguousarray(np.dstack([PICTURE, GREY, GREY]))
    yield Variant("jp2 5 bands", imagecodecs.jpeg2k_encode(five, level=0), refused="5 components")
    lab = bytearray(saved(image, "JPEG2000"))
    lab[lab.index(b"colr") + 10] = 14
    yield Variant("jp2 cielab", bytes(lab), refused="colour space 14")
    yield Variant("htj2k", imagecodecs.htj2k_encode(PICTURE), PICTURE)
    for bits in (4, 10, 12, 16, 20, 25):
        for name, source in (("grey", GREY), ("rgb", PICTURE)):
            most = 2**bits - 1
            wide = (source.astype(np.int64) * most // 255).astype(
                np.uint8 if bits < 9 else np.uint16 if bits < 17 else np.uint32
            )
            data = imagecodecs.jpeg2k_encode(wide, bitspersample=bits, level=0, reversible=True, codecformat="jp2")
            shown = np.floor(wide * (255 / most) + 0.5).astype(np.uint8)
            yield Variant(f"jp2 {name} {bits} bits", data, rgb(shown) if shown.ndim == 2 else shown)


def bmp() -> Iterator[Variant]:
    yield Variant("bmp rgb", saved(Image.fromarray(PICTURE), "BMP"), PICTURE)
    yield Variant("bmp grey", saved(Image.fromarray(GREY), "BMP"), rgb(GREY))
    yield Variant("bmp bilevel", saved(Image.fromarray(GREY > 90), "BMP"), rgb((GREY > 90) * np.uint8(255)))
    indexed = Image.fromarray(PICTURE).quantize(32)
    yield Variant("bmp palette", saved(indexed, "BMP"), np.asarray(indexed.convert("RGB")))
    rgba = np.dstack([PICTURE, ALPHA])
    yield Variant("bmp with a fourth byte", saved(Image.fromarray(rgba), "BMP"), PICTURE)  # which means nothing there
    header = struct.pack("<IiiHHIIiiII", 108, WIDTH, -HEIGHT, 1, 32, 3, 0, 0, 0, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    file = struct.pack("<2sIHHI", b"BM", 14 + len(header) + rgba.size, 0, 0, 14 + len(header))
    data = file + header + np.ascontiguousarray(rgba[:, :, [2, 1, 0, 3]]).tobytes()
    yield Variant("bmp with alpha", data, over_white(PICTURE, ALPHA))
    for bits, masks in ((16, (0xF800, 0x07E0, 0x001F)), (16, (0x7C00, 0x03E0, 0x001F)), (32, (0xFF0000, 0xFF00, 0xFF))):
        yield Variant(f"bmp {bits} bits {masks[0]:x}", bmp_of_masks(bits, masks), shown_by_masks(masks), 1)
    rows = np.zeros((HEIGHT, -(-WIDTH * 3 // 4) * 4), np.uint8)
    rows[:, : WIDTH * 3] = PICTURE[::-1, :, ::-1].reshape(HEIGHT, -1)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 24, 0, rows.size, 0, 0, 0, 0)
    file = struct.pack("<2sIHHI", b"BM", 54 + rows.size, 0, 0, 54)
    yield Variant("bmp from the bottom up", file + header + rows.tobytes(), PICTURE)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, 24, 0, rows.size, 0, 0, 0, 0)
    yield Variant("bmp from the top down", file + header + rows[::-1].tobytes(), PICTURE)


def bmp_of_masks(bits: int, masks: tuple[int, int, int]) -> bytes:
    packed = np.zeros((HEIGHT, WIDTH), np.uint32)
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        width = (mask >> shift).bit_length()
        packed |= (PICTURE[:, :, channel].astype(np.uint32) >> (8 - width)) << shift
    rows = packed[::-1].astype("<u2" if bits == 16 else "<u4")
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, bits, 3, rows.nbytes, 0, 0, 0, 0)
    file = struct.pack("<2sIHHI", b"BM", 66 + rows.nbytes, 0, 0, 66)
    return file + header + struct.pack("<III", *masks) + rows.tobytes()


def shown_by_masks(masks: tuple[int, int, int]) -> Array:
    shown = np.zeros_like(PICTURE)
    for channel, mask in enumerate(masks):
        width = mask.bit_count()
        most = 2**width - 1
        shown[:, :, channel] = np.floor((PICTURE[:, :, channel] >> (8 - width)) * (255 / most) + 0.5)
    return shown


def pnm() -> Iterator[Variant]:
    size = b"%d %d\n" % (WIDTH, HEIGHT)
    bits = GREY > 90
    yield Variant("pbm", b"P4\n" + size + np.packbits(~bits, axis=1).tobytes(), rgb(bits * np.uint8(255)))
    yield Variant("pgm", b"P5\n" + size + b"255\n" + GREY.tobytes(), rgb(GREY))
    yield Variant("ppm", b"P6\n" + size + b"255\n" + PICTURE.tobytes(), PICTURE)
    for most in (15, 1023, 4095, 65535):
        kind = ">u2" if most > 255 else "u1"
        grey = (GREY.astype(np.int64) * most // 255).astype(kind)
        color = (PICTURE.astype(np.int64) * most // 255).astype(kind)
        head = size + b"%d\n" % most
        yield Variant(f"pgm {most}", b"P5\n" + head + grey.tobytes(), rgb((grey * (255 / most) + 0.5).astype(np.uint8)))
        yield Variant(f"ppm {most}", b"P6\n" + head + color.tobytes(), (color * (255 / most) + 0.5).astype(np.uint8))
    # Darker than 256 of 65,536: what the file says of white counts, not what its values are.
    dark = np.minimum(GREY, 200).astype(">u2")
    shown = np.floor(dark * (255 / 65535) + 0.5).astype(np.uint8)
    yield Variant("pgm 65535 dark", b"P5\n" + size + b"65535\n" + dark.tobytes(), rgb(shown))
    numbers = b" ".join(b"%d" % v for v in dark.reshape(-1))
    yield Variant("plain pgm 65535 dark", b"P2\n" + size + b"65535\n" + numbers, rgb(shown))
    text = b"P3\n" + size + b"255\n" + b" ".join(b"%d" % v for v in PICTURE.reshape(-1))
    yield Variant("plain ppm", text, PICTURE)
    text = b"P2\n" + size + b"255\n" + b" ".join(b"%d" % v for v in GREY.reshape(-1))
    yield Variant("plain pgm", text, rgb(GREY))
    text = b"P1\n" + size + b" ".join(b"%d" % (not v) for v in bits.reshape(-1))
    yield Variant("plain pbm", text, rgb(bits * np.uint8(255)))
    floats = GREY.astype("<f4") / 255
    yield Variant("pfm grey", b"Pf\n" + size + b"-1.0\n" + floats[::-1].tobytes(), rgb(GREY))
    floats = PICTURE.astype("<f4") / 255
    yield Variant("pfm colour", b"PF\n" + size + b"-1.0\n" + floats[::-1].tobytes(), refused="PFM")
    pam = b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (WIDTH, HEIGHT)
    yield Variant("pam", pam + PICTURE.tobytes(), refused="PAM")


def jpeg_xl() -> Iterator[Variant]:
    yield Variant("jpeg xl", imagecodecs.jpegxl_encode(PICTURE, lossless=True), PICTURE)


def refused_formats() -> Iterator[Variant]:
    image = Image.fromarray(PICTURE)
    for kind, name in {
        "ICO": "ICO",
        "ICNS": "ICNS",
        "TGA": "TGA",
        "PCX": "PCX",
        "SGI": "SGI",
        "EPS": "PostScript",
        "PDF": "PDF",
        "DDS": "DDS",
        "DIB": "DIB",
        "QOI": "QOI",
    }.items():
        yield Variant(kind.lower(), saved(image, kind), refused=name)
    yield Variant("blp", saved(image.quantize(256), "BLP"), refused="BLP")
    yield Variant("msp", saved(image.convert("1"), "MSP"), refused="MSP")
    yield Variant("xbm", saved(image.convert("1"), "XBM"), refused="XBM")
    yield Variant("jpeg-ls", imagecodecs.jpegls_encode(PICTURE), refused="JPEG-LS")
    yield Variant("jpeg xr", imagecodecs.jpegxr_encode(PICTURE), refused="JPEG XR")
    yield Variant("rgbe", imagecodecs.rgbe_encode(PICTURE.astype(np.float32), header=True), refused="Radiance HDR")


FAMILIES = (jpeg, png, gif, webp, avif, jpeg2000, jpeg_xl, bmp, pnm, refused_formats)
