"""Names that differ from a file's only in how they are written mean that file; what is ambiguous is named."""

import unicodedata
from pathlib import Path

import pytest

from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.near_names import NearNames, folded, plain_name
from pipeline.errors import InputError
from tests.pipeline.data.test_datasets import grey, options, put, refusal
from tests.samples import jpeg


def data_set(folder: Path, image: str, mask: str, line: str) -> Path:
    files: dict[str, bytes | str] = {f"JPEGImages/{image}": jpeg(8, 6), f"SegmentationClass/{mask}": grey(1)}
    return put(folder, files | {"ImageSets/Segmentation/train.txt": f"{line}\n"})


@pytest.mark.parametrize(
    ("image", "mask", "line"),
    [
        ("a.jpg", "a.PNG", "a"),
        ("a.jpg", "a.png", "a.jpg"),
        ("a.jpg", "a.png", "JPEGImages/a.jpg SegmentationClass/a.png"),
        ("a.jpg", "a.png", "/JPEGImages/a.jpg /SegmentationClass/a.png"),
        ("a.jpg", "other.png", "JPEGImages/a.jpg\tSegmentationClass/other.png"),
        ("a.jpg", "a_mask.png", "a"),
        ("a.jpg", "a_L.png", "a"),
        ("a.tif", "a.png", "./a"),
        ("a.webp", "a.png", "a"),
        ("a.jpg", "a.TIF", "a"),
        ("a.jpg", "a.bmp", "a"),
        ("img0.jpg", "Img0.png", "IMG0"),
        (unicodedata.normalize("NFD", "dächer.jpg"), "dächer.png", "dächer"),
        ("dächer.jpg", unicodedata.normalize("NFD", "dächer_mask.png"), unicodedata.normalize("NFD", "Dächer")),
        ("a b.c1.jpg", "a b.c1.png", "a b.c1"),
        ("a.jpg b.png.jpg", "a.jpg b.png.png", "a.jpg b.png"),
    ],
)
def test_what_is_there_under_a_name_that_is_written_otherwise_is_not_said_to_be_missing(
    tmp_path: Path, image: str, mask: str, line: str
) -> None:
    dataset = open_dataset(options(data_set(tmp_path, image, mask, line), labels="camvid"), "train")
    assert [(pair.image, pair.mask) for pair in dataset.pairs] == [(f"JPEGImages/{image}", f"SegmentationClass/{mask}")]


@pytest.mark.parametrize("mask", ["a.gif", "a.jpg", "a_instance.png"])
def test_a_near_miss_is_named(tmp_path: Path, mask: str) -> None:
    message = refusal(data_set(tmp_path, "a.jpg", mask, "a"), labels="camvid")
    assert f"(SegmentationClass/a.png, where there is SegmentationClass/{mask})" in message


def test_a_manifest_with_backslashes_is_met_with_the_files_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg(8, 6))
    (tmp_path / "a.png").write_bytes(grey(1))
    rows = "image,mask,split\nimages\\a.jpg,a.png,train\nimages\\gone.jpg,..\\a.png,train\n"
    (tmp_path / "windows.csv").write_text(rows)
    message = refusal(tmp_path / "windows.csv", labels="camvid")
    assert "images\\a.jpg, where there is images/a.jpg" in message
    assert "images\\gone.jpg, ..\\a.png" in message, "what is not there, or leads out of the folder, is not proposed"


def test_of_two_files_that_a_name_can_mean_neither_is_taken(tmp_path: Path) -> None:
    data_set(tmp_path, "A.jpg", "a.png", "aa")
    data_set(tmp_path, "a.jpg", "A.png", "aA")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    assert open_dataset(options(tmp_path, labels="camvid"), "train").pairs[0].image == "JPEGImages/a.jpg"
    assert NearNames(["A", "a"], masks=False).find("a.jpg") == "a"
    assert NearNames(["IMG", "Img"], masks=False).find("img") is None


def test_one_image_under_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    data_set(tmp_path, "a.jpg", "a.png", "a\nA.jpg")
    assert "twice" in refusal(tmp_path, labels="camvid")


def test_a_manifest_means_its_keys_to_the_letter(tmp_path: Path) -> None:
    put(tmp_path, {"A.jpg": jpeg(8, 6), "a.png": grey(1), "m.csv": "image,mask,split\na.jpg,a.png,train\n"})
    with pytest.raises(InputError, match=r"a\.jpg"):
        open_dataset(options(tmp_path / "m.csv", labels="camvid"), "train")


def test_validation_images_that_sbd_lists_with_an_extension_are_still_kept_out_of_training(tmp_path: Path) -> None:
    for name in ("1", "2"):
        put(tmp_path, {f"JPEGImages/{name}.jpg": jpeg(8, 6), f"SegmentationClassAug/{name}.png": grey(1)})
    put(tmp_path, {"ImageSets/Segmentation/val.txt": "2.jpg\n", "ImageSets/Segmentation/train_aug.txt": "1\n2\n"})
    catalog = open_catalog(options(tmp_path, preset="sbd"))
    assert [pair.name for pair in catalog.split("train").pairs] == ["1"]


def test_folding_is_of_a_whole_name() -> None:
    assert folded("DÄCHER") == folded(unicodedata.normalize("NFD", "dächer"))
    assert plain_name("./JPEGImages/a.b.JPG") == "a.b"
    assert plain_name("a.2026") == "a.2026"
