"""Annotations of strangers cost a row or one sentence: no traceback, no endless memory, nothing written elsewhere."""

import base64
import json
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.annotations.brush_rle import decode_brush, encode_brush
from pipeline.data.annotations.coco_rle import decode_rle
from pipeline.data.annotations.opening import open_annotations
from pipeline.data.annotations.regions import RegionError, polygon
from pipeline.data.versioned.adding import import_dataset
from pipeline.errors import InputError
from pipeline.jobs.importing import ImportOptions
from tests.pipeline.data.annotations.sources import PHOTO, STREET, coco, content, png, read, task, write, zipped

SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]
CVAT = {"labelmap.txt": "car:1,2,3::\n", "SegmentationClass/a.png": png(np.full((16, 20, 3), (1, 2, 3), np.uint8))}


def refusal(source: str, **options: Any) -> str:
    with pytest.raises(InputError) as info:
        read(source, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_lead_out_of_an_archive_are_left_out_by_name(tmp_path: Path) -> None:
    source = zipped(tmp_path / "export.zip", CVAT)
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("../../outside.png", "/etc/outside.png", "SegmentationClass/../../b.png", "C:\\b.png", "c\n.png"):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("SegmentationClass/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("SegmentationClass/twice.png", b"x")
        archive.writestr("SegmentationClass/twice.png", b"y")
    taken, why, _ = read(source)
    assert list(taken) == ["a"]
    assert why["SegmentationClass/link.png"] == "it is a link"
    assert "two entries" in why["SegmentationClass/twice.png"]
    assert {why[name] for name in ("../../outside.png", "/etc/outside.png", "SegmentationClass/../../b.png")} == {
        "its name leads out of the archive"
    }
    assert len(why) == 7
    import_dataset(source, str(tmp_path / "sets/street"), ImportOptions())
    assert sorted(path.name for path in tmp_path.rglob("*outside*")) == []


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(CVAT["SegmentationClass/a.png"])  # type: ignore[arg-type]
    write(tmp_path / "export", CVAT)
    (tmp_path / "export/SegmentationClass/b.png").symlink_to(tmp_path / "secret.png")
    assert list(read(str(tmp_path / "export"))[0]) == ["a"]


def test_a_bomb_in_an_archive_is_a_row_and_takes_no_more_than_a_mask_may(tmp_path: Path) -> None:
    source = zipped(tmp_path / "export.zip", {**CVAT, "SegmentationClass/bomb.png": bytes(200 << 20)})
    assert Path(source).stat().st_size < 1 << 20
    tracemalloc.start()
    taken, why, _ = read(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(taken) == ["a"]
    assert "unpacks to more than the 128 MiB" in why["bomb"]
    assert peak < 300 << 20


def test_a_mask_that_declares_endless_pixels_is_a_row(tmp_path: Path) -> None:
    data = bytearray(png(np.zeros((1, 1), np.uint8)))
    data[16:24] = struct.pack(">II", 1_000_000, 1_000_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    _, why, _ = read(write(tmp_path, {**CVAT, "SegmentationClass/vast.png": bytes(data)}))
    assert "no PNG that can be read" in why["vast"] or "pixels" in why["vast"]


def test_archives_that_are_none_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "export.zip", CVAT)
    for data in (b"no archive", Path(whole).read_bytes()[:-30]):
        (tmp_path / "bad.zip").write_bytes(data)
        assert "is not a zip archive that can be read" in refusal(str(tmp_path / "bad.zip"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested"),
        ('{"images": [NaN]}', "NaN"),
        ("{", "not JSON"),
        ("9" * 5000, "digits"),
        ("\xff", "JSON"),
    ],
)
def test_json_that_is_none_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    assert message in refusal(str(tmp_path / "a.json"), format="coco")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3]], "an odd number"),
        ([[1, 2, "x", 4, 5, 6]], "not pairs of numbers"),
        ([[1, 2, None, 4, 5, 6]], "no image has"),
        ([[[1, 2], [3, 4], [5, 6], [7, 8]]], "not pairs of numbers"),
        ([[1, 2, 3, 4]], "only 2 points"),
        ([[1e300, 0, 5, 5, 0, 5]], "no image has"),
        ([[0, 0, 10**30, 5, 0, 5]], "no image has"),
        ({"size": [20, 16], "counts": [320]}, "another size than its image (16x20, turned)"),
        ({"size": [16, 20], "counts": [10**18]}, "the runs of a mask are of"),
        ({"size": [16, 20], "counts": [-1, 321]}, "no lengths"),
        ({"size": [16, 20], "counts": [True, 319]}, "no lengths"),
        ({"size": [16, 20], "counts": "oooooooooo"}, "damaged"),
        ({"size": [16, 20], "counts": "\u20ac"}, "damaged"),
        ({"size": [16, 20], "counts": "P;"}, "do not fit the 320 pixels"),
        ({"size": [16, 20]}, "no counts"),
        ("all of it", "neither polygons nor run lengths"),
    ],
)
def test_a_segmentation_that_makes_no_sense_is_the_row_of_its_image(
    tmp_path: Path, segmentation: Any, message: str
) -> None:
    taken, why, _ = read(write(tmp_path, {"a.json": coco([segmentation])}))
    assert taken == {}
    assert message in why["a.jpg"]


def test_a_polygon_of_a_million_points_is_filled_or_refused_in_bounded_memory() -> None:
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    circle = 1000 + 900 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    tracemalloc.start()
    area = int(polygon([circle], 2000, 2000).bits.sum())
    assert abs(area - np.pi * 900**2) < 2000
    with pytest.raises(RegionError, match="crosses rows of pixels"):
        polygon([rng.uniform(0, 4000, (1_000_000, 2))], 4000, 4000)
    assert tracemalloc.get_traced_memory()[1] < 500 << 20
    tracemalloc.stop()
    with pytest.raises(RegionError, match="no image has"):
        polygon([np.array([[0, 0], [np.nan, 5], [5, 5]])], 10, 10)


def test_a_hundred_thousand_categories_are_one_sentence_unless_the_classes_are_given(tmp_path: Path) -> None:
    many = [{"id": n, "name": f"class {n}"} for n in range(100_000)] + [{"id": 200_000, "name": "car"}]
    source = write(tmp_path / "export", {"a.json": coco([[SQUARE]], 200_000, categories=many), "a.jpg": PHOTO})
    with pytest.raises(InputError, match="has 100,001 classes, and a mask holds 255"):
        import_dataset(source, str(tmp_path / "set"), ImportOptions())
    assert (read(source)[0]["a.jpg"].mask[3:9, 2:12] == 2).all()


def test_ids_that_are_given_twice_are_rows_and_sentences(tmp_path: Path) -> None:
    value = coco([[SQUARE]])
    value["images"] += [{"id": 7, "file_name": "b.jpg", "width": 20, "height": 16}, {"id": 8, "file_name": "c.jpg"}, 5]
    value["annotations"].append({"image_id": 99, "category_id": 1, "segmentation": [SQUARE]})
    taken, why, _ = read(write(tmp_path, {"a.json": value}))
    assert taken == {}
    assert why["a.jpg"] == why["b.jpg"] == "2 images have the id 7"
    assert "its size is given as" in why["c.jpg"]
    assert "2 annotations are of images that the file does not list once" in why["a.json"]
    value["categories"].append({"id": 1, "name": "boat"})
    assert "category 1 is car and boat" in refusal(write(tmp_path, {"a.json": value}))


def test_brush_codes_that_do_not_fill_their_image_are_rows(tmp_path: Path) -> None:
    good = encode_brush(np.ones((16, 20), np.bool_))
    for code, message in [
        (encode_brush(np.ones((20, 20), np.bool_)), "400 pixels, its image 320"),
        (good[:-2], "damaged"),
        (good[:5], "damaged"),
        ([256], "no list of bytes"),
        (["x"], "no list of bytes"),
        ("AAAA", "no run-length code"),
        ([], "damaged"),
    ]:
        _, why, _ = read(write(tmp_path, {"p.json": [task([{"value": {"rle": code, "brushlabels": ["car"]}}])]}))
        assert message in why["a.jpg"]
    with pytest.raises(RegionError):
        decode_brush([0, 0, 5, 0] + [255] * 1000, 16, 20)
    with pytest.raises(RegionError):
        decode_rle([], 16, 20)


def test_shapes_that_lead_out_of_the_image_are_rows_or_cut_off(tmp_path: Path) -> None:
    inner = base64.b64encode(png(np.ones((6, 10), np.uint8))).decode()
    base = {"version": "5", "imagePath": "a.jpg", "imageHeight": 16, "imageWidth": 20}
    for shape, message in [
        ({"label": "car", "shape_type": "mask", "points": [[15, 0], [25, 6]], "mask": inner}, "is not in the image"),
        ({"label": "car", "shape_type": "mask", "points": [[0, 0], [10, 6]], "mask": "%%"}, "is not base64"),
        ({"label": "car", "shape_type": "circle", "points": [[0, 0]]}, "1 points, not two"),
        ({"shape_type": "polygon", "points": [[0, 0]]}, "has no label"),
    ]:
        _, why, _ = read(write(tmp_path, {"a.json": {**base, "shapes": [shape]}}))
        assert message in why["a.jpg"]
    outside = {"label": "car", "points": [[-50, -50], [10, -50], [10, 99], [-50, 99]]}
    (item,) = read(write(tmp_path, {"a.json": {**base, "shapes": [outside]}}))[0].values()
    assert (item.mask[:, :10] == 2).all()
    assert (item.mask[:, 10:] == 255).all()


def test_a_bitmap_that_unpacks_without_end_is_a_row(tmp_path: Path) -> None:
    bomb = base64.b64encode(zlib.compress(bytes(200 << 20), 9)).decode()
    thing = {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": bomb, "origin": [0, 0]}}
    files = {
        "meta.json": {"classes": [{"title": "car", "color": "#000001"}]},
        "ds/ann/a.jpg.json": {"size": {"height": 16, "width": 20}, "objects": [thing]},
        "ds/img/a.jpg": PHOTO,
    }
    assert "unpacks to more than" in read(write(tmp_path, files))[1]["ds/img/a.jpg"]


def test_any_small_damage_to_an_export_is_a_row_or_a_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    sentences = []
    value = content(coco([[SQUARE], {"size": [16, 20], "counts": "P2f0"}]))
    for number in range(200):
        data = bytearray(value)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(32, 127)
        path = tmp_path / f"{number}.json"
        path.write_bytes(data)
        try:
            for _, mask, _ in open_annotations(str(path), STREET, "coco"):
                assert mask.dtype == np.uint8
        except InputError as error:
            sentences.append(str(error))
    assert sentences
    assert all("\n" not in sentence for sentence in sentences)


def test_names_that_drive_a_terminal_stay_on_their_line(tmp_path: Path) -> None:
    value = coco([[SQUARE]])
    value["categories"][0]["name"] = "car\x1b[2J"
    value["annotations"][0]["segmentation"] = [[1, 2]]
    _, why, _ = read(write(tmp_path, {"a.json": json.dumps(value)}))
    assert why["a.jpg"].isprintable()
