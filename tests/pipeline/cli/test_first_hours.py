"""What a newcomer types first leads somewhere."""

import pydoc
import re
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from fcn_core import ModelBundle, Predictor, preset, resolve_settings
from pipeline.cli.app import app
from pipeline.cli.app import run as fcn
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.outputs.query import TABLES
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.reports import labelled_run
from tests.samples import fill


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


@pytest.mark.parametrize("given", [["--mean", "0.5,0.4,0.3"], ["--mean=0.5,0.4,0.3"], ["--mean", "0.5, 0.4, 0.3"]])
def test_three_numbers_with_commas_are_met_with_what_to_type(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = refused(capsys, "model", "import", "x.pth", "-o", "y", "--arch", "fcn8s", "--input", "imagenet", *given)
    assert "--mean takes 3 values as words of their own: --mean 0.5 0.4 0.3" in words


def test_the_overview_of_commands_names_every_table_that_can_be_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["query", "--help"]) == 0
    first = " ".join(capsys.readouterr().out.split("\n\n")[1].split())
    assert [table for table in TABLES if table not in first] == []


def test_a_row_of_many_columns_is_a_list_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = open_store(str(tmp_path / "labels"))
    labels = preset("camvid")
    labelled_run(output, open_store(str(tmp_path / "photos")), {"cam/0001.jpg": np.zeros((4, 4), np.uint8)}, labels)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    assert fcn(["query", output.uri, "SELECT * FROM current"]) == 0
    lines = plain(capsys.readouterr().out)
    (name,) = (line for line in lines if line.startswith("key "))
    assert name.split() == ["key", "cam/0001.jpg"]
    assert fcn(["query", output.uri, "SELECT key, confidence FROM current"]) == 0
    assert any(line.split() == ["key", "confidence"] for line in plain(capsys.readouterr().out))


def plain(text: str) -> list[str]:
    """The lines of what a terminal is sent, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_a_job_a_model_and_its_answers_are_shown_in_one_line(model_dir: Path) -> None:
    bundle = ModelBundle.load(model_dir)
    predictor = Predictor(str(model_dir), resolve_settings("cpu"))
    (found,) = predictor.predict([np.zeros((20, 30, 3), np.uint8)])
    shown = [repr(each) for each in (bundle, predictor, found)]
    assert all("\n" not in each and len(each) < 120 for each in shown)
    assert shown[2].startswith("<Segmentation 30x20, ")
    assert repr(SegmentJob(source="a", output="b", model="c", limit=3)) == (
        "SegmentJob(source='a', output='b', model='c', limit=3)"
    )


@pytest.mark.parametrize("job", [SegmentJob, EvaluateJob, TrainJob, RetrainJob])
def test_help_of_a_job_lists_its_options_and_what_they_mean(job: type[BaseModel]) -> None:
    text = " ".join(pydoc.plain(pydoc.render_doc(job)).replace("|", " ").split())
    for name, field in job.model_fields.items():
        assert name in text
        assert " ".join(str(field.description).split()) in text
    assert "AfterValidator" not in text.split("Options:")[0], "the signature has names and defaults alone"
    assert "Options:" not in str(job.model_json_schema().get("description")), "a form has fields of its own"


def test_a_relative_source_is_found_from_another_folder(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 2, size=(48, 32))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    job = SegmentJob(source="photos", output="labels", model=str(model_dir), device="cpu", actors=1, cpus_per_actor=1)
    (record,) = segment(job).runs
    assert record.job["source"] == str(tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fcn(["rank", str(tmp_path / "labels"), "--copy-to", "project"]) == 0
    assert len(list((tmp_path / "elsewhere" / "project").rglob("*.jpg"))) == 2
    assert fcn(["report", str(tmp_path / "labels"), "--file", "page.html"]) == 0
    assert "photos cannot be read" not in (tmp_path / "elsewhere" / "page.html").read_text()
    again = SegmentJob(**(job.model_dump() | {"source": "../photos", "output": "../labels"}))
    assert segment(again).runs == (), "and the same job by another way to the folder has nothing to do"
