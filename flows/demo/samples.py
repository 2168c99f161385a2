"""Sample data for the tutorial: photos of a laid table, painted from a seed, with masks of ten classes.

    python -m flows.demo.samples mydata

Makes mydata/, labelled images in PASCAL VOC's layout, and mydata-new/, photos without labels. A stand-in for data of
your own: nothing in it is known to the rest of the program.
"""

import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fcn_core.labels import LabelSet, encode_mask

LABELS = LabelSet(
    name="table",
    names=("table", "plate", "cup", "knife", "napkin", "apple", "orange", "lime", "plum", "bread"),
    palette=(
        (120, 88, 60), (235, 235, 235), (60, 120, 200), (150, 150, 160), (200, 90, 160),
        (210, 40, 40), (250, 150, 30), (130, 200, 60), (90, 40, 110), (220, 180, 110),
    ),
)  # fmt: skip

SIZE = (160, 120)
TRAIN, VAL, NEW = 96, 16, 12

_WOOD = ((126, 92, 62), (96, 70, 50), (148, 116, 84))
_FRUIT = {"apple": (196, 44, 40), "orange": (240, 146, 34), "lime": (132, 190, 62), "plum": (88, 46, 104)}


def table_photo(seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """The photo of that seed, uint8 [120, 160, 3], and its mask, uint8 [120, 160]."""
    rng = np.random.default_rng([7, seed])
    photo = Image.new("RGB", SIZE, _WOOD[int(rng.integers(len(_WOOD)))])
    mask = Image.new("L", SIZE, 0)
    paper, truth = ImageDraw.Draw(photo), ImageDraw.Draw(mask)
    for y in range(0, SIZE[1], 8):
        paper.line((0, y, SIZE[0], y + int(rng.integers(-3, 4))), fill=(80, 58, 40))

    def put(name: str, shape: str, box: tuple[float, float, float, float], color: tuple[int, int, int]) -> None:
        tint = tuple(int(np.clip(part + rng.integers(-14, 15), 0, 255)) for part in color)
        index = LABELS.names.index(name)
        if shape == "round":
            paper.ellipse(box, fill=tint, outline=tuple(part * 4 // 5 for part in tint))
            truth.ellipse(box, fill=index)
        else:
            paper.rounded_rectangle(box, 4, fill=tint, outline=tuple(part * 4 // 5 for part in tint))
            truth.rounded_rectangle(box, 4, fill=index)

    def place(width: float, height: float) -> tuple[float, float, float, float]:
        x, y = rng.uniform(0, SIZE[0] - width), rng.uniform(0, SIZE[1] - height)
        return (x, y, x + width, y + height)

    for _ in range(int(rng.integers(1, 3))):
        put("napkin", "square", place(*rng.uniform(26, 44, 2)), (204, 96, 164))
    for _ in range(int(rng.integers(1, 3))):
        side = rng.uniform(40, 60)
        left, top, right, bottom = place(side, side * 0.85)
        put("plate", "round", (left, top, right, bottom), (226, 226, 222))
        if rng.random() < 0.6:
            put("bread", "square", (left + 10, top + 10, right - 12, bottom - 10), (216, 174, 104))
    for _ in range(int(rng.integers(1, 3))):
        put("cup", "round", place(22, 22), (56, 112, 190))
    for _ in range(int(rng.integers(1, 3))):
        put("knife", "square", place(*((8, 52) if rng.random() < 0.5 else (52, 8))), (164, 168, 176))
    for name in rng.permutation(list(_FRUIT))[: int(rng.integers(2, 5))]:
        side = rng.uniform(18, 28)
        put(str(name), "round", place(side, side), _FRUIT[str(name)])
    light = rng.uniform(0.75, 1.15)
    pixels = np.asarray(photo.filter(ImageFilter.GaussianBlur(0.7)), np.float32) * light
    pixels += rng.normal(0, 5, (SIZE[1], SIZE[0], 3))
    return np.clip(pixels, 0, 255).astype(np.uint8), np.asarray(mask)


def write_samples(folder: Path) -> None:
    """Labelled photos in `folder`, and new ones without labels beside it, in `folder`-new."""
    for place in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f"{folder.name}-new")
    fresh.mkdir(exist_ok=True)
    (folder / "labels.json").write_text(LABELS.model_dump_json(indent=1))
    for split, seeds in (("train", range(TRAIN)), ("val", range(TRAIN, TRAIN + VAL))):
        for seed in seeds:
            photo, mask = table_photo(seed)
            (folder / "JPEGImages" / f"table-{seed:03d}.jpg").write_bytes(_jpeg(photo))
            (folder / "SegmentationClass" / f"table-{seed:03d}.png").write_bytes(encode_mask(mask, LABELS))
        listed = "".join(f"table-{seed:03d}\n" for seed in seeds)
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listed)
    for seed in range(TRAIN + VAL, TRAIN + VAL + NEW):
        (fresh / f"kitchen-{seed:03d}.jpg").write_bytes(_jpeg(table_photo(seed)[0]))
    print(f"{folder}: {TRAIN} photos to train on, {VAL} to judge by; {fresh}: {NEW} photos without labels")


def _jpeg(photo: npt.NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(photo).save(sink, "JPEG", quality=92)
    return sink.getvalue()


def main() -> None:
    """One argument: the folder to make."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m flows.demo.samples FOLDER")
    folder = Path(sys.argv[1])
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder} is there already; name a new folder")
    write_samples(folder)


if __name__ == "__main__":
    main()
