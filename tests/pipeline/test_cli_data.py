"""`fcn data show` explains a pair and draws it; `fcn model export` writes what ONNX Runtime opens."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core.labels import encode_mask, preset
from fcn_core.render import colorize
from pipeline.cli import run as fcn
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


def test_model_export_writes_a_model_that_onnx_runtime_opens(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    target = tmp_path / "model.onnx"
    assert fcn(["model", "export", str(model_dir), "-o", str(target)]) == 0
    assert "compared with the model" in capsys.readouterr().out
    (mask,) = onnxruntime.InferenceSession(target).run(["mask"], {"image": np.zeros((1, 20, 30, 3), np.uint8)})
    assert mask.shape == (1, 20, 30)
    assert (tmp_path / "model.onnx.json").exists()
    assert fcn(["model", "export", str(model_dir), "-o", str(tmp_path / "no" / "model.onnx")]) == 2
    assert "is not a folder" in capsys.readouterr().err
