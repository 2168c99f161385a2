"""What is written for a labelling tool is what comes back from it: nothing is lost or moved on the way."""

import json
from pathlib import Path

import pytest

from fcn_core.labels import LabelSet, Mask
from pipeline.data.annotations.importer import LeftOut
from pipeline.data.annotations.opening import open_annotations
from pipeline.insight.labelling_export import ExportedImage, LabellingFormat, write_project
from pipeline.storage.opening import open_store
from tests.labelled import LABELS, truth
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


def _left_out(place: Path) -> list[LeftOut]:
    opened = open_annotations(str(place), LABELS)
    assert list(opened) == []
    return opened.left_out
