"""`fcn data check` says what is wrong with a data set, `fcn data show` explains a pair and draws it; `fcn model export`
writes what ONNX Runtime opens."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.labels import encode_mask, preset
from fcn_core.render import colorize
from pipeline.cli.app import run as fcn
from tests.commands import refused
from tests.labelled import write_labelled
from tests.requires import requires
from tests.samples import jpeg


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A photo of 48x36 pixels and its VOC mask."""
    mask = np.zeros((36, 48), np.uint8)
    mask[10:20, 5:25] = 7
    (tmp_path / "photo.jpg").write_bytes(jpeg(48, 36))
    (tmp_path / "mask.png").write_bytes(encode_mask(mask, preset("voc")))
    Image.fromarray(colorize(mask, preset("voc"))).save(tmp_path / "colours.png")
    return str(tmp_path / "photo.jpg"), str(tmp_path / "mask.png")


def test_check_says_that_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(tmp_path, 2)
    assert fcn(["data", "check", str(tmp_path), "--preset", "camvid"]) == 0
    text = capsys.readouterr().out
    assert "label set camvid, 11 classes" in text
    assert "no problems" in text


def test_check_lists_problems_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(tmp_path, 3)
    (tmp_path / "JPEGImages/001.jpg").write_bytes(b"no image")
    (tmp_path / "SegmentationClass/002.png").unlink()
    assert fcn(["data", "check", str(tmp_path), "--labels", "camvid"]) == 2
    text = capsys.readouterr().out
    assert "JPEGImages/001.jpg" in text
    assert "SegmentationClass/002.png" in text
    assert "2 problems" in text
    assert fcn(["data", "check", str(tmp_path), "--labels", "camvid", "--json", "--split", "val"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert {finding["kind"] for finding in report["problems"]} == {"missing_mask", "unreadable_image"}
    assert report["splits"][0]["classes"][8]["class_name"] == "car"


# An endpoint that does not answer is tried with credentials only.
@pytest.mark.usefixtures("s3_endpoint", "hasty_storage")
def test_check_refuses_what_it_cannot_open_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(tmp_path, 1)
    for arguments, message in [
        ([tmp_path / "none", "--labels", "voc"], "does not exist"),
        ([tmp_path], "nothing says which classes"),
        ([tmp_path, "--preset", "voc2007"], "voc2007"),
        ([tmp_path, "--labels", "voc", "--mask-coding", "colour"], "colour"),
        ([tmp_path, "--labels", "voc", "--split", "train"], "has no split 'train' (it has 'val')"),
        (["s3://nowhere/set?endpoint_url=http://127.0.0.1:9", "--labels", "voc"], "cannot be reached"),
    ]:
        assert message in refused(capsys, "data", "check", *arguments)


def test_check_lets_no_file_name_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(tmp_path, 1)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("000\na\x1b[2J\n")
    assert fcn(["data", "check", str(tmp_path), "--labels", "camvid"]) == 2
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert r"a\x1b[2J" in text


def test_show_explains_the_pair_and_draws_it(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fcn(["data", "show", *pair, "--labels", "voc", "-o", str(tmp_path / "look.png")]) == 0
    text = capsys.readouterr().out
    assert "uint8 [36, 48, 3]" in text
    assert "uint8 [36, 48] = [H, W]" in text
    assert "7  car" in text
    assert "Nothing is wrong" in text
    assert Image.open(tmp_path / "look.png").width > 1000


def test_show_names_the_picture_after_the_photo(
    pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fcn(["data", "show", "photo.jpg", "colours.png"]) == 0
    assert "indices_from_rgb" in capsys.readouterr().out
    assert (tmp_path / "photo.pair.png").exists()


def test_show_refuses_what_is_no_pair_of_images(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "words.png").write_text("words")
    for arguments, message in [
        ([pair[0], str(tmp_path / "words.png")], "words.png is not an image"),
        ([pair[0], str(tmp_path / "none.png")], "none.png"),
        ([*pair, "--labels", "voc2007"], "there is no label set 'voc2007'"),
        ([*pair, "-o", str(tmp_path / "no" / "where.png")], "cannot write the picture"),
    ]:
        assert fcn(["data", "show", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow  # what is written is tests/fcn_core/inference/test_onnx_export.py's
def test_model_export_writes_a_model_that_onnx_runtime_opens(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    onnxruntime = import_onnxruntime()

    target = tmp_path / "model.onnx"
    assert fcn(["model", "export", str(model_dir), "-o", str(target)]) == 0
    assert "compared with the model" in capsys.readouterr().out
    (mask,) = onnxruntime.InferenceSession(target).run(["mask"], {"image": np.zeros((1, 20, 30, 3), np.uint8)})
    assert mask.shape == (1, 20, 30)
    assert (tmp_path / "model.onnx.json").exists()


def test_model_export_into_no_folder_is_refused(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    assert "is not a folder" in refused(capsys, "model", "export", model_dir, "-o", tmp_path / "no" / "model.onnx")
