"""Which copies of an image in another split are found, and which are warned of: the table of docs/training.md."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fcn_core.decoding import decode
from pipeline.data.leaks import Looks, fingerprint

FOUND, WARNED, UNSEEN = "found", "warned of", "not seen"


def saved(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.fromarray(decode(data).pixels)


def noted(data: bytes) -> bytes:
    """The same JPEG with a comment in it."""
    comment = b"\xff\xfe\x00\x07hello"
    return data[:2] + comment + data[2:]


def turned_by_exif(data: bytes) -> bytes:
    """Stored upside down, with an EXIF entry that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 3
    return saved(opened(data).rotate(180), "PNG", exif=exif)


def cropped(data: bytes, share: float) -> Image.Image:
    image = opened(data)
    across, down = max(1, round(share * image.width)), max(1, round(share * image.height))
    return image.crop((across, down, image.width - across, image.height - down))


def noisy(data: bytes) -> Image.Image:
    pixels = decode(data).pixels
    noise = np.random.default_rng(0).normal(0, 10, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def bordered(data: bytes) -> Image.Image:
    image = opened(data)
    framed = Image.new("RGB", (image.width * 5 // 4, image.height * 5 // 4))
    framed.paste(image, (image.width // 8, image.height // 8))
    return framed


def half(data: bytes) -> Image.Image:
    image = opened(data)
    return image.resize((image.width // 2, image.height // 2))


WAYS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a copy under another name": (lambda data: data, FOUND),
    "bytes after its end": (lambda data: data + b"\n\n", FOUND),
    "other metadata": (noted, FOUND),
    "saved anew without loss": (lambda data: saved(opened(data), "PNG"), FOUND),
    "stored turned, with an EXIF entry": (turned_by_exif, FOUND),
    "compressed anew": (lambda data: saved(opened(data), quality=50), WARNED),
    "half as large": (lambda data: saved(half(data)), WARNED),
    "cropped by a pixel": (lambda data: saved(cropped(data, 0)), WARNED),
    "mirrored": (lambda data: saved(opened(data).transpose(Image.Transpose.FLIP_LEFT_RIGHT)), WARNED),
    "upside down": (lambda data: saved(opened(data).rotate(180)), WARNED),
    "turned by a quarter": (lambda data: saved(opened(data).transpose(Image.Transpose.ROTATE_90)), WARNED),
    "a tenth brighter": (lambda data: saved(ImageEnhance.Brightness(opened(data)).enhance(1.1)), WARNED),
    "less contrast": (lambda data: saved(ImageEnhance.Contrast(opened(data)).enhance(0.7)), WARNED),
    "noise": (lambda data: saved(noisy(data)), WARNED),
    "cropped by a tenth": (lambda data: saved(cropped(data, 0.1)), UNSEEN),
    "turned by ten degrees": (lambda data: saved(opened(data).rotate(10)), UNSEEN),
    "with a border": (lambda data: saved(bordered(data)), UNSEEN),
    "negative": (lambda data: saved(Image.eval(opened(data), lambda value: 255 - value)), UNSEEN),
}


def outcome(original: bytes, copy: bytes) -> str:
    """What the check makes of a copy in another split."""
    first, second = (fingerprint(decode(data).pixels) for data in (original, copy))
    if first.pixels == second.pixels:
        return FOUND
    looks = [Looks(), Looks()]
    for each, seen in zip(looks, (first, second), strict=True):
        each.add("image", seen)
    return WARNED if looks[1].near(looks[0]) else UNSEEN


def scene(seed: int) -> bytes:
    """A street-like picture: sky, ground, and boxes of many sizes and colours."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((240, 320, 3), np.float64)
    picture[:110], picture[110:] = (150, 180, 220), (90, 90, 95)
    for _ in range(40):
        top, left = rng.integers(20, 220), rng.integers(0, 300)
        picture[top : top + rng.integers(8, 80), left : left + rng.integers(6, 60)] = rng.integers(0, 255, 3)
    return saved(
        Image.fromarray(np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)), quality=92
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_in_another_split_is_what_the_page_says_of_it(way: str) -> None:
    change, expected = WAYS[way]
    assert {outcome(scene(seed), change(scene(seed))) for seed in range(4)} == {expected}


def test_the_page_has_a_row_for_every_way() -> None:
    page = (Path(__file__).parents[3] / "docs/training.md").read_text("utf-8")
    table = page.partition("| in two splits | |")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    assert len(rows) >= 20
    for way, (_, expected) in WAYS.items():
        (verdict,) = [verdict for what, verdict in rows if way in what]
        assert verdict == expected, way


def test_different_scenes_do_not_look_alike() -> None:
    prints = [fingerprint(decode(scene(seed)).pixels) for seed in range(30)]
    looks = [Looks(), Looks()]
    for index, seen in enumerate(prints):
        looks[index % 2].add(str(index), seen)
    assert looks[0].near(looks[1]) == []


@pytest.mark.slow  # 700 photographs; on generated scenes the two tests above have the like
@pytest.mark.skipif("FCN_CAMVID" not in os.environ, reason="FCN_CAMVID names no CamVid folder")
def test_camvids_splits_do_not_look_alike_and_most_copies_do() -> None:
    place = Path(os.environ["FCN_CAMVID"])
    splits = {}
    for split in ("train", "val"):
        names = (place / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        splits[split] = [next((place / "JPEGImages").glob(f"{name}.*")).read_bytes() for name in names]
    looks = {split: Looks() for split in splits}
    for split, images in splits.items():
        for index, data in enumerate(images):
            looks[split].add(str(index), fingerprint(decode(data).pixels))
    assert looks["val"].near(looks["train"]) == []
    some = splits["train"][::30]
    for change, expected in WAYS.values():
        outcomes = [outcome(data, change(data)) for data in some]
        assert outcomes.count(expected) > 0.8 * len(some), (change, outcomes)
