"""Images that are no part of a run: previews, calibration, `data show` and `data check` decode them where a run does;
training, which decodes beside its credentials, is bounded.
"""

import io
import struct
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image

from fcn_core import preset
from fcn_core.data.datasets import Pair, Pairs
from fcn_core.data.picture_files import read_mask_file
from fcn_core.decoding import decode, image
from fcn_core.errors import DataError, DecodeError
from fcn_core.labels import encode_mask
from pipeline.cli.app import run as fcn
from pipeline.data.check import check_dataset
from pipeline.jobs.dataset import DatasetOptions
from pipeline.segmentation.calibration import sample_images
from tests.labelled import write_labelled
from tests.samples import jpeg

SCANS = 40_000


def endless(scans: int = SCANS) -> bytes:
    """A progressive JPEG whose last scan comes again and again. Of a large picture, that takes a decoder minutes."""
    sink = io.BytesIO()
    Image.new("L", (64, 64), 128).save(sink, "JPEG", progressive=True)
    data = sink.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + b"\xff\xd9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set whose first image is endless."""
    place = tmp_path / "set"
    write_labelled(place, 3)
    (place / "JPEGImages/000.jpg").write_bytes(endless())
    return place


def test_a_preview_of_an_endless_image_is_refused(
    folder: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(folder / "JPEGImages/000.jpg")
    assert fcn(["preview", photo, "--model", str(model_dir), "-o", str(tmp_path / "look.png")]) == 2
    assert "more than 500 scans" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["photo", "mask"])
def test_an_endless_image_is_not_shown(
    place: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(folder / f"JPEGImages/{'000' if place == 'photo' else '001'}.jpg")
    mask = str(folder / ("JPEGImages/000.jpg" if place == "mask" else "SegmentationClass/000.png"))
    assert fcn(["data", "show", photo, mask, "-o", str(tmp_path / "look.png")]) == 2
    assert "more than 500 scans" in capsys.readouterr().err


def test_an_endless_image_is_a_finding_of_the_check_and_passed_over_by_calibration(folder: Path) -> None:
    report = check_dataset(DatasetOptions(dataset=str(folder), labels="camvid"))
    (found,) = [each for each in report.problems if each.kind == "unreadable_image"]
    assert "more than 500 scans" in found.examples[0]
    assert len(sample_images(str(folder / "JPEGImages"), 3)) == 2


def test_training_refuses_an_endless_image() -> None:
    files = {"a.jpg": endless(), "a.png": encode_mask(np.zeros((64, 64), np.uint8), preset("voc"))}
    with pytest.raises(DataError, match="more than 500 scans"):
        Pairs(files.__getitem__, [Pair("a", "a.jpg", "a.png")], preset("voc"))[0]


def test_a_large_image_may_have_fewer_scans() -> None:
    large = bytearray(endless(100))
    at = next(at for at in range(len(large)) if large[at : at + 2] == b"\xff\xc2")
    large[at + 5 : at + 9] = struct.pack(">HH", 9_000, 9_000)
    with pytest.raises(DecodeError, match="more than 61 scans"):
        decode(bytes(large))
    with pytest.raises(DataError, match="more than 61 scans"):
        read_mask_file(bytes(large), "mask.jpg")


def test_a_tiff_s_strip_may_have_no_more_scans_than_a_file() -> None:
    strip = endless(600)
    tags = {256: 64, 257: 64, 258: 8, 259: 7, 262: 1, 273: 8, 277: 1, 278: 64, 279: len(strip)}
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    tiff = b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + b"\0\0\0\0"
    with pytest.raises(DecodeError, match="more than 500 scans"):
        decode(tiff)


def test_no_image_is_decoded_in_a_process_with_credentials_but_for_training(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "set"
    write_labelled(place, 2)
    photo, mask = place / "JPEGImages/000.jpg", place / "SegmentationClass/000.png"

    def here(*arguments: object) -> NoReturn:
        raise AssertionError("it is decoded here")

    monkeypatch.setattr(image, "_read", here)
    with pytest.raises(DecodeError):
        decode(jpeg(8, 8))
    assert fcn(["preview", str(photo), "--model", str(model_dir), "-o", str(tmp_path / "look.png")]) == 0
    assert fcn(["data", "show", str(photo), str(mask), "-o", str(tmp_path / "pair.png")]) == 0
    assert not check_dataset(DatasetOptions(dataset=str(place), labels="camvid")).problems
    assert len(sample_images(str(photo.parent), 2)) == 2
