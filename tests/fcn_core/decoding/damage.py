"""Sound files with one random damage, and what other readers than ours say of them.

`python -m tests.fcn_core.decoding.damage 10000` tries so many and prints a table.
"""

import io
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from fcn_core.decoding import decode
from fcn_core.errors import DecodeError

Way = Literal["flip", "cut", "zero", "swap"]
WAYS: tuple[Way, ...] = ("flip", "cut", "zero", "swap")
BLOCK = 4096
Outcome = Literal["refused", "same pixels", "undetectable", "missed"]
"""undetectable: other pixels, and no reader objects. missed: other pixels, and another reader objects."""


@dataclass(frozen=True)
class Sample:
    """A sound file of several blocks, and the readers that are asked beside ours; each raises for what it refuses."""

    name: str
    data: bytes
    readers: tuple[Callable[[bytes], Any], ...]


def samples() -> Iterator[Sample]:
    pixels = photo()
    image = Image.fromarray(pixels)
    jpeg = (by_pillow, imagecodecs.jpeg8_decode)
    yield Sample("JPEG", saved(image, "JPEG", quality=98), jpeg)
    yield Sample("JPEG progressive", saved(image, "JPEG", quality=98, progressive=True), jpeg)
    yield Sample("JPEG restarts", saved(image, "JPEG", quality=98, restart_marker_blocks=4), jpeg)
    png = (by_pillow, verified_by_pillow, imagecodecs.png_decode)
    yield Sample("PNG", saved(image, "PNG"), png)
    yield Sample("PNG 16 bits", saved(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG"), png)
    webp = (by_pillow, imagecodecs.webp_decode)
    yield Sample("WebP", saved(image, "WEBP", quality=100), webp)
    yield Sample("WebP lossless", saved(image, "WEBP", lossless=True), webp)
    tiff = (imagecodecs.tiff_decode, by_pillow)
    for compression in ("none", "zlib", "lzw", "zstd", "lzma", "packbits", "jpeg", "webp", "jpeg2000"):
        options: dict[str, Any] = {} if compression == "none" else {"compression": compression}
        if compression == "jpeg":
            options["compressionargs"] = {"level": 98}
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, photometric="rgb", rowsperstrip=32, metadata=None, **options)
        readers = {"webp": tiff[:1], "jpeg2000": ()}.get(compression, tiff)  # that know the compression
        yield Sample(f"TIFF {compression}", buffer.getvalue(), readers)
    yield Sample("GIF", saved(image.quantize(256), "GIF"), (by_pillow, imagecodecs.gif_decode))
    yield Sample("BMP", saved(image, "BMP"), (by_pillow, imagecodecs.bmp_decode))
    yield Sample("PPM", saved(image, "PPM"), (by_pillow,))
    yield Sample("JPEG 2000", saved(image, "JPEG2000"), (by_pillow, imagecodecs.jpeg2k_decode))
    yield Sample(
        "JPEG 2000 tiled", saved(image, "JPEG2000", tile_size=(64, 64)), (by_pillow, imagecodecs.jpeg2k_decode)
    )
    yield Sample("AVIF", saved(image, "AVIF", quality=100), (by_pillow, imagecodecs.avif_decode))


def photo() -> npt.NDArray[np.uint8]:
    """uint8 [96, 128, 3] with grain, so that no format makes it a single block."""
    y, x = np.mgrid[0:96, 0:128]
    grain = np.random.default_rng(0).normal(0, 18, (96, 128, 3))
    return np.clip(np.stack([x * 2, y * 2, x + y], 2) + grain, 0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def verified_by_pillow(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.verify()


def damaged(data: bytes, way: Way, rng: random.Random) -> bytes:
    hurt = bytearray(data)
    match way:
        case "flip":
            hurt[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del hurt[rng.randrange(1, len(data)) :]
        case "zero":
            start = rng.randrange(-(-len(data) // BLOCK)) * BLOCK
            hurt[start : start + BLOCK] = bytes(len(hurt[start : start + BLOCK]))
        case "swap":
            first, second = rng.sample(range(len(data) // BLOCK), 2)
            one, other = (slice(at * BLOCK, (at + 1) * BLOCK) for at in (first, second))
            hurt[one], hurt[other] = data[other], data[one]
    return bytes(hurt)


def outcome(sample: Sample, hurt: bytes, whole: npt.NDArray[np.uint8]) -> Outcome:
    try:
        pixels = decode(hurt, 10_000_000).pixels
    except DecodeError:
        return "refused"
    if np.array_equal(pixels, whole):
        return "same pixels"
    return "missed" if any(objects(reader, hurt) for reader in sample.readers) else "undetectable"


def objects(reader: Callable[[bytes], Any], data: bytes) -> bool:
    try:
        reader(data)
    except Exception:  # whatever it calls its errors
        return True
    return False


def trial(count: int, seed: int = 0) -> tuple[Counter[tuple[str, Way, Outcome]], list[tuple[str, Way, bytes]]]:
    """So many damages, alike to every sample and way; what became of them, and the files that were missed."""
    rng = random.Random(seed)
    outcomes: Counter[tuple[str, Way, Outcome]] = Counter()
    missed = []
    chosen = list(samples())
    for sample in chosen:
        whole = decode(sample.data, 10_000_000).pixels
        for number in range(-(-count // len(chosen))):
            way = WAYS[number % len(WAYS)]
            hurt = damaged(sample.data, way, rng)
            if hurt == sample.data:
                continue
            found = outcome(sample, hurt, whole)
            outcomes[sample.name, way, found] += 1
            if found == "missed":
                missed.append((sample.name, way, hurt))
    return outcomes, missed


def main() -> None:
    outcomes, _ = trial(int(sys.argv[1]))
    kinds: tuple[Outcome, ...] = ("refused", "same pixels", "undetectable", "missed")
    print(f"{'':20}{'damage':8}" + "".join(f"{kind:>14}" for kind in kinds))
    for name, way in dict.fromkeys((name, way) for name, way, _ in outcomes):
        print(f"{name:20}{way:8}" + "".join(f"{outcomes[name, way, kind]:>14,}" for kind in kinds))
    totals = (sum(number for (_, _, found), number in outcomes.items() if found == kind) for kind in kinds)
    print(f"{'all':28}" + "".join(f"{total:>14,}" for total in totals))


if __name__ == "__main__":
    main()
