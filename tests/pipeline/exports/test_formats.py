"""Each format is read back by a reader of its own, and gives the masks again."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from fcn_core.labels import VOID, Mask, decode_mask
from fcn_core.render import colorize
from pipeline.data.annotations.opening import open_annotations
from pipeline.data.annotations.regions import points, polygon
from pipeline.exports.formats.base import ExportOptions
from pipeline.exports.job import export_masks
from pipeline.storage.opening import open_store
from tests.pipeline.exports.outputs import LABELS, files_under, write_run

HOLLOW = np.kron(np.array([[0, 1, 1, 1], [0, 1, VOID, 1], [2, 1, 1, 1]], np.uint8), np.ones((7, 5), np.uint8))
NOISE = np.random.default_rng(0).choice(np.array([0, 1, 2, VOID], np.uint8), (13, 17))
MASKS: dict[str, Mask] = {
    "cam/é.jpg": NOISE,
    "b.tar/0001.jpg": HOLLOW,
    "a": np.full((3, 4), VOID, np.uint8),
    "d\n\u202e\x1b[31m.jpg": np.zeros((2, 2), np.uint8),
    "../../x.png": np.full((1, 1), 2, np.uint8),
}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of MASKS, and beside it their source."""
    folder = tmp_path_factory.mktemp("exported")
    write_run(open_store(str(folder / "out")), MASKS)
    return folder / "out"


def same(found: dict[str, Mask]) -> bool:
    return found.keys() == MASKS.keys() and all((found[key] == MASKS[key]).all() for key in MASKS)


def read_png(folder: Path) -> dict[str, Mask]:
    return by_key(folder, ".png", lambda data, shape: decode_mask(data))


def read_color(folder: Path) -> dict[str, Mask]:
    def mask_of(data: bytes, shape: tuple[int, ...]) -> Mask:
        with Image.open(io.BytesIO(data)) as image:
            assert image.mode == "RGB"
            colors = np.asarray(image)
        found = np.zeros(shape, np.uint8)
        found[(colors == LABELS.palette[1]).all(axis=2)] = 1
        found[(colors == LABELS.ignore_color).all(axis=2)] = VOID
        return found

    found = by_key(folder, ".png", mask_of)
    for key, mask in found.items():  # classes 1 and 2 have one colour
        assert (colorize(mask, LABELS) == colorize(MASKS[key], LABELS)).all()
        mask[(mask == 1) & (MASKS[key] == 2)] = 2
    return found


def by_key(folder: Path, suffix: str, read: Callable[[bytes, tuple[int, ...]], Mask]) -> dict[str, Mask]:
    """Files under their plain names."""
    names = {
        "cam/é.jpg": "cam/é", "b.tar/0001.jpg": "b.tar/0001", "a": "a",
        "d\n\u202e\x1b[31m.jpg": "d%0a\u202e%1b[31m", "../../x.png": "%2e2e/%2e2e/x",
    }  # fmt: skip
    files = files_under(folder)
    assert {f"{name}{suffix}" for name in names.values()} == files.keys()
    return {key: read(files[f"{name}{suffix}"], MASKS[key].shape) for key, name in names.items()}


def read_coco(folder: Path) -> dict[str, Mask]:
    """By pycocotools."""
    coco = COCO(str(folder / "annotations.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(LABELS.names)
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.full((image["height"], image["width"]), VOID, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            bits = coco.annToMask(annotation).astype(bool)
            assert bits.sum() == annotation["area"]
            assert bits[window(annotation["bbox"])].sum() == bits.sum()
            mask[bits] = annotation["category_id"] - 1
        found[image["file_name"]] = mask
    return found


def window(box: list[int]) -> tuple[slice, slice]:
    x, y, width, height = box
    return slice(y, y + height), slice(x, x + width)


def read_panoptic(folder: Path) -> dict[str, Mask]:
    """As panopticapi does: `rgb2id` of annotations/*.png, and segments_info."""
    document = json.loads((folder / "annotations.json").read_text())
    images = {image["id"]: image for image in document["images"]}
    assert all(category["isthing"] == 0 for category in document["categories"])
    found = {}
    for annotation in document["annotations"]:
        with Image.open(folder / "annotations" / annotation["file_name"]) as image:
            colors = np.asarray(image).astype(np.uint32)
        ids = colors[..., 0] + 256 * colors[..., 1] + 256 * 256 * colors[..., 2]
        mask = np.full(ids.shape, VOID, np.uint8)
        for segment in annotation["segments_info"]:
            assert (ids == segment["id"]).sum() == segment["area"]
            mask[ids == segment["id"]] = segment["category_id"] - 1
        assert set(np.unique(ids)) <= {0, *(segment["id"] for segment in annotation["segments_info"])}
        found[images[annotation["image_id"]]["file_name"]] = mask
    return found


def read_geojson(folder: Path) -> dict[str, Mask]:
    def mask_of(data: bytes, shape: tuple[int, ...]) -> Mask:
        collection = json.loads(data)
        assert (collection["type"], collection["height"], collection["width"]) == ("FeatureCollection", *shape)
        mask = np.full(shape, VOID, np.uint8)
        for feature in collection["features"]:
            assert feature["properties"]["class_name"] == LABELS.names[feature["properties"]["class_id"]]
            rings = feature["geometry"]["coordinates"]
            assert all(ring[0] == ring[-1] for ring in rings), "RFC 7946 closes rings"
            draw(mask, [points(ring[:-1]) for ring in rings], feature["properties"]["class_id"])
        return mask

    return by_key(folder, ".geojson", mask_of)


def read_yolo(folder: Path) -> dict[str, Mask]:
    settings = yaml.safe_load((folder / "data.yaml").read_text())
    assert settings["names"] == dict(enumerate(LABELS.names))
    (folder / "data.yaml").unlink()

    def mask_of(data: bytes, shape: tuple[int, ...]) -> Mask:
        mask = np.full(shape, VOID, np.uint8)
        for line in data.decode().splitlines():
            number, *shares = line.split(" ")
            ring = np.array(shares, float).reshape(-1, 2)
            assert ((ring >= 0) & (ring <= 1)).all()
            draw(mask, [ring * (shape[1], shape[0])], int(number))
        return mask

    return by_key(folder / "labels", ".txt", mask_of)


def draw(mask: Mask, rings: list[Any], class_id: int) -> None:
    region = polygon(rings, *mask.shape)
    height, width = region.bits.shape
    mask[region.top : region.top + height, region.left : region.left + width][region.bits] = class_id


READERS = {
    "png": read_png,
    "color": read_color,
    "coco-rle": read_coco,
    "coco-panoptic": read_panoptic,
    "polygons": read_coco,
    "geojson": read_geojson,
    "yolo": read_yolo,
}


@pytest.mark.parametrize("format", READERS)
def test_reading_back_gives_the_masks_again(format: str, output: Path, tmp_path: Path) -> None:
    report = export_masks(str(output), str(tmp_path / "to"), format=format)
    assert (report.images, report.kept, report.without_image) == (len(MASKS), 0, 0)
    assert same(READERS[format](tmp_path / "to"))


@pytest.mark.parametrize("format", ["coco-rle", "coco-panoptic", "polygons"])
def test_what_fcn_data_import_reads_is_the_same(format: str, output: Path, tmp_path: Path) -> None:
    export_masks(str(output), str(tmp_path / "to"), format=format)
    annotations = open_annotations(str(tmp_path / "to"), LABELS)
    assert same({key: mask for key, mask, _ in annotations})


@pytest.mark.parametrize("format", ["coco-rle", "polygons", "geojson", "yolo"])
def test_small_regions_are_left_out(format: str, output: Path, tmp_path: Path) -> None:
    export_masks(str(output), str(tmp_path / "to"), format=format, options=ExportOptions(min_area=35))
    found = READERS[format](tmp_path / "to")
    assert (found["b.tar/0001.jpg"] == HOLLOW).all()
    kept = found["cam/é.jpg"]
    assert (kept[kept != VOID] == NOISE[kept != VOID]).all()
    assert (found["../../x.png"] == VOID).all()


def test_overlays_are_the_images_with_their_masks_over_them(tmp_path: Path) -> None:
    half = np.full((60, 80), VOID, np.uint8)
    half[:, :40] = 1
    write_run(open_store(str(tmp_path / "out")), {"cam/a.png": half, "b.png": NOISE}, source=tmp_path / "photos")
    report = export_masks(str(tmp_path / "out"), str(tmp_path / "to"), format="overlay")
    assert (report.images, report.without_image) == (2, 0)
    with Image.open(tmp_path / "to" / "cam" / "a.jpg") as shown, Image.open(tmp_path / "photos/cam/a.png") as photo:
        apart = np.abs(np.asarray(shown).astype(int) - np.asarray(photo)).mean(axis=(0, 2))
    assert apart[45:].mean() < 8, "void pixels show the photo"
    assert apart[:35].mean() > 20


def test_an_overlay_of_an_image_that_was_replaced_is_left_out(tmp_path: Path) -> None:
    masks = {"a.png": HOLLOW, "b.png": NOISE}
    write_run(open_store(str(tmp_path / "out")), masks, source=tmp_path / "photos")
    (tmp_path / "photos" / "b.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    report = export_masks(str(tmp_path / "out"), str(tmp_path / "to"), format="overlay")
    assert (report.images, report.without_image, report.missing[0][0]) == (2, 1, "b.png")
    assert files_under(tmp_path / "to").keys() == {"a.jpg"}
    again = export_masks(str(tmp_path / "out"), str(tmp_path / "to"), format="overlay")
    assert again.without_image == 1, "an image that is missing is looked for again"
