"""Sound image files in every variant that Pillow, tifffile and imagecodecs can write, each with what must come out.

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
import tifffile
from PIL import Image, ImageCms

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
    """uint8 [H, W, 3], no two rows or columns alike."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = np.random.default_rng(0).integers(0, 30, (HEIGHT, WIDTH))
    return np.stack([x * 9, y * 12, (x + y) * 4 + noise], 2).astype(np.uint8)


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
    for bits in (4, 10, 12, 16):
        for name, source in (("grey", GREY), ("rgb", PICTURE)):
            most = 2**bits - 1
            wide = (source.astype(np.int64) * most // 255).astype(np.uint8 if bits < 9 else np.uint16)
            data = imagecodecs.jpeg2k_encode(wide, bitspersample=bits, level=0, reversible=True, codecformat="jp2")
            shown = np.floor(wide * (255 / most) + 0.5).astype(np.uint8)
            yield Variant(f"jp2 {name} {bits} bits", data, rgb(shown) if shown.ndim == 2 else shown, 1)


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
        yield Variant(
            f"pgm {most}", b"P5\n" + head + grey.tobytes(), rgb((grey * (255 / most) + 0.5).astype(np.uint8)), 1
        )
        yield Variant(f"ppm {most}", b"P6\n" + head + color.tobytes(), (color * (255 / most) + 0.5).astype(np.uint8), 1)
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


def tiff(samples: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ascontiguousarray(samples), metadata=None, **options)
    return buffer.getvalue()


def tiff_samples() -> Iterator[Variant]:
    """Every type of number, grey and in colour, in both byte orders."""
    for order in "<>":
        for dtype in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
            for name, source in (("grey", GREY), ("rgb", PICTURE)):
                photometric = "rgb" if source.ndim == 3 else "minisblack"
                kind = np.dtype(dtype)
                if kind.kind == "f":
                    ranges = {"unit": source / 255, "bytes": source, "wide": source * 17.5 - 900}
                else:
                    most, low = np.iinfo(kind).max, np.iinfo(kind).min
                    ranges = {"whole": source * ((int(most) - int(low)) / 255) + int(low)}
                    if kind.itemsize > 1:
                        ranges["small"] = source.astype(np.float64)
                for spread, values in ranges.items():
                    if kind.kind != "f":
                        values = np.clip(values, np.iinfo(kind).min, np.nextafter(float(np.iinfo(kind).max), 0))
                    array = values.astype(kind)
                    if dtype == "u1":
                        shown = array
                    elif dtype == "u2":
                        shown = np.floor(array / 257 + 0.5).astype(np.uint8)
                    else:
                        shown = by_rule(array)
                    data = tiff(array, photometric=photometric, byteorder=order)
                    expected = rgb(shown) if shown.ndim == 2 else shown
                    yield Variant(f"tiff {name} {dtype} {spread} {order}", data, expected, 1)
    yield Variant("tiff complex", tiff(GREY.astype(np.complex64), photometric="minisblack"), refused="complex")


def tiff_colors() -> Iterator[Variant]:
    """Photometric interpretations, alpha, extra bands, planes."""
    for bits, factor in ((8, 1), (16, 257)):
        kind = np.uint8 if bits == 8 else np.uint16
        wide, grey, alpha = (part.astype(kind) * kind(factor) for part in (PICTURE, GREY, ALPHA))
        premultiplied = np.floor(wide * (ALPHA[:, :, None] / 255) + 0.5).astype(kind)
        yield Variant(f"tiff miniswhite {bits}", tiff(grey, photometric="miniswhite"), 255 - rgb(GREY))
        inks = np.dstack([255 - PICTURE, np.zeros_like(GREY)]).astype(kind) * kind(factor)
        yield Variant(f"tiff cmyk {bits}", tiff(inks, photometric="separated"), PICTURE, 1)
        data = tiff(inks, photometric="separated", extratags=[(332, 3, 1, 2, True)])
        yield Variant(f"tiff other inks {bits}", data, refused="inks")
        for planar in ("contig", "separate"):
            for name, arrays, options, expected in (
                ("rgb", [wide], {"photometric": "rgb"}, PICTURE),
                ("rgb minisblack", [wide], {"photometric": "minisblack"}, PICTURE),
                ("rgb nir", [wide, grey], {"photometric": "rgb", "extrasamples": [0]}, PICTURE),
                ("4 bands", [wide, grey], {"photometric": "minisblack"}, PICTURE),
                ("5 bands", [wide, grey, grey], {"photometric": "minisblack"}, PICTURE),
                ("8 bands", [wide, wide, grey, grey], {"photometric": "minisblack"}, PICTURE),
                ("2 bands", [grey, alpha], {"photometric": "minisblack", "extrasamples": [0]}, rgb(GREY)),
                (
                    "grey alpha",
                    [grey, alpha],
                    {"photometric": "minisblack", "extrasamples": [2]},
                    over_white(rgb(GREY), ALPHA),
                ),
                (
                    "rgb alpha",
                    [wide, alpha],
                    {"photometric": "rgb", "extrasamples": [2]},
                    over_white(PICTURE, ALPHA),
                ),
                (
                    "rgb associated alpha",
                    [premultiplied, alpha],
                    {"photometric": "rgb", "extrasamples": [1]},
                    over_white(PICTURE, ALPHA),
                ),
                (
                    "rgb nir alpha",
                    [wide, grey, alpha],
                    {"photometric": "rgb", "extrasamples": [0, 2]},
                    over_white(PICTURE, ALPHA),
                ),
            ):
                samples = np.dstack(arrays)
                if planar == "separate":
                    samples = np.moveaxis(samples, 2, 0)
                data = tiff(samples, planarconfig=planar, **options)
                yield Variant(f"tiff {name} {bits} {planar}", data, expected, 1)
    palette = np.random.default_rng(1).integers(0, 256, (3, 256), dtype=np.uint16) * 257
    shown = (palette // 257).T[GREY].astype(np.uint8)
    yield Variant("tiff palette", tiff(GREY, photometric="palette", colormap=palette), shown)
    yield Variant("tiff palette of bytes", tiff(GREY, photometric="palette", colormap=palette // 257), shown)
    indexed = Image.fromarray(PICTURE).quantize(16)
    yield Variant("tiff palette by Pillow", saved(indexed, "TIFF"), np.asarray(indexed.convert("RGB")))
    ycbcr = Image.fromarray(PICTURE).convert("YCbCr")
    yield Variant("tiff ycbcr", saved(ycbcr, "TIFF"), np.asarray(ycbcr.convert("RGB")), 1)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(PICTURE), to_lab)
    assert lab is not None
    yield Variant("tiff cielab", saved(lab, "TIFF"), np.asarray(lab.convert("RGB")))
    raw = tiff(GREY, photometric=32803, extratags=[(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)])
    yield Variant("tiff cfa", raw, refused="camera raw")


def tiff_bits() -> Iterator[Variant]:
    """Depths that fill no byte."""
    yield Variant("tiff 1 bit", tiff(GREY > 90, photometric="minisblack"), rgb((GREY > 90) * np.uint8(255)))
    yield Variant("tiff 1 bit white", tiff(GREY > 90, photometric="miniswhite"), rgb((GREY <= 90) * np.uint8(255)))
    for compression in ("group3", "group4", "tiff_ccitt", "tiff_lzw", "packbits"):
        data = saved(Image.fromarray(GREY > 90), "TIFF", compression=compression)
        yield Variant(f"tiff 1 bit {compression}", data, rgb((GREY > 90) * np.uint8(255)))
    for bits in (2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15):
        most = 2**bits - 1
        for name, source in (("grey", GREY), ("rgb", PICTURE)):
            values = (source.astype(np.int64) * most // 255).astype(np.uint8 if bits < 8 else np.uint16)
            photometric = "rgb" if source.ndim == 3 else "minisblack"
            shown = np.floor(values * (255 / most) + 0.5).astype(np.uint8)
            data = tiff(values, photometric=photometric, bitspersample=bits)
            yield Variant(f"tiff {name} {bits} bits", data, rgb(shown) if shown.ndim == 2 else shown)


def tiff_compressions() -> Iterator[Variant]:
    wide = PICTURE.astype(np.uint16) * 257
    floats = PICTURE.astype(np.float32) / 255
    for compression in ("zlib", "lzw", "zstd", "lzma", "packbits", "deflate", "png", "lerc", "jpeg2000"):
        options: dict[str, Any] = {"compression": compression, "photometric": "rgb"}
        yield Variant(f"tiff {compression} 8", tiff(PICTURE, **options), PICTURE)
        yield Variant(f"tiff {compression} 8 tiled", tiff(PICTURE, tile=(16, 16), **options), PICTURE)
        yield Variant(f"tiff {compression} 16", tiff(wide, **options), PICTURE)
        if compression in ("zlib", "lzw", "zstd", "lzma", "deflate"):
            yield Variant(f"tiff {compression} predictor 8", tiff(PICTURE, predictor=True, **options), PICTURE)
            yield Variant(f"tiff {compression} predictor 16", tiff(wide, predictor=True, **options), PICTURE)
            yield Variant(f"tiff {compression} predictor f4", tiff(floats, predictor=True, **options), PICTURE)
        if compression in ("zlib", "lzw", "zstd", "lerc"):
            yield Variant(f"tiff {compression} f4", tiff(floats, **options), PICTURE)
    for compression in ("jpegxl", "jpegxr"):
        data = tiff(PICTURE, photometric="rgb", compression=compression)
        yield Variant(f"tiff {compression}", data, refused=compression)
    yield Variant(
        "tiff webp", tiff(PICTURE, photometric="rgb", compression="webp", compressionargs={"lossless": True}), PICTURE
    )
    for name, photometric, source, arguments in (
        ("grey", "minisblack", GREY, {}),
        ("rgb", "rgb", PICTURE, {"outcolorspace": "rgb"}),
        ("ycbcr 444", "rgb", PICTURE, {"outcolorspace": "ycbcr"}),
    ):
        data = tiff(source, photometric=photometric, compression="jpeg", compressionargs={"level": 95, **arguments})
        read = imagecodecs.tiff_decode(data)
        yield Variant(f"tiff jpeg {name}", data, rgb(read) if read.ndim == 2 else read[:, :, :3], 3)
    data = saved(Image.fromarray(PICTURE), "TIFF", compression="jpeg")
    yield Variant("tiff jpeg by libtiff", data, by_pillow(data), 3)
    twelve = tiff(
        GREY.astype(np.uint16) * 16,
        photometric="minisblack",
        compression="jpeg",
        bitspersample=12,
        compressionargs={"level": 100},
    )
    yield Variant("tiff jpeg 12 bits", twelve, rgb((GREY * (16 * 255 / 4095) + 0.5).astype(np.uint8)), 4)


def tiff_arrangements() -> Iterator[Variant]:
    turned = np.ascontiguousarray(PICTURE[::-1])
    yield Variant("tiff bigtiff", tiff(PICTURE, photometric="rgb", bigtiff=True), PICTURE)
    yield Variant("tiff bigtiff big endian", tiff(PICTURE, photometric="rgb", bigtiff=True, byteorder=">"), PICTURE)
    yield Variant("tiff strips", tiff(PICTURE, photometric="rgb", rowsperstrip=4), PICTURE)
    planes = np.moveaxis(PICTURE, 2, 0)
    yield Variant(
        "tiff planes in strips", tiff(planes, photometric="rgb", planarconfig="separate", rowsperstrip=4), PICTURE
    )
    yield Variant(
        "tiff planes in tiles", tiff(planes, photometric="rgb", planarconfig="separate", tile=(16, 16)), PICTURE
    )
    reversed_bits = tiff(PICTURE, photometric="rgb", compression="lzw", extratags=[])
    yield Variant("tiff lzw", reversed_bits, PICTURE)
    yield Variant(
        "tiff orientation 3", tiff(PICTURE, photometric="rgb", extratags=[(274, 3, 1, 3, True)]), PICTURE[::-1, ::-1]
    )
    yield Variant(
        "tiff orientation 6", tiff(PICTURE, photometric="rgb", extratags=[(274, 3, 1, 6, True)]), np.rot90(PICTURE, -1)
    )

    def pages(*written: tuple[Array, dict[str, Any]]) -> bytes:
        buffer = io.BytesIO()
        with tifffile.TiffWriter(buffer) as writer:
            for samples, options in written:
                writer.write(samples, photometric="rgb", metadata=None, **options)
        return buffer.getvalue()

    small = np.ascontiguousarray(PICTURE[::4, ::4])
    yield Variant("tiff pages", pages((PICTURE, {}), (turned, {})), PICTURE)
    yield Variant("tiff thumbnail first", pages((small, {"subfiletype": 1}), (PICTURE, {"subfiletype": 0})), PICTURE)
    yield Variant(
        "tiff thumbnail, then sub-page", pages((small, {"subfiletype": 1, "subifds": 1}), (PICTURE, {})), PICTURE
    )
    yield Variant("tiff pyramid", pages((PICTURE, {"subifds": 1}), (small, {"subfiletype": 1})), PICTURE)
    yield Variant("tiff thumbnail alone", pages((small, {"subfiletype": 1})), small)
    yield Variant(
        "tiff old thumbnail first", pages((small, {"extratags": [(255, 3, 1, 2, True)]}), (PICTURE, {})), PICTURE
    )
    yield Variant(
        "tiff volume",
        tiff(np.stack([PICTURE] * 3), photometric="rgb", volumetric=True, tile=(2, 16, 16)),
        refused="volume",
    )


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
    yield Variant("jpeg xl", imagecodecs.jpegxl_encode(PICTURE), refused="JPEG XL")
    yield Variant("jpeg xr", imagecodecs.jpegxr_encode(PICTURE), refused="JPEG XR")
    yield Variant("rgbe", imagecodecs.rgbe_encode(PICTURE.astype(np.float32), header=True), refused="Radiance HDR")


FAMILIES = (
    *(jpeg, png, gif, webp, avif, jpeg2000, bmp, pnm),
    *(tiff_samples, tiff_colors, tiff_bits, tiff_compressions, tiff_arrangements, refused_formats),
)
