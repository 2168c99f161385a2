"""An evaluation: the scores are those of one process, whatever happens on the way, and broken examples are named.

What is about actors runs on real Ray; the rest runs the same code in this process, since actors take seconds to start.
"""

import contextlib
import io
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fcn_core import LabelSet, ModelBundle, PredictorSettings, preset
from fcn_core.data.datasets import Pairs
from fcn_core.inference.evaluation import evaluate as evaluate_here
from fcn_core.labels import encode_mask
from fcn_core.metrics import Scores
from fcn_core.render import colorize
from pipeline.actors import shard_runner
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.data.datasets import open_dataset
from pipeline.errors import InputError, ObjectExists, StorageError
from pipeline.evaluation import job as evaluation
from pipeline.evaluation.evaluator import Evaluator, ShardScores
from pipeline.evaluation.files import ExampleRow, examples_digest, images_table, read_evaluation
from pipeline.evaluation.job import BrokenExamples, EvaluateReport, EvaluationStopped, evaluate
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.outputs.runs import Progress
from pipeline.outputs.shard import Shard
from pipeline.storage.opening import open_store
from tests.in_process import InProcess
from tests.labelled import LABELS, truth, write_labelled
from tests.samples import encode, jpeg, model

pytestmark = pytest.mark.usefixtures("ray_cluster")

COUNT = 22


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    write_labelled(folder, COUNT)
    return folder


def job_for(model_dir: Path, data: Path | str, **options: object) -> EvaluateJob:
    defaults: dict[str, object] = {
        "labels": "camvid", "device": "cpu", "precision": "float32", "actors": 1, "cpus_per_actor": 1,
    }  # fmt: skip
    return EvaluateJob.model_validate({"model": str(model_dir), "dataset": str(data)} | defaults | options)


def dataset_of(job: EvaluateJob) -> Pairs:
    return open_dataset(job.dataset_options(), job.split)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_runner, "ShardPool", InProcess)


@pytest.fixture(scope="module")
def scored(
    ray_cluster: None, model_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[EvaluateReport, Path]:
    """An evaluation of the data, and the folder that it was written to."""
    folder = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_runner, "ShardPool", InProcess)
        return evaluate(job_for(model_dir, data, output=str(folder), batch_size=3)), folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("batch_size", "shard_size"), [(1, 5), (3, 16)])
def test_the_scores_are_exactly_those_of_one_process(
    in_process: None, model_dir: Path, data: Path, batch_size: int, shard_size: int
) -> None:
    heard = Listener()
    report = evaluate(job_for(model_dir, data, batch_size=batch_size, shard_size=shard_size), heard)
    assert heard.last is not None
    assert (heard.last.shards_done, heard.last.done) == (heard.last.shards, COUNT), "it ends at its end"
    assert report.scores == scores_here(model_dir, data, report)
    assert report.images == COUNT
    assert report.record.settings.batch_size == batch_size
    assert report.scores.mean_iou is not None
    assert report.confusion.dtype == np.int64
    assert report.confusion.sum() == report.scores.pixels


def scores_here(model_dir: Path, data: Path, report: EvaluateReport) -> Scores:
    return evaluate_here(ModelBundle.load(model_dir), dataset_of(job_for(model_dir, data)), report.record.settings)


class Listener(Observer):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.errors: dict[str, str] = {}
        self.done = 0
        self.last: Progress | None = None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: Progress) -> None:
        self.last = progress

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        self.done = done
        self.errors |= {example.key: example.reason for example in outcome.examples}


class DiesOnce(Evaluator):
    """Takes its whole process down at shard 1, the first time anybody gets it."""

    def process(self, shard: Shard) -> ShardScores:
        if shard.number == 1:
            with contextlib.suppress(ObjectExists):
                self.dataset.read.places.root.create("died", b"")  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGKILL)
        return super().process(shard)


@pytest.mark.timeout(900)
def test_a_bucket_on_two_actors_of_which_one_dies_gives_the_scores_and_the_digest_of_a_folder(
    scored: tuple[EvaluateReport, Path],
    model_dir: Path,
    data: Path,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = f"s3://{bucket}/data"
    write_labelled(place, COUNT)
    options = {"output": f"s3://{bucket}/scores", "cache": str(tmp_path / "cache")}
    listener = Listener()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "Evaluator", DiesOnce)
        job = job_for(model_dir, place, **options, batch_size=3, shard_size=4, actors=2, gpus_per_actor=0.5)
        there = evaluate(job, listener)
    assert open_store(place).get("died") == b""
    assert listener.last is not None
    assert listener.last.restarts >= 1
    assert there.scores == scores_here(model_dir, data, there)
    assert read_evaluation(open_store(f"s3://{bucket}/scores")) == there.record
    here, _ = scored
    assert there.record.same_examples(here.record)
    assert there.table == here.table


def test_the_files_are_the_same_bytes_however_the_split_is_cut(
    in_process: None, model_dir: Path, data: Path, tmp_path: Path
) -> None:
    for name, options in (("one", {}), ("two", {"actors": 2, "shard_size": 4})):
        evaluate(job_for(model_dir, data, output=str(tmp_path / name), batch_size=2, **options))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert sorted(files_of(tmp_path / "one")) == [
        "confusion.csv", "images.parquet", "index.html", "scores.json", "worst.png",
    ]  # fmt: skip


def test_the_rows_of_the_images_add_up_to_the_scores(scored: tuple[EvaluateReport, Path]) -> None:
    report, folder = scored
    rows = pq.read_table(io.BytesIO((folder / str(report.per_image)).read_bytes())).to_pylist()
    assert [row["name"] for row in rows] == [f"{index:03d}" for index in range(COUNT)]
    assert rows[2]["image"] == "JPEGImages/002.jpg"
    assert rows[2]["mask"] == "SegmentationClass/002.png"
    sums = np.zeros((3, LABELS.num_classes), np.int64)
    for index, row in enumerate(rows):
        expected = truth(row["width"], row["height"], index)
        labelled = np.bincount(expected.ravel(), minlength=256)[: LABELS.num_classes]
        assert row["labelled_pixels"] == labelled.sum()
        assert {c["class_id"]: c["truth_pixels"] for c in row["classes"] if c["truth_pixels"]} == {
            int(k): int(labelled[k]) for k in np.flatnonzero(labelled)
        }
        assert row["mean_iou"] == pytest.approx(
            np.mean([c["intersection_pixels"] / c["union_pixels"] for c in row["classes"]])
        )
        right = sum(c["intersection_pixels"] for c in row["classes"])
        assert row["pixel_accuracy"] == pytest.approx(right / row["labelled_pixels"])
        assert 1 / LABELS.num_classes <= row["confidence"] <= 1
        for c in row["classes"]:
            assert c["class_name"] == LABELS.names[c["class_id"]]
            sums[:, c["class_id"]] += c["truth_pixels"], c["intersection_pixels"], c["union_pixels"]
    counts = report.confusion
    assert (sums[0] == counts.sum(1)).all()
    assert (sums[1] == np.diag(counts)).all()
    assert (sums[2] == counts.sum(1) + counts.sum(0) - np.diag(counts)).all()


def test_what_is_written_can_be_read_and_says_what_was_scored(
    scored: tuple[EvaluateReport, Path], model_dir: Path, data: Path
) -> None:
    report, folder = scored
    record = read_evaluation(open_store(str(folder)))
    assert record == report.record
    assert record.model_id == ModelBundle.load(model_dir).model_id
    assert (record.dataset, record.split, record.examples, record.errors) == (str(data), "val", COUNT, ())
    assert np.array_equal(np.array(record.confusion), report.confusion)
    lines = (folder / "confusion.csv").read_text().splitlines()
    assert lines[0] == "truth," + ",".join(LABELS.names)
    assert [line.split(",")[0] for line in lines[1:]] == list(LABELS.names)
    assert [[int(n) for n in line.split(",")[1:]] for line in lines[1:]] == report.confusion.tolist()


def test_the_worst_images_are_drawn_with_truth_and_prediction(
    in_process: None, model_dir: Path, data: Path, tmp_path: Path
) -> None:
    for count in (1, 4):
        report = evaluate(job_for(model_dir, data, output=str(tmp_path), worst=count, shard_size=4))
        assert report.contact_sheet == "worst.png"
        sheet = Image.open(tmp_path / "worst.png")
        assert sheet.width > 3 * 320 * min(count, 2)
    none = evaluate(job_for(model_dir, data, output=str(tmp_path), worst=0))
    assert none.contact_sheet is None
    assert not (tmp_path / "worst.png").exists(), "the sheet of an earlier evaluation does not stay"


def test_without_an_output_nothing_is_written(in_process: None, model_dir: Path, data: Path) -> None:
    before = sorted(data.rglob("*"))
    report = evaluate(job_for(model_dir, data))
    assert (report.per_image, report.contact_sheet) == (None, None)
    assert len(report.table) == COUNT
    assert sorted(data.rglob("*")) == before


def test_the_digest_is_of_images_and_truth_and_of_nothing_else(
    in_process: None, model_dir: Path, tmp_path: Path
) -> None:
    write_labelled(tmp_path, 3)
    masks = tmp_path / "SegmentationClass"
    first = evaluate(job_for(model_dir, tmp_path))

    colors = colorize(truth(64, 48, 0), LABELS)
    (masks / "000.png").write_bytes(encode(Image.fromarray(colors), "PNG"))
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("002\n000\n001\n")
    recoded = evaluate(job_for(model_dir, tmp_path))
    assert recoded.scores == first.scores
    assert recoded.record.same_examples(first.record), "another coding and another order are the same examples"

    changed = truth(48, 64, 2)
    changed[0, 0] = (changed[0, 0] + 1) % LABELS.num_classes if changed[0, 0] != 255 else 0
    (masks / "002.png").write_bytes(encode_mask(changed, LABELS))
    assert not evaluate(job_for(model_dir, tmp_path)).record.same_examples(first.record), "one pixel of truth"
    (masks / "002.png").write_bytes(encode_mask(truth(48, 64, 2), LABELS))
    (tmp_path / "JPEGImages" / "002.jpg").write_bytes(jpeg(48, 64, seed=99))
    assert not evaluate(job_for(model_dir, tmp_path)).record.same_examples(first.record), "another photo"


def test_a_digest_leaves_out_what_was_not_scored() -> None:
    good = [ExampleRow(str(n), "i", "m", "ok", image_sha256=f"a{n}", truth_sha256=f"b{n}") for n in range(3)]
    bad = ExampleRow("x", "i", "m", "error", error="truncated", message="...")
    assert examples_digest(images_table(good)) == examples_digest(images_table([good[2], bad, *good[:2]]))
    assert examples_digest(images_table(good)) != examples_digest(images_table(good[:2]))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Twelve examples, eight of them broken in different ways."""
    folder = tmp_path / "broken"
    write_labelled(folder, 12)
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    (images / "001.jpg").write_bytes(jpeg(64, 48, 1)[:400])
    (images / "002.jpg").write_bytes(b"no image at all")
    (images / "003.jpg").write_bytes(encode(Image.new("RGB", (2000, 2000)), "PNG"))
    (masks / "004.png").write_bytes(encode_mask(truth(10, 10, 4), LABELS))
    (masks / "005.png").write_bytes(encode(Image.fromarray(np.full((48, 64), 77, np.uint8)), "PNG"))
    (masks / "006.png").write_bytes(b"\x89PNG but not really")
    (masks / "007.png").write_bytes(encode(Image.new("RGB", (48, 64), (1, 2, 3)), "PNG"))
    (masks / "008.png").write_bytes(encode(Image.new("RGB", (64, 48), (9, 9, 9)), "JPEG"))
    return folder


REASONS = {
    "001": "truncated",
    "002": "not_an_image",
    "003": "too_many_pixels",
    "004": "size_mismatch",
    "005": "mask_illegal_values",
    "006": "mask_unreadable",
    "007": "mask_unknown_colors",
    "008": "mask_unreadable",
}


def test_broken_examples_are_all_named_and_nothing_is_written(
    in_process: None, model_dir: Path, broken: Path, tmp_path: Path
) -> None:
    listener = Listener()
    job = job_for(model_dir, broken, output=str(tmp_path / "scores"), max_pixels=1_000_000)
    with pytest.raises(BrokenExamples, match="8 of 12 examples of split 'val'") as caught:
        evaluate(job, listener)
    assert {error.name: error.error for error in caught.value.errors} == REASONS
    for name, reason in REASONS.items():
        assert f"{name} ({reason})" in str(caught.value)
    assert listener.errors == {f"JPEGImages/{name}.jpg": reason for name, reason in REASONS.items()}
    assert not (tmp_path / "scores").exists()


def test_broken_examples_can_be_left_out(in_process: None, model_dir: Path, broken: Path, tmp_path: Path) -> None:
    job = job_for(
        model_dir, broken, output=str(tmp_path / "scores"), allow_errors=True, max_pixels=1_000_000, batch_size=2
    )
    (broken / "JPEGImages" / "009.jpg").unlink()
    report = evaluate(job)
    rows = {row["name"]: row for row in report.table.to_pylist()}
    assert {name: row["error"] for name, row in rows.items() if row["status"] == "error"} == REASONS | {
        "009": "missing"
    }
    assert "009.jpg" in rows["009"]["message"]
    assert all(rows[name]["mean_iou"] is None for name in REASONS)
    assert {error.name for error in report.errors} == {*REASONS, "009"}
    (broken / "ImageSets" / "Segmentation" / "val.txt").write_text("000\n010\n011\n")
    whole = evaluate(job_for(model_dir, broken, batch_size=1))
    assert report.images == whole.images == 3
    assert report.record.same_examples(whole.record)


def test_a_split_with_nothing_but_broken_examples_is_refused_even_then(
    in_process: None, model_dir: Path, tmp_path: Path
) -> None:
    write_labelled(tmp_path, 2)
    for file in (tmp_path / "JPEGImages").iterdir():
        file.write_bytes(b"")
    with pytest.raises(BrokenExamples, match=r"000 \(empty_file\), 001 \(empty_file\); mend them \(fcn data check"):
        evaluate(job_for(model_dir, tmp_path, allow_errors=True))


def test_a_file_that_goes_away_after_listing_is_named(
    in_process: None, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(tmp_path, 2)
    opened = evaluation.open_dataset

    def listed_and_gone(*arguments: object) -> Pairs:
        dataset = opened(*arguments)  # type: ignore[arg-type]
        (tmp_path / "JPEGImages" / "000.jpg").unlink()
        (tmp_path / "SegmentationClass" / "001.png").unlink()
        return dataset

    monkeypatch.setattr(evaluation, "open_dataset", listed_and_gone)
    with pytest.raises(BrokenExamples, match=r"000 \(missing\), 001 \(mask_missing\)"):
        evaluate(job_for(model_dir, tmp_path))


def test_a_stopped_evaluation_says_so_and_writes_nothing(
    in_process: None, model_dir: Path, data: Path, tmp_path: Path
) -> None:
    listener = Listener()
    job = job_for(model_dir, data, shard_size=4, output=str(tmp_path / "scores"))
    with pytest.raises(EvaluationStopped):
        evaluate(job, listener, should_stop=lambda: listener.done > 0)
    assert 0 < listener.done < COUNT
    assert not (tmp_path / "scores").exists()


def test_whoever_finds_scores_finds_what_belongs_to_them(
    in_process: None, model_dir: Path, data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    evaluate(job_for(model_dir, data, output=str(output)))
    (output / "worst.png").unlink()
    (output / "worst.png" / "in the way").mkdir(parents=True)
    other = tmp_path / "other-model"
    model(seed=1).save(other)
    with pytest.raises(StorageError):
        evaluate(job_for(other, data, output=str(output)))
    assert not (output / "scores.json").exists()


def other_labels(*names: str, ignore_index: int = 255) -> LabelSet:
    palette = tuple((index, 7, 7) for index in range(len(names)))
    return LabelSet(name="mine", names=names, palette=palette, ignore_index=ignore_index)


def test_another_number_of_classes_is_refused(in_process: None, model_dir: Path, data: Path) -> None:
    with pytest.raises(InputError, match="the model knows 11 classes, label set 'voc' has 21"):
        evaluate(job_for(model_dir, data, labels="voc"))


def test_the_same_classes_in_another_order_are_refused(in_process: None, tmp_path: Path, data: Path) -> None:
    names = preset("camvid").names
    model(other_labels(*names[::-1])).save(tmp_path / "m")
    with pytest.raises(InputError, match="in another order: 0 is 'cyclist' to the model and 'sky' in the data set"):
        evaluate(job_for(tmp_path / "m", data))


def test_classes_of_other_names_are_taken_by_number_and_that_is_said(
    in_process: None, tmp_path: Path, data: Path
) -> None:
    names = ("heaven", *preset("camvid").names[1:])
    model(other_labels(*names, ignore_index=99)).save(tmp_path / "m")
    listener = Listener()
    report = evaluate(job_for(tmp_path / "m", data, output=str(tmp_path / "scores")), listener)
    assert any("'heaven' is 'sky'" in note for note in listener.notes)
    assert report.record.classes == names
    assert report.scores.pixels == sum(int((truth(*size, seed=n) != 255).sum()) for n, size in enumerate(all_sizes()))


def all_sizes() -> list[tuple[int, int]]:
    from tests.labelled import SIZES

    return [SIZES[index % len(SIZES)] for index in range(COUNT)]


def test_a_split_that_labels_nothing_has_no_scores(in_process: None, model_dir: Path, tmp_path: Path) -> None:
    write_labelled(tmp_path / "data", 2)
    for path in (tmp_path / "data" / "SegmentationClass").iterdir():
        width, height = Image.open(path).size
        path.write_bytes(encode_mask(np.full((height, width), 255, np.uint8), LABELS))
    report: EvaluateReport = evaluate(job_for(model_dir, tmp_path / "data", output=str(tmp_path / "scores")))
    assert (report.scores.pixels, report.scores.mean_iou, report.contact_sheet) == (0, None, None)
    assert read_evaluation(open_store(str(tmp_path / "scores"))) == report.record


def test_settings_are_resolved_as_a_labelling_job_resolves_them(in_process: None, model_dir: Path, data: Path) -> None:
    listener = Listener()
    options = {"gpus_per_actor": 0.5, "device": "auto", "deterministic": True, "engine": "torch"}
    report = evaluate(job_for(model_dir, data, **options), listener)
    assert any("the model runs on the CPU" in note for note in listener.notes)
    assert report.record.settings == PredictorSettings(
        device="cpu", precision="float32", batch_size=1, tile_pixels=1 << 22, threads=1, deterministic=True
    )
