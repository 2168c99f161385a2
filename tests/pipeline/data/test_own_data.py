"""Data as people have it at first: what is plain is taken, and what is refused comes with the way on."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core import LabelSet, ModelBundle
from fcn_core.data.mask_coding import MaskError, read_mask
from fcn_core.labels import parse_labels
from pipeline.cli.app import run as fcn
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.errors import InputError
from pipeline.jobs.dataset import DatasetOptions
from tests.labelled import write_labelled
from tests.samples import encode, jpeg

ROOFS = LabelSet(name="roofs", names=("other", "roof"), palette=((0, 0, 0), (128, 0, 0)))


def refusal(dataset: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        open_catalog(DatasetOptions.model_validate({"dataset": str(dataset)} | options)).splits()
    return str(caught.value)


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    return encode(Image.fromarray(pixels).convert(mode) if mode else Image.fromarray(pixels), "PNG")


def test_a_label_file_needs_no_name() -> None:
    assert parse_labels(b'{"names": ["other", "roof"]}', "s3://bucket/set/roofs.json").name == "roofs"


def test_a_label_file_that_ignores_a_class_says_how_to_write_it() -> None:
    with pytest.raises(Exception, match=r"ignore index 0 is also class 'void'; use 255: take that name out"):
        parse_labels(b'{"names": ["void", "roof"], "ignore_index": 0}', "roofs.json")


def test_a_label_file_is_taken_for_a_new_model_and_to_look_at_a_mask(tmp_path: Path) -> None:
    (tmp_path / "roofs.json").write_text(json.dumps({"names": list(ROOFS.names)}))
    labels = str(tmp_path / "roofs.json")
    assert fcn(["model", "new", "-o", str(tmp_path / "model"), "--labels", labels, "--width", "0.125",
                "--head-width", "16"]) == 0  # fmt: skip
    assert ModelBundle.load(tmp_path / "model").labels.names == ROOFS.names
    (tmp_path / "a.jpg").write_bytes(jpeg(8, 6))
    (tmp_path / "a.png").write_bytes(png(np.ones((6, 8), np.uint8)))
    command = ["data", "show", str(tmp_path / "a.jpg"), str(tmp_path / "a.png"), "--labels", labels]
    assert fcn([*command, "-o", str(tmp_path / "pair.png")]) == 0


@pytest.mark.parametrize("white", [1, 7, 255])
@pytest.mark.parametrize("mode", [None, "RGB", "P", "1", "I;16"])
def test_a_binary_mask_is_black_and_one_other_value(white: int, mode: str | None) -> None:
    if mode == "1" and white < 128:
        pytest.skip("a picture of one bit has white alone")
    truth = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    pixels = truth * np.uint8(white)
    file = png(pixels.astype(np.uint16) * 200) if mode == "I;16" else png(pixels, mode)
    assert (read_mask(file, ROOFS, "binary") == truth).all()


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "1"])
def test_a_tiff_or_bmp_mask_is_read_as_a_png_is(kind: str, mode: str) -> None:
    truth = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    image = Image.fromarray(truth)
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0])
    elif mode == "RGB":
        image = Image.fromarray(np.array(ROOFS.palette, np.uint8)[truth])
    elif mode == "1":
        image = Image.fromarray(truth * np.uint8(255)).convert("1")
    assert (read_mask(encode(image, kind), ROOFS, "gray" if mode == "1" else "auto") == truth).all()


def test_a_tiff_mask_whose_numbers_may_have_changed_is_refused() -> None:
    image = Image.fromarray(np.zeros((16, 16), np.uint8))
    with pytest.raises(MaskError, match=r"a TIFF of a compression \(7\) that may change values"):
        read_mask(encode(image, "TIFF", compression="jpeg"), ROOFS)
    with pytest.raises(MaskError, match="white is 0"):
        read_mask(encode(image, "TIFF", tiffinfo={262: 0}), ROOFS)
    with pytest.raises(MaskError, match="damaged BMP"):
        read_mask(encode(image, "BMP")[:-40], ROOFS)


def test_masks_may_be_tiffs_and_a_png_of_the_same_name_comes_first(tmp_path: Path) -> None:
    dataset = tmp_path / "own"
    write_labelled(dataset, 2, "train")
    masks = sorted((dataset / "SegmentationClass").iterdir())
    pairs = open_dataset(DatasetOptions(dataset=str(dataset), labels="camvid"), "train")
    expected = [pairs[index].mask for index in range(2)]
    with Image.open(masks[0]) as image:
        image.save(masks[0].with_suffix(".tif"))
    masks[0].unlink()
    masks[1].with_suffix(".bmp").write_bytes(b"an old copy")
    found = open_dataset(DatasetOptions(dataset=str(dataset), labels="camvid"), "train")
    assert all((found[index].mask == expected[index]).all() for index in range(2))


def test_a_jpeg_in_a_mask_s_place_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = tmp_path / "own"
    write_labelled(dataset, 1, "train")
    (mask,) = (dataset / "SegmentationClass").iterdir()
    mask.rename(mask.with_suffix(".jpg"))
    assert fcn(["data", "check", str(dataset), "--labels", "camvid"]) == 2
    assert f"where there is SegmentationClass/{mask.stem}.jpg" in " ".join(capsys.readouterr().out.split())


def test_classes_may_count_from_one_with_zero_for_no_label() -> None:
    file = png(np.array([[0, 1, 2], [255, 2, 1]], np.uint8))
    assert read_mask(file, ROOFS, "from_one").tolist() == [[255, 0, 1], [255, 1, 0]]


def test_numbers_before_the_names_of_classes_are_no_part_of_them(tmp_path: Path) -> None:
    dataset = tmp_path / "own"
    write_labelled(dataset, 1, "train")
    (dataset / "labels.json").unlink(missing_ok=True)
    for text, names in (
        ("0 ground\n1: roof\n2,tree top\n", ("ground", "roof", "tree top")),
        ("1 ground\n2 roof\n", ("1 ground", "2 roof")),  # which may be meant
        ("3d model\nroof\n", ("3d model", "roof")),
    ):
        (dataset / "classes.txt").write_text(text)
        assert open_catalog(DatasetOptions(dataset=str(dataset))).labels.names == names


def test_a_folder_above_the_data_set_names_it(tmp_path: Path) -> None:
    write_labelled(tmp_path / "VOCdevkit" / "VOC2012", 1, "train")
    assert "VOC2012 in it has; give that folder" in refusal(tmp_path / "VOCdevkit")


def test_what_is_not_binary_is_refused() -> None:
    with pytest.raises(MaskError, match="has 3 values or colours"):
        read_mask(png(np.array([[0, 200, 255]], np.uint8)), ROOFS, "binary")
    three = LabelSet(name="three", names=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    with pytest.raises(MaskError, match="has 3 classes, and a binary mask tells two apart"):
        read_mask(png(np.array([[0, 255]], np.uint8)), three, "binary")
    with pytest.raises(MaskError, match="choose mask coding binary"):
        read_mask(png(np.array([[0, 255]], np.uint8)), ROOFS)


def test_the_colours_of_cvat_are_read_where_nothing_else_names_the_classes(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2, "train")
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:10,20,30::\n")
    labels = open_catalog(DatasetOptions(dataset=str(tmp_path))).labels
    assert labels.names == ("background", "roof")
    assert labels.palette == ((0, 0, 0), (10, 20, 30))


def test_a_single_split_is_parted_by_its_images(tmp_path: Path) -> None:
    write_labelled(tmp_path, 40, "default")
    options = DatasetOptions(dataset=str(tmp_path), labels="camvid")
    with pytest.raises(InputError, match=r"it has default alone; part it, .* --val-split 'default:image<0.2'"):
        open_dataset(options, "train")
    train = {pair.name for pair in open_dataset(options, "default:image>=0.2").pairs}
    val = {pair.name for pair in open_dataset(options, "default:image<0.2").pairs}
    assert len(train) + len(val) == 40
    assert not train & val
    assert 2 <= len(val) <= 16


def files(folder: Path, *names: str) -> Path:
    picture = io.BytesIO()
    Image.new("L", (4, 3)).save(picture, "PNG")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture.getvalue())
    return folder


def test_an_unknown_layout_is_refused_by_what_it_looks_like(tmp_path: Path) -> None:
    pairs = refusal(files(tmp_path / "pairs", "images/one.jpg", "masks/one.png"), labels="voc")
    assert "it looks like pairs of images and masks: make a data set of it with `fcn data import" in pairs
    assert pairs.endswith("\nimage,mask,split\nimages/one.jpg,masks/one.png,train\n...")
    (tmp_path / "labelme").mkdir()
    shape = {"label": "roof", "points": [[0, 0], [3, 0], [3, 2]], "shape_type": "polygon"}
    drawn = {"version": "5.0", "shapes": [shape], "imagePath": "a.jpg", "imageHeight": 3, "imageWidth": 4}
    (tmp_path / "labelme" / "a.json").write_text(json.dumps(drawn))
    assert "labelme's files" in refusal(files(tmp_path / "labelme", "a.jpg"), labels="voc")
    city = files(tmp_path / "city", "leftImg8bit/val/x/x_1_leftImg8bit.png", "gtFine/val/x/x_1_gtFine_labelIds.png")
    assert "give --preset cityscapes" in refusal(city, labels="voc")
    assert "it holds 1 image among 1 file, in no layout" in refusal(files(tmp_path / "photos", "a.jpg"), labels="voc")
