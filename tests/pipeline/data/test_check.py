"""A check names every fault of a data set, with its file, and finds none where there is none."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from fcn_core.decoding import decode, turned
from fcn_core.labels import decode_mask, encode_mask
from fcn_core.render import colorize
from pipeline.data.check import check_dataset
from pipeline.data.report import EXPLANATIONS, WARNINGS, DataReport, describe
from pipeline.data.stored_files import StoredFiles
from pipeline.errors import InputError, StorageUnavailable
from pipeline.jobs.dataset import DatasetOptions
from tests.fcn_core.data.sbd_files import sbd_file
from tests.labelled import LABELS, truth, write_labelled
from tests.samples import jpeg, photo

SIZE = (40, 30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits without a fault: train 000-005, val 006-007; every class occurs in both."""
    write_labelled(tmp_path, 8, sizes=[SIZE])
    for index in range(8):
        mask = truth(*SIZE, index)
        mask[0, : LABELS.num_classes] = range(LABELS.num_classes)
        (tmp_path / f"SegmentationClass/{index:03d}.png").write_bytes(encode_mask(mask, LABELS))
    lists = tmp_path / "ImageSets/Segmentation"
    (lists / "train.txt").write_text("".join(f"{index:03d}\n" for index in range(6)))
    (lists / "val.txt").write_text("006\n007\n")
    return tmp_path


def check(folder: Path | str, *splits: str, **changes: object) -> DataReport:
    options = DatasetOptions.model_validate({"dataset": str(folder), "labels": "camvid", **changes})
    return check_dataset(options, splits or None)


def found(report: DataReport) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(f.kind, f.split): f.examples for f in (*report.problems, *report.warnings)}


def test_a_sound_data_set_has_no_findings_and_true_counts(folder: Path) -> None:
    report = check(folder)
    assert report.ok
    assert found(report) == {}
    train, val = report.splits
    assert (train.name, train.listed, train.usable) == ("train", 6, 6)
    assert (val.name, val.listed, val.usable) == ("val", 2, 2)
    masks = [decode_mask((folder / f"SegmentationClass/{i:03d}.png").read_bytes()) for i in range(6)]
    counts = sum(np.bincount(mask.ravel(), minlength=256) for mask in masks)
    assert [item.pixels for item in train.classes] == counts[: LABELS.num_classes].tolist()
    assert [item.images for item in train.classes] == [sum((m == c).any() for m in masks) for c in range(11)]
    assert train.ignored_pixels == counts[255]
    assert train.pixels == 6 * SIZE[0] * SIZE[1]


def _jpeg(folder: Path, name: str) -> Path:
    return folder / f"JPEGImages/{name}.jpg"


def _mask(folder: Path, name: str) -> Path:
    return folder / f"SegmentationClass/{name}.png"


def _list(folder: Path, split: str, text: str) -> None:
    with (folder / f"ImageSets/Segmentation/{split}.txt").open("a") as file:
        file.write(text)


def _save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path, "PNG")


def _pixels(path: Path) -> np.ndarray:
    return decode(path.read_bytes()).pixels


def _save_jpeg(folder: Path, name: str, array: np.ndarray) -> None:
    Image.fromarray(array).save(_jpeg(folder, name), "JPEG", quality=90)


def _smooth(folder: Path) -> None:
    colors = Image.fromarray(colorize(truth(*SIZE, 1), LABELS))
    colors.rotate(5, resample=Image.Resampling.BILINEAR).save(_mask(folder, "001"))


def _turned(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(*SIZE, 77)).save(_jpeg(folder, "001"), exif=exif)


BROKEN: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "no image": (lambda f: _jpeg(f, "001").unlink(), "missing_image", "train", "JPEGImages/001.jpg"),
    "no mask": (lambda f: _mask(f, "006").unlink(), "missing_mask", "val", "SegmentationClass/006.png"),
    "two images": (
        lambda f: shutil.copy(_mask(f, "001"), f / "JPEGImages" / "001.png"),
        "two_files",
        "train",
        "JPEGImages/001.jpg and JPEGImages/001.png",
    ),
    "two masks": (
        lambda f: shutil.copy(_mask(f, "001"), f / "SegmentationClass" / "001.PNG"),
        "two_files",
        "train",
        "SegmentationClass/001.PNG and SegmentationClass/001.png",
    ),
    "cut image": (lambda f: os.truncate(_jpeg(f, "001"), 300), "unreadable_image", "train", "JPEGImages/001.jpg"),
    "cut mask": (lambda f: os.truncate(_mask(f, "001"), 60), "unreadable_mask", "train", "001.png: .* damaged PNG"),
    "jpeg mask": (lambda f: shutil.copy(_jpeg(f, "001"), _mask(f, "001")), "unreadable_mask", "train", "is a JPEG"),
    "small mask": (
        lambda f: _mask(f, "001").write_bytes(encode_mask(truth(20, 15, 1), LABELS)),
        "size_mismatch",
        "train",
        "001.png: 20x15, its image 40x30$",
    ),
    "turned photo": (_turned, "size_mismatch", "train", "001.png: 40x30, its image 30x40, turned by its EXIF"),
    "void is 11": (
        lambda f: _save(_mask(f, "001"), np.full(SIZE[::-1], 11, np.uint8)),
        "illegal_values",
        "train",
        r"001.png: 11 \(1,200 pixels\)",
    ),
    "smooth colours": (_smooth, "unknown_colors", "train", "001.png: the mask has colours that label set 'camvid'"),
    "black and white": (
        lambda f: _save(_mask(f, "001"), np.tile(np.array([0, 255], np.uint8), (SIZE[1], SIZE[0] // 2))),
        "black_and_white",
        "train",
        "001.png: .*only 0 and 255",
    ),
    "packed colours": (
        lambda f: Image.fromarray(colorize(truth(*SIZE, 1), LABELS)).quantize(16).save(_mask(f, "001")),
        "other_palette",
        "train",
        "001.png: .*palette",
    ),
    "listed twice": (lambda f: _list(f, "train", "001\n"), "listed_twice", "train", "001"),
    "leak by name": (lambda f: _list(f, "val", "001\n"), "name_in_two_splits", "val", r"001 \(also in train\)"),
    "leak by bytes": (
        lambda f: shutil.copy(_jpeg(f, "001"), _jpeg(f, "007")),
        "image_in_two_splits",
        "val",
        "007 is 001 in train",
    ),
    "leak by pixels": (
        lambda f: _save(f / "JPEGImages/007.png", _pixels(_jpeg(f, "001"))) or _jpeg(f, "007").unlink(),
        "image_in_two_splits",
        "val",
        "007 is 001 in train",
    ),
    "leak with a byte after its end": (
        lambda f: _jpeg(f, "007").write_bytes(_jpeg(f, "001").read_bytes() + b"\n"),
        "image_in_two_splits",
        "val",
        "007 is 001 in train",
    ),
    "leak compressed anew": (
        lambda f: Image.open(_jpeg(f, "001")).save(_jpeg(f, "007"), "JPEG", quality=60),
        "similar_in_two_splits",
        "val",
        "007 looks like 001 in train",
    ),
    "leak mirrored": (
        lambda f: _save_jpeg(f, "007", _pixels(_jpeg(f, "001"))[:, ::-1]),
        "similar_in_two_splits",
        "val",
        "007 looks like 001 in train",
    ),
    "empty list": (lambda f: _list(f, "test", "\n"), "empty_split", "test", "test"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_fault_is_named_with_its_file_and_nothing_else_is(folder: Path, how: str) -> None:
    spoil, kind, split, named = BROKEN[how]
    spoil(folder)
    report = check(folder)
    assert report.ok == (kind in WARNINGS)
    problems = {(finding.kind, finding.split): finding for finding in report.problems or report.warnings}
    assert list(problems) == [(kind, split)]
    assert problems[kind, split].count == 1
    (example,) = problems[kind, split].examples
    assert re.search(named, example), example


def test_colours_are_no_fault_unless_indices_were_asked_for(folder: Path) -> None:
    _save(_mask(folder, "001"), colorize(truth(*SIZE, 1), LABELS))
    assert check(folder).ok
    report = check(folder, mask_coding="index")
    assert list(found(report)) == [("colors_for_indices", "train")]
    assert not report.ok


def test_warnings_alone_leave_a_data_set_sound(folder: Path) -> None:
    _mask(folder, "006").write_bytes(encode_mask(np.full(SIZE[::-1], 255, np.uint8), LABELS))
    mask = decode_mask(_mask(folder, "007").read_bytes())
    mask[mask == 8] = 255
    _mask(folder, "007").write_bytes(encode_mask(mask, LABELS))
    shutil.copy(_jpeg(folder, "000"), _jpeg(folder, "001"))
    report = check(folder)
    assert report.ok
    assert found(report) == {
        ("repeated_image", "train"): ("001 is 000",),
        ("empty_mask", "val"): ("SegmentationClass/006.png",),
        ("absent_class", "val"): ("car",),
    }


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("is_turned", [True, False])
def test_a_mask_that_was_not_turned_with_its_image_is_told_by_its_edges(
    folder: Path, orientation: int, is_turned: bool
) -> None:
    """Square, or turned by 180 degrees, so that sizes do not tell. 0.1 trained on each such mask upside down."""
    mask = np.zeros((48, 48), np.uint8)
    mask[5:20, 8:40] = 1
    mask[30:, :10] = 2
    image = np.array([[60, 70, 80], [200, 40, 40], [90, 200, 90]], np.uint8)[mask]
    image = np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(_jpeg(folder, "001"), quality=90, exif=exif)
    drawn = turned(mask, orientation) if is_turned else mask
    _mask(folder, "001").write_bytes(encode_mask(drawn, LABELS))
    report = check(folder)
    assert report.ok
    warned = {kind: examples for (kind, _), examples in found(report).items()}
    assert warned["turned_image"] == (f"JPEGImages/001.jpg (EXIF orientation {orientation})",)
    named = f"SegmentationClass/001.png, of JPEGImages/001.jpg (EXIF orientation {orientation})"
    assert warned.get("mask_not_turned", ()) == (() if is_turned else (named,))


def test_many_faults_are_counted_and_a_few_spelled_out(folder: Path) -> None:
    for index in range(6):
        _mask(folder, f"00{index}").write_bytes(b"")
    options = DatasetOptions(dataset=str(folder), labels="camvid")
    finding = next(f for f in check_dataset(options, examples=2).problems if f.kind == "unreadable_mask")
    assert (finding.count, len(finding.examples)) == (6, 2)
    assert "    and 4 more" in list(describe(check_dataset(options, examples=2)))


def test_a_list_that_sums_up_others_is_no_leak(folder: Path) -> None:
    _list(folder, "trainval", "".join(f"00{index}\n" for index in range(8)))
    report = check(folder)
    assert report.ok
    assert [split.name for split in report.splits] == ["train", "val"]
    assert report.notes == ("split trainval is train + val together and was not read again",)
    asked = check(folder, "train", "trainval")
    assert ("name_in_two_splits", "trainval") in found(asked), "asked for both, one hears what they share"


def test_a_train_that_lists_all_of_val_and_another_split_is_a_leak_and_no_sum(folder: Path) -> None:
    lists = folder / "ImageSets/Segmentation"
    (lists / "extra.txt").write_text("".join(f"00{index}\n" for index in range(6)))
    (lists / "train.txt").write_text("".join(f"00{index}\n" for index in range(8)))
    report = check(folder)
    assert ("name_in_two_splits", "val") in found(report)
    assert not report.ok
    assert report.notes == ()


def test_images_of_one_colour_are_no_leak(folder: Path) -> None:
    for name in ("001", "007"):
        Image.fromarray(np.full((*SIZE[::-1], 3), 40, np.uint8)).save(_jpeg(folder, name))
    assert found(check(folder)) == {}


def test_only_the_splits_that_are_asked_for_are_read(folder: Path) -> None:
    _mask(folder, "006").unlink()
    assert check(folder, "train").ok
    with pytest.raises(InputError, match=r"no split 'test' \(it has 'train', 'val'\)"):
        check(folder, "test")


def test_the_removed_validation_images_of_sbd_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "img").mkdir(exist_ok=True)
        (tmp_path / "cls").mkdir(exist_ok=True)
        (tmp_path / f"img/{name}.jpg").write_bytes(jpeg(8, 6, ord(name)))
        (tmp_path / f"cls/{name}.mat").write_bytes(sbd_file(np.ones((6, 8), np.uint8)))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    report = check(tmp_path, labels=None, preset="sbd")
    assert report.ok
    assert report.notes == ("split train: 1 of VOC's validation images are left out of split train",)
    assert report.splits[0].usable == 1


def test_a_bucket_is_checked_like_a_folder(bucket: str, folder: Path) -> None:
    _mask(folder, "001").write_bytes(b"")
    for path in folder.rglob("*.*"):
        boto3.client("s3").upload_file(str(path), bucket, f"set/{path.relative_to(folder)}")
    from_bucket, from_folder = check(f"s3://{bucket}/set"), check(folder)
    assert from_bucket.problems == from_folder.problems
    assert from_bucket.splits == from_folder.splits


def test_progress_counts_every_pair(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    options = DatasetOptions(dataset=str(folder), labels="camvid")
    check_dataset(options, on_image=lambda done, total: told.append((done, total)))
    assert told == [(done, 8) for done in range(1, 9)]


def test_a_person_reads_what_it_is_and_what_to_do(folder: Path) -> None:
    _mask(folder, "001").write_bytes(b"")
    lines = list(describe(check(folder)))
    what, remedy = EXPLANATIONS["unreadable_mask"]
    assert f"problem unreadable_mask in split train (1): {what}; {remedy}" in lines
    assert any("SegmentationClass/001.png" in line for line in lines)
    assert lines[-1] == "1 problem, no warnings"
    assert any(line.startswith("  8 car") for line in lines)


@pytest.mark.parametrize("kind", ["JPEGImages", "SegmentationClass"])
def test_storage_that_stops_answering_is_no_fault_of_the_files(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = StoredFiles.__call__

    def out_of_reach(files: StoredFiles, key: str) -> bytes:
        if key == f"{kind}/003.{'jpg' if kind == 'JPEGImages' else 'png'}":
            raise StorageUnavailable("the bucket does not answer")
        return read(files, key)

    monkeypatch.setattr(StoredFiles, "__call__", out_of_reach)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        check(folder)
