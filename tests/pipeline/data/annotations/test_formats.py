"""Every format of annotations is recognised and read as the tool that wrote it means it."""

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from fcn_core.labels import LabelSet, preset
from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.data.annotations.formats import FORMATS
from pipeline.data.annotations.opening import open_annotations
from pipeline.errors import InputError
from tests.pipeline.data.annotations.sources import PHOTO, STREET, coco, png, read, task, write, zipped

ROAD, LIGHT, CAR, NONE = 0, 1, 2, 255
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]


def block(value: int, shape: tuple[int, int] = (16, 20)) -> np.ndarray:
    """Nothing but a rectangle of 10x6 pixels at (2, 3)."""
    mask = np.full(shape, NONE, np.uint8)
    mask[3:9, 2:12] = value
    return mask


BRUSH = encode_brush(block(1) == 1)
OUTLINE = [[10, 18.75], [60, 18.75], [60, 56.25], [10, 56.25]]
"""The same rectangle in percent."""


def test_cvat_masks_are_read_by_the_colours_of_the_label_map(tmp_path: Path) -> None:
    rgb = np.zeros((16, 20, 3), np.uint8)
    rgb[3:9, 2:12] = (250, 50, 83)
    files = {
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\n",
        "SegmentationClass/nord/bild ä.png": png(rgb),
        "SegmentationClass/other.png": png(rgb[:5] * 0 + 9),
        "SegmentationObject/nord/bild ä.png": png(rgb),
        "ImageSets/Segmentation/default.txt": "nord/bild ä\nother\ngone\n",
        "JPEGImages/nord/bild ä.jpg": PHOTO,
    }
    taken, why, name = read(zipped(tmp_path / "export.zip", files))
    assert name == "cvat"
    assert (taken["nord/bild ä.jpg"].mask == block(CAR)).all()
    assert taken["nord/bild ä.jpg"].image == "JPEGImages/nord/bild ä.jpg"
    assert "(9, 9, 9) in 100 pixels" in why["other"]
    assert "there is no SegmentationClass/gone.png" in why["gone"]


def test_coco_polygons_cover_the_pixels_whose_centres_they_contain(tmp_path: Path) -> None:
    write(tmp_path, {"annotations/instances_val2017.json": coco([[SQUARE]]), "images/a.jpg": PHOTO})
    taken, why, name = read(str(tmp_path))
    assert (name, why) == ("coco", {})
    assert (taken["a.jpg"].mask == block(CAR)).all()
    assert (taken["a.jpg"].image, taken["a.jpg"].split) == ("images/a.jpg", "val")


def test_coco_annotations_that_come_later_lie_on_top_and_the_overlap_is_noted(tmp_path: Path) -> None:
    value = coco([[[0, 0, 20, 0, 20, 16, 0, 16]], [SQUARE]])
    value["annotations"][0]["category_id"] = 2
    (item,) = read(write(tmp_path, {"a.json": value}))[0].values()
    expected = block(CAR)
    expected[expected == NONE] = LIGHT
    assert (item.mask == expected).all()
    assert "overlap in 60 pixels" in item.notes[0]


def test_coco_boxes_without_a_segmentation_are_noted_and_no_mask(tmp_path: Path) -> None:
    (item,) = read(write(tmp_path, {"a.json": coco([[SQUARE], [], None])}))[0].values()
    assert (item.mask == block(CAR)).all()
    assert item.notes == ("car: a box or point without a segmentation (2 times)",)


def test_a_class_that_the_label_set_does_not_have_has_no_label_even_where_unlabelled_is_a_class(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.json": coco([[SQUARE]], category=3)})
    opened = open_annotations(source, STREET, unlabelled="road")
    (item,) = opened
    expected = block(NONE)
    expected[:] = ROAD
    expected[3:9, 2:12] = NONE
    assert (item.mask == expected).all()
    assert opened.class_map is not None
    assert opened.class_map.unmapped() == ["zeppelin"]
    assert (read(source, rules={"zeppelin": "car"})[0]["a.jpg"].mask == block(CAR)).all()
    with pytest.raises(InputError, match="no such class"):
        read(source, rules={"zeppelin": "boat"})


def test_coco_panoptic_segments_become_their_categories(tmp_path: Path) -> None:
    ids = np.zeros((16, 20, 3), np.uint8)
    ids[3:9, 2:12] = (1, 2, 3)
    value = coco([], annotations=[{"image_id": 7, "file_name": "a.png", "segments_info": [
        {"id": 1 + 256 * 2 + 65536 * 3, "category_id": 1}]}])  # fmt: skip
    write(tmp_path, {"panoptic_train.json": value, "panoptic_train/a.png": png(ids), "images/a.jpg": PHOTO})
    taken, why, name = read(str(tmp_path))
    assert (name, why) == ("coco-panoptic", {})
    assert (taken["a.jpg"].mask == block(CAR)).all()
    assert (taken["a.jpg"].image, taken["a.jpg"].split) == ("images/a.jpg", "train")


def test_label_studio_regions_of_every_kind_are_drawn_in_their_order(tmp_path: Path) -> None:
    results = [
        {"value": {"x": 0, "y": 0, "width": 100, "height": 100, "rotation": 0, "rectanglelabels": ["road"]}},
        {"value": {"points": OUTLINE, "polygonlabels": ["car"]}},
        {"value": {"format": "rle", "rle": BRUSH, "brushlabels": ["traffic light"]}},
        {"value": {"x": 25, "y": 37.5, "radiusX": 10, "radiusY": 12.5, "rotation": 0, "ellipselabels": ["car"]}},
    ]
    taken, why, name = read(write(tmp_path, {"project.json": [task(results)], "images/a.jpg": PHOTO}))
    assert (name, why) == ("label-studio", {})
    mask = taken["a.jpg"].mask
    assert (mask[5, 4], mask[3, 2], mask[0, 0]) == (CAR, LIGHT, ROAD)
    assert (mask == CAR).sum() == 12
    assert taken["a.jpg"].image == "images/a.jpg"


def test_label_studio_predictions_and_cancelled_annotations_are_nobodys_labels(tmp_path: Path) -> None:
    brush = {"value": {"format": "rle", "rle": BRUSH, "brushlabels": ["car"]}}
    done = task([brush])
    cancelled = task([brush], id=4, data={"image": "s3://bucket/b.jpg"})
    cancelled["annotations"][0]["was_cancelled"] = True
    waiting = task([], id=5, data={"image": "images/c.jpg"}, predictions=[{"result": [brush]}], annotations=[])
    newer = task([brush], id=6, data={"image": "images/d.jpg", "key": "cam/d.jpg"})
    newer["annotations"].append({**newer["annotations"][0], "result": [], "updated_at": "2026-04-01T10:00:00Z"})
    taken, why, _ = read(write(tmp_path, {"project.json": [done, cancelled, waiting, newer]}))
    assert set(taken) == {"a.jpg", "cam/d.jpg"}
    assert why == {"s3://bucket/b.jpg": "nobody has annotated it", "images/c.jpg": "nobody has annotated it"}


def test_label_studio_labels_may_stand_in_a_result_of_their_own(tmp_path: Path) -> None:
    shape = {"id": "x", "type": "polygon", "value": {"points": OUTLINE}}
    label = {"id": "x", "type": "labels", "value": {"points": shape["value"]["points"], "labels": ["car"]}}
    choice = {"type": "choices", "value": {"choices": ["sunny"]}}
    (item,) = read(write(tmp_path, {"p.json": [task([shape, label, choice])]}))[0].values()
    assert (item.mask == block(CAR)).all()
    assert item.notes == ("a result is no area",)


def test_label_studio_json_min_is_read(tmp_path: Path) -> None:
    brush = {
        "format": "rle",
        "rle": BRUSH,
        "brushlabels": ["car"],
        "original_width": 20,
        "original_height": 16,
    }
    value = [
        {"image": "/data/local-files/?d=set/images/a.jpg", "id": 1, "tag": [brush], "annotator": 1, "annotation_id": 9}
    ]
    taken, _, name = read(write(tmp_path, {"p.json": value}))
    assert name == "label-studio"
    assert (taken["set/images/a.jpg"].mask == block(CAR)).all()


def test_label_studio_brush_pngs_find_their_images_by_the_json_beside_them(tmp_path: Path) -> None:
    one = np.where(block(1) == 1, 255, 0).astype(np.uint8)
    other = np.zeros((16, 20), np.uint8)
    other[3:9, 2:4] = 255
    files = {
        "task-3-annotation-1-by-a@b.c-tag-car-0.png": png(one),
        "task-3-annotation-1-by-a@b.c-tag-road-0.png": png(other),
        "task-4-annotation-2-by-1-label-car-0.png": png(one),
        "task-4-annotation-5-by-1-label-car-0.png": png(one),
    }
    taken, why, name = read(write(tmp_path / "bare", files))
    assert name == "label-studio-png"
    assert list(taken) == ["task-3"]
    assert "2 annotations" in why["task-4"]
    write(tmp_path / "full", {**files, "project.json": [task([])], "images/a.jpg": PHOTO})
    taken, _, name = read(str(tmp_path / "full"))
    expected = block(CAR)
    expected[3:9, 2:4] = NONE
    assert (taken["a.jpg"].mask == expected).all()
    assert taken["a.jpg"].image == "images/a.jpg"
    assert "overlap in 12 pixels" in taken["a.jpg"].notes[0]


def test_labelme_shapes_are_drawn_and_lines_are_noted(tmp_path: Path) -> None:
    inner = base64.b64encode(png(np.ones((6, 10), np.uint8))).decode()
    shapes = [
        {"label": "road", "shape_type": "rectangle", "points": [[20, 16], [0, 0]]},
        {"label": "car", "shape_type": "polygon", "points": [[2, 3], [12, 3], [12, 9], [2, 9]]},
        {"label": "traffic light", "shape_type": "circle", "points": [[15, 13], [16, 13]]},
        {
            "label": "car",
            "shape_type": "mask",
            "points": [[1, 10], [11, 16]],
            "mask": inner,
        },
        {"label": "pole", "shape_type": "linestrip", "points": [[0, 0], [5, 5]]},
    ]
    value = {
        "version": "5.5.0",
        "shapes": shapes,
        "imagePath": "..\\images\\a.jpg",
        "imageData": None,
        "imageHeight": 16,
        "imageWidth": 20,
    }
    taken, why, name = read(write(tmp_path, {"json/a.json": value, "images/a.jpg": PHOTO, "json/b.json": "{}"}))
    assert name == "labelme"
    item = taken["images/a.jpg"]
    expected = block(CAR)
    expected[expected == NONE] = ROAD
    expected[10:16, 1:11] = CAR
    expected[12:14, 14:16] = LIGHT
    assert (item.mask == expected).all()
    assert "pole: a linestrip is no area" in item.notes
    assert "no file of labelme's" in why["json/b.json"]


def test_supervisely_polygons_have_holes_and_bitmaps_an_origin(tmp_path: Path) -> None:
    ring = {"exterior": [[0, 0], [20, 0], [20, 16], [0, 16]], "interior": [[[2, 3], [12, 3], [12, 9], [2, 9]]]}
    alpha = np.zeros((6, 10, 4), np.uint8)
    alpha[..., 3] = 255
    bitmap = {"data": base64.b64encode(zlib.compress(png(alpha))).decode(), "origin": [2, 3]}
    annotation = {"size": {"height": 16, "width": 20}, "objects": [
        {"classTitle": "road", "geometryType": "polygon", "points": ring},
        {"classTitle": "car", "geometryType": "bitmap", "bitmap": bitmap},
        {"classTitle": "car", "geometryType": "point", "points": {"exterior": [[1, 1]]}},
    ]}  # fmt: skip
    meta = {"classes": [{"title": "road", "shape": "any", "color": "#804080"}, {"title": "car", "color": "#00008E"}]}
    files = {"project/meta.json": meta, "project/ds1/ann/a.jpg.json": annotation, "project/ds1/img/a.jpg": PHOTO}
    source = zipped(tmp_path / "s.zip", files)
    taken, why, name = read(source)
    assert (name, why) == ("supervisely", {})
    expected = block(CAR)
    expected[expected == NONE] = ROAD
    assert (taken["ds1/a.jpg"].mask == expected).all()
    assert taken["ds1/a.jpg"].notes == ("car: a point is no area",)
    assert [each.color for each in open_annotations(source, None).classes()] == [(128, 64, 128), (0, 0, 142)]


def test_cityscapes_numbers_become_classes_by_name_and_the_test_split_nothing(tmp_path: Path) -> None:
    ids = np.where(block(26) == 26, 26, 1).astype(np.uint8)
    write(tmp_path, {
        "gtFine/train/ulm/ulm_000_gtFine_labelIds.png": png(ids),
        "gtFine/test/bonn/bonn_000_gtFine_labelIds.png": png(ids * 0 + 3),
        "leftImg8bit/train/ulm/ulm_000_leftImg8bit.png": png(ids),
    })  # fmt: skip
    taken, why, name = read(str(tmp_path), unlabelled="road")
    assert name == "cityscapes"
    ((key, item),) = taken.items()
    assert key == "train/ulm/ulm_000_leftImg8bit.png"
    assert (item.mask == block(CAR)).all()
    assert item.split == "train"
    assert "nothing in it is labelled" in why["test/bonn/bonn_000"]


def test_pairs_of_folders_are_read_by_the_table_beside_them(tmp_path: Path) -> None:
    rgb = np.zeros((16, 20, 3), np.uint8)
    rgb[3:9, 2:12] = (64, 0, 128)
    files = {
        "images/x/a.jpg": PHOTO, "masks/x/a_L.png": png(rgb), "images/x/b.jpg": PHOTO, "masks/x/c.png": png(rgb),
        "class_dict.csv": "name,r,g,b\nCar,64,0,128\nVoid,0,0,0\n",
    }  # fmt: skip
    taken, why, name = read(write(tmp_path, files))
    assert name == "pairs"
    assert (taken["x/a.jpg"].mask == block(CAR)).all()
    assert taken["x/a.jpg"].image == "images/x/a.jpg"
    assert taken["x/c"].image is None
    assert why == {"images/x/b.jpg": "it has no mask"}


def test_roboflow_masks_lie_beside_their_images_with_a_table_of_numbers(tmp_path: Path) -> None:
    numbers = np.where(block(2) == 2, 2, 0).astype(np.uint8)
    files = {
        "valid/a_jpg.rf.0123.jpg": PHOTO,
        "valid/a_jpg.rf.0123_mask.png": png(numbers),
        "valid/_classes.csv": "Pixel Value, Class\n0, background\n2, car\n",
    }
    taken, why, name = read(write(tmp_path, files))
    assert (name, why) == ("pairs", {})
    ((_, item),) = taken.items()
    assert (item.mask == block(CAR)).all()
    assert (item.image, item.split) == ("valid/a_jpg.rf.0123.jpg", "val")


def test_pairs_without_a_table_are_masks_of_the_label_set(tmp_path: Path) -> None:
    files = {
        "JPEGImages/a.jpg": PHOTO,
        "SegmentationClass/a.png": png(block(8)),
        "ImageSets/Segmentation/train.txt": "a\n",
    }
    taken, _, name = read(write(tmp_path, files), preset("camvid"))
    assert name == "pairs"
    assert (taken["a.jpg"].mask == block(8)).all()
    assert taken["a.jpg"].split == "train"


def test_what_is_no_annotation_is_refused_with_the_formats_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="of no format that is recognised") as info:
        read(write(tmp_path, {"photo.jpg": PHOTO}))
    assert all(name in str(info.value) for name in FORMATS)
    with pytest.raises(InputError, match="there is no format 'voc'"):
        read(str(tmp_path), format="voc")


def test_masks_come_as_key_mask_and_notes(tmp_path: Path) -> None:
    source = write(tmp_path, {"a.json": coco([[SQUARE]])})
    opened = open_annotations(str(Path(source) / "a.json"), STREET)
    for key, mask, notes in opened:
        assert (key, mask.dtype, mask.shape, notes) == ("a.jpg", np.uint8, (16, 20), ())
    assert opened.left_out == []


def test_two_classes_that_a_name_could_mean_are_neither(tmp_path: Path) -> None:
    labels = LabelSet(name="twins", names=("Car", "CAR"), palette=((1, 1, 1), (2, 2, 2)))
    (item,) = read(write(tmp_path, {"a.json": json.loads(json.dumps(coco([[SQUARE]])))}), labels)[0].values()
    assert (item.mask == NONE).all()
