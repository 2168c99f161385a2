"""Planted label errors come first among the suspects, and what the model is wrong about everywhere does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from fcn_core import Architecture, ModelBundle, build
from fcn_core.data.datasets import Pair
from fcn_core.labels import encode_mask, preset
from fcn_core.models.upsampling import Upsampling
from pipeline.cli.app import run as fcn
from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.data.datasets import open_dataset
from pipeline.insight.doubt import Doubt, doubt
from pipeline.insight.suspects import SUSPECTS_SCHEMA, Suspect, ranked
from pipeline.jobs.dataset import DatasetOptions
from tests.commands import refused
from tests.labelled import LABELS, truth, write_labelled
from tests.pipeline.data.annotations.sources import write
from tests.samples import jpeg, model

SIZE = (48, 64)


def seen_as(mask: np.ndarray, certain: float = 0.9) -> tuple[np.ndarray, np.ndarray, Upsampling]:
    """What a model of three classes answers that sees this mask, at a stride of 1."""
    probabilities = np.full((3, *mask.shape), (1 - certain) / 2, np.float32)
    np.put_along_axis(probabilities, mask[None].astype(np.int64), np.float32(certain), axis=0)
    return mask, probabilities, Upsampling.half_pixel(mask.shape, mask.shape, 1)  # type: ignore[arg-type]


def scene(left: int = 20) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[16:32, left : left + 20] = 1
    return mask


def order(doubts: list[Doubt]) -> list[Suspect]:
    labels = preset("voc").model_copy(update={"names": ("a", "b", "c"), "palette": ((0, 0, 0), (1, 1, 1), (2, 2, 2))})
    return ranked([("val", Pair(str(index), "", ""), each) for index, each in enumerate(doubts)], labels)


def test_shifted_swapped_and_missing_annotations_come_first() -> None:
    swapped = np.where(scene() == 1, 0, 1).astype(np.uint8)
    annotations = [scene()] * 20 + [scene(32), swapped, np.zeros(SIZE, np.uint8)]
    found = order([doubt(each, *seen_as(scene()), 3) for each in annotations])
    assert [suspect.pair.name for suspect in found] == ["21", "22", "20"]
    missing = found[1]
    assert (missing.annotated, missing.seen) == ("a", "b")
    assert missing.box == pytest.approx((20 / 64, 16 / 48, 40 / 64, 32 / 48), abs=0.02)
    assert "a where the model sees b" in missing.reason()


def test_edges_that_are_drawn_a_pixel_off_are_nobodys_error() -> None:
    assert order([doubt(scene(21), *seen_as(scene()), 3) for _ in range(5)]) == []


def test_what_the_model_is_not_sure_of_is_nobodys_error() -> None:
    assert order([doubt(scene(40), *seen_as(scene(), certain=0.5), 3)]) == []


def test_pixels_without_a_label_are_not_doubted() -> None:
    annotation = scene()
    annotation[annotation == 1] = 255
    found = doubt(annotation, *seen_as(scene()), 3)
    assert found.pairs == ()
    assert found.labelled.tolist() == [48 * 64 - 16 * 20, 0, 0]


def test_what_the_model_confuses_in_every_image_does_not_make_them_all_suspects() -> None:
    confused = np.where(scene() == 1, 2, 0).astype(np.uint8)  # it takes every b for a c
    doubts = [doubt(scene(), *seen_as(confused), 3) for _ in range(20)]
    doubts.append(doubt(scene(), *seen_as(np.where(scene() == 1, 0, 1).astype(np.uint8)), 3))
    found = order(doubts)
    assert [suspect.pair.name for suspect in found] == ["20"]


def test_large_images_cost_no_more_than_small_ones_and_say_the_same() -> None:
    small = doubt(np.zeros(SIZE, np.uint8), *seen_as(scene()), 3)
    big = np.kron(scene(), np.ones((40, 40), np.uint8))
    mask, probabilities, _ = seen_as(scene())
    upsampling = Upsampling.half_pixel(mask.shape, big.shape, 40)  # type: ignore[arg-type]
    large = doubt(np.zeros_like(big), big, probabilities, upsampling, 3)
    assert large.labelled.sum() == 512 * 384
    assert large.pairs[0].box == pytest.approx(small.pairs[0].box, abs=0.03)


def test_the_command_lists_draws_and_copies_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(tmp_path / "set", 6)
    model().save(tmp_path / "model")
    (tmp_path / "set/JPEGImages/005.jpg").write_bytes(b"no image")
    (tmp_path / "set/SegmentationClass/004.png").write_bytes(encode_mask(np.zeros((9, 9), np.uint8), LABELS))
    arguments = ["data", "suspects", str(tmp_path / "set"), str(tmp_path / "model"), "--labels", "camvid", "--top", "3"]
    outputs = ["--export", str(tmp_path / "list.csv"), "--contact-sheet", str(tmp_path / "sheet.png")]
    assert fcn([*arguments, *outputs, "--copy-to", str(tmp_path / "project"), "--json"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    assert set(rows[0]) == set(SUSPECTS_SCHEMA.names) if rows else True
    assert "left out 005" in captured.err
    assert "left out 004: its mask is 9x9" in captured.err
    assert "of 4 images" in captured.err
    assert (tmp_path / "list.csv").read_text().startswith("rank,name,split,score")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    tasks = json.loads((tmp_path / "project/tasks-001.json").read_text())
    assert [task["data"]["key"] for task in tasks] == [row["name"] for row in rows]
    assert "is not empty" in refused(capsys, *arguments, "--copy-to", tmp_path / "project")
    assert "has no split 'train'" in refused(capsys, *arguments, "--split", "train")


def test_where_nothing_is_suspect_there_is_no_contact_sheet_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labelled(tmp_path / "set", 2)
    unsure = build(Architecture(num_classes=LABELS.num_classes, width=0.125, head_width=32))  # it scores all alike
    ModelBundle.from_model(unsure, LABELS).save(tmp_path / "model")
    sheet = tmp_path / "sheet.png"
    found = ["data", "suspects", str(tmp_path / "set"), str(tmp_path / "model"), "--labels", "camvid"]
    assert fcn([*found, "--contact-sheet", str(sheet)]) == 0
    assert "no contact sheet: there is no suspect to draw" in capsys.readouterr().err
    assert not sheet.exists()


def test_what_a_person_corrects_of_the_suspects_is_the_next_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop without its training: import, look for errors, correct, add."""
    keys = [f"cam/{index}.jpg" for index in range(4)]
    labels = {"name": "camvid", "names": list(LABELS.names), "palette": [list(color) for color in LABELS.palette]}
    files = {f"images/{key}": jpeg(64, 48, seed=index) for index, key in enumerate(keys)}
    masks = {f"masks/{key[:-4]}.png": encode_mask(truth(64, 48, index), LABELS) for index, key in enumerate(keys)}
    source = write(tmp_path / "export", {**files, **masks, "labels.json": labels})
    dataset = str(tmp_path / "set")
    assert fcn(["data", "import", source, "-o", dataset, "--labels", f"{source}/labels.json"]) == 0
    model().save(tmp_path / "model")
    project = tmp_path / "project"
    look = ["data", "suspects", f"{dataset}@latest", str(tmp_path / "model"), "--split", "train", "--top", "2"]
    assert fcn([*look, "--copy-to", str(project)]) == 0

    tasks = json.loads((project / "tasks-001.json").read_text())
    everything = encode_brush(np.ones((48, 64), np.bool_))
    for task in tasks:  # the person finds nothing but sky
        (region, *_) = task.pop("predictions")[0]["result"]
        region["value"] |= {"rle": everything, "brushlabels": ["sky"]}
        task["annotations"] = [{"result": [region]}]
    (tmp_path / "corrections.json").write_text(json.dumps(tasks))
    capsys.readouterr()
    assert fcn(["data", "add", dataset, str(tmp_path / "corrections.json"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["version"], report["corrected"], report["added"]) == (2, len(tasks), 0)
    corrected = {task["data"]["key"] for task in tasks}
    examples = open_dataset(DatasetOptions(dataset=f"{dataset}@2"), "train")
    for index, pair in enumerate(examples.pairs):
        original = truth(64, 48, keys.index(pair.name))
        assert (examples.mask(index) == (0 if pair.name in corrected else original)).all()
