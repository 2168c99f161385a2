"""What a newcomer types first leads somewhere."""

from pathlib import Path

import pytest

from pipeline.cli.app import app
from tests.commands import refused


def test_a_mask_can_be_written_to_a_file_that_is_named(tmp_path: Path) -> None:
    _, bound, _ = app.parse_args(["masks", "get", "OUT", "a.jpg", "--output", str(tmp_path / "x.png")])
    assert bound.args[:2] == ("OUT", "a.jpg")
    assert bound.kwargs["file"] == tmp_path / "x.png"


def test_gpu_is_taken_for_cuda(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean cuda?" in refused(capsys, "segment", "a", "b", "--model", "m", "--device", "gpu")


def test_the_name_of_published_weights_is_met_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert "fcn model get fcn_resnet50 -o fcn_resnet50" in refused(
        capsys, "segment", "photos", "out", "--model", "fcn_resnet50"
    )


def test_a_folder_is_no_image_to_preview(tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    assert "is a folder" in refused(capsys, "preview", tmp_path / "photos", "--model", model_dir)


def test_tiles_that_are_too_small_are_refused_with_the_smallest_that_works() -> None:
    from fcn_core.inference.settings import SMALLEST_TILE, resolve_settings

    with pytest.raises(ValueError, match=rf"^tile_pixels is 9, and the smallest .* has {SMALLEST_TILE} pixels$"):
        resolve_settings("cpu", tile_pixels=9)
