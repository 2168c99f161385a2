"""What is written for a labelling tool is what comes back from it: nothing is lost or moved on the way."""

import csv
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcn_core.labels import LabelSet, Mask
from pipeline.csv_text import original
from pipeline.data.annotations.importer import LeftOut
from pipeline.data.annotations.opening import open_annotations
from pipeline.insight.labelling_export import ExportedImage, LabellingFormat, write_project
from pipeline.storage.opening import open_store
from tests.labelled import LABELS, truth
from tests.requires import requires
from tests.samples import jpeg

KEYS = ["north/a.jpg", "south/a.jpg", "süd/ß c.JPG"]
TWINS = LabelSet(name="twins", names=("one", "two"), palette=((9, 9, 9), (9, 9, 9)))


def project(place: Path, form: LabellingFormat, labels: LabelSet = LABELS) -> dict[str, Mask]:
    """Write a project of random annotations, some pixels without a label; returns them by key."""
    masks = {key: truth(64, 48, index, labels) for index, key in enumerate(KEYS)}
    items = [ExportedImage(key, "", "", 1.0, "because", None) for key in KEYS]
    write_project(
        items, lambda item: (jpeg(64, 48), masks[item.key]), open_store(str(place)), labels, form, model_version="m"
    )
    return masks


@pytest.mark.parametrize("labels", [LABELS, TWINS], ids=["camvid", "classes of one colour"])
def test_a_cvat_project_comes_back_as_it_went_out(tmp_path: Path, labels: LabelSet) -> None:
    masks = project(tmp_path, "cvat", labels)
    found = {key: mask for key, mask, _ in open_annotations(str(tmp_path / "annotations.zip"), labels)}
    assert len(found) == len(masks)
    assert sorted(mask.tobytes() for mask in found.values()) == sorted(mask.tobytes() for mask in masks.values())


def test_a_label_studio_project_comes_back_by_the_keys_of_its_images(tmp_path: Path) -> None:
    masks = project(tmp_path, "label-studio")
    tasks = json.loads((tmp_path / "tasks-001.json").read_text())
    assert [item.why for item in _left_out(tmp_path)] == ["nobody has annotated it"] * 3
    for task in tasks:  # a person who finds nothing to correct
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
    (tmp_path / "tasks-001.json").write_text(json.dumps(tasks))
    found = {key: mask for key, mask, _ in open_annotations(str(tmp_path), LABELS)}
    assert found.keys() == masks.keys()
    assert all((found[key] == masks[key]).all() for key in masks)


LETTERS = "abÄß c/d._-1"
SOME = LabelSet(
    name="some", names=("sky", "Straße", "background", "car"), palette=((0, 0, 0), (1, 2, 3), (200, 0, 0), (9, 9, 9))
)


@st.composite
def annotated(draw: st.DrawFn) -> dict[str, Mask]:
    """Masks of any small size, with classes and pixels of none, by keys that may meet when they are flattened."""
    keys = draw(
        st.sets(st.text(LETTERS, min_size=1, max_size=6).filter(lambda key: key.strip("/. ")), min_size=1, max_size=4)
    )
    sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
    values = st.sampled_from([0, 1, 2, 3, 255])
    return {f"{key}.jpg": draw(arrays(np.uint8, draw(sizes), elements=values)) for key in sorted(keys)}


def written_as(masks: dict[str, Mask], form: LabellingFormat, place: Path) -> None:
    """The project of these masks, as `fcn rank --copy-to` writes it, with a person who finds nothing to correct."""
    items = [ExportedImage(key, "", "", 1.0, "because", None) for key in masks]

    def read(item: ExportedImage) -> tuple[bytes, Mask]:
        height, width = masks[item.key].shape
        return jpeg(width, height), masks[item.key]

    write_project(items, read, open_store(str(place)), SOME, form, model_version="m")
    for file in place.glob("tasks-*.json"):
        tasks = json.loads(file.read_text())
        for task in tasks:
            task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
        file.write_text(json.dumps(tasks))


@settings(max_examples=40, deadline=None)
@given(annotated(), st.sampled_from(["cvat", "label-studio"]))
def test_any_masks_come_back_as_they_went_out(masks: dict[str, Mask], form: LabellingFormat) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written_as(masks, form, Path(folder))
        found = {key: mask for key, mask, _ in open_annotations(folder, SOME)}
        copies = list(csv.DictReader((Path(folder) / "images.csv").read_text().splitlines()))
    if form == "cvat":  # it knows the copies alone
        keys = {Path(row["name"]).stem: original(row["key"]) for row in copies}
        found = {keys[Path(name).stem]: mask for name, mask in found.items()}
    # What is wholly without a label has no region in Label Studio, so nobody has annotated it.
    empty = {key for key, mask in masks.items() if (mask == 255).all()}
    assert found.keys() >= masks.keys() - empty
    for key, mask in found.items():
        assert (mask == masks[key]).all(), key


def test_datumaro_reads_a_cvat_project_as_it_went_out(tmp_path: Path) -> None:
    requires("datumaro", install="datumaro")
    import datumaro

    masks = project(tmp_path, "cvat")
    dataset = datumaro.Dataset.import_from(str(tmp_path), "voc_segmentation")
    names = {row["name"].rpartition(".")[0]: row["key"] for row in csv.DictReader((tmp_path / "images.csv").open())}
    classes = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    seen = 0
    for item in dataset:
        mask = np.full(masks[names[item.id]].shape, 255, np.uint8)
        for annotation in item.annotations:
            name = classes[annotation.label]
            if name != "background":  # which no class of the label set is called
                mask[annotation.image.astype(bool)] = LABELS.names.index(name)
        assert (mask == masks[names[item.id]]).all()
        seen += 1
    assert seen == len(masks)


def test_label_studio_s_own_code_reads_the_brushes_as_they_went_out(tmp_path: Path) -> None:
    requires("label_studio_sdk", install="label-studio-sdk")
    from label_studio_sdk.converter.brush import decode_rle

    masks = project(tmp_path, "label-studio")
    for task in json.loads((tmp_path / "tasks-001.json").read_text()):
        truth = masks[task["data"]["key"]]
        seen = np.full(truth.shape, 255, np.uint8)
        for region in task["predictions"][0]["result"]:
            pixels = decode_rle(region["value"]["rle"]).reshape(*truth.shape, 4)[..., 3] > 0
            seen[pixels] = LABELS.names.index(region["value"]["brushlabels"][0])
        assert (seen == truth).all()


def _left_out(place: Path) -> list[LeftOut]:
    opened = open_annotations(str(place), LABELS)
    assert list(opened) == []
    return opened.left_out
