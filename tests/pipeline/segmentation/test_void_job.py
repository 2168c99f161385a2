"""A job with --void-below: a variant of its own, whose void pixels are in masks, tables, report and comparisons."""

from pathlib import Path

import numpy as np
import pytest

from fcn_core.labels import VOID, decode_mask
from pipeline.audit.plan import PlanOptions, plan_audit
from pipeline.cli.app import run as fcn
from pipeline.errors import InputError
from pipeline.evaluation.job import evaluate
from pipeline.insight.compare import compare
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.labels import read_labels
from pipeline.outputs.results import read_class_totals
from pipeline.outputs.runs import RunRecord
from pipeline.outputs.verify import Verified, verify
from pipeline.report.make import report_key
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.in_process import evaluate_in_process, segment_in_process
from tests.labelled import write_labelled
from tests.samples import fill

BELOW = 0.5
FIXED = {"device": "cpu", "precision": "float32", "actors": 1, "cpus_per_actor": 1, "engine": "torch"}


@pytest.fixture(scope="module")
def runs(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunRecord, RunRecord]:
    """An output with all pixels in a class, then with those void that are unsure."""
    folder = tmp_path_factory.mktemp("void")
    fill(folder / "photos", 4)
    job = SegmentJob.model_validate(
        {"source": str(folder / "photos"), "output": str(folder / "labels"), "model": str(model_dir), **FIXED}
    )
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        (plain,) = segment(job).runs
        (void,) = segment(job.model_copy(update={"void_below": BELOW})).runs
    return open_store(str(folder / "labels")), plain, void


def test_it_is_a_variant_of_its_own_that_verify_finds_sound(runs: tuple[Store, RunRecord, RunRecord]) -> None:
    output, plain, void = runs
    assert (void.images, void.counts.ok) == (4, 4), "every image is segmented anew"
    assert plain.recipe != void.recipe
    assert list(verify(output, Verified())) == []


def test_masks_differ_in_void_pixels_alone(runs: tuple[Store, RunRecord, RunRecord]) -> None:
    output, plain, void = runs
    masks = [
        {row["key"]: decode_mask(output.get(row["mask_key"])) for row in read_current(output, variant=v).to_pylist()}
        for v in (plain.recipe, void.recipe)
    ]
    for key, mask in masks[1].items():
        assert (mask == np.where(mask == VOID, VOID, masks[0][key])).all()
    assert any((mask == VOID).any() for mask in masks[1].values())
    assert not any((mask == VOID).any() for mask in masks[0].values())


def test_totals_and_report_count_void(runs: tuple[Store, RunRecord, RunRecord], model_dir: Path) -> None:
    output, plain, void = runs
    *classes, last = read_class_totals(output, void.run_id)
    assert (last.class_id, last.class_name) == (VOID, "void")
    assert last.pixels + sum(total.pixels for total in classes) == 4 * 96 * 72
    page = output.get(report_key(void.run_id)).decode()
    assert ">void<" in page
    assert ">void<" not in output.get(report_key(plain.run_id)).decode()


def test_the_classes_of_the_run_are_the_models(runs: tuple[Store, RunRecord, RunRecord]) -> None:
    output, plain, void = runs
    assert read_labels(output, void).names == read_labels(output, plain).names


def test_comparisons_take_void_for_a_class_either_way_round(runs: tuple[Store, RunRecord, RunRecord]) -> None:
    output, plain, void = runs
    there, back = compare(output, plain.run_id, void.run_id), compare(output, void.run_id, plain.run_id)
    share = read_class_totals(output, void.run_id)[-1].fraction
    assert there.same.pixels == pytest.approx(1 - share)
    assert (there.same.pixels, there.same.mean_iou) == (
        back.same.pixels,
        back.same.mean_iou,
    )


def test_an_audit_refuses_a_variant_with_void(runs: tuple[Store, RunRecord, RunRecord]) -> None:
    output, _, void = runs
    with pytest.raises(InputError, match=r"leaves pixels without a class \(--void-below 0\.5\)"):
        plan_audit(output, None, PlanOptions(n=2, recipe=void.recipe))


def test_void_predictions_count_as_wrong(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_in_process(monkeypatch)
    write_labelled(tmp_path / "data", 6)
    job = EvaluateJob.model_validate(
        {"model": str(model_dir), "dataset": str(tmp_path / "data"), "labels": "camvid", **FIXED}
    )
    plain, void = (
        evaluate(job),
        evaluate(job.model_copy(update={"void_below": BELOW, "output": str(tmp_path / "scores")})),
    )
    assert plain.record.void == ()
    assert void.scores.pixels == plain.scores.pixels
    assert void.record.truths.tolist() == plain.record.truths.tolist()
    assert sum(void.record.void) + void.confusion.sum() == plain.confusion.sum()
    assert void.scores.pixel_accuracy == void.confusion.trace() / plain.confusion.sum()
    assert void.record.params_id != plain.record.params_id
    header = (tmp_path / "scores" / "confusion.csv").read_text().splitlines()[0]
    assert header.endswith(",void")


def test_a_preview_shows_what_is_void(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "photos", 1)
    words = ["preview", str(tmp_path / "photos" / "0000.jpg"), "--model", str(model_dir), "-o", str(tmp_path / "a.png")]
    assert fcn(words) == 0
    assert "void" not in capsys.readouterr().err
    assert fcn([*words, "--void-below", str(BELOW)]) == 0
    assert "void" in capsys.readouterr().err
    assert fcn([*words, "--void-below", "60"]) == 2
