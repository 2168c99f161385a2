"""Data sets have versions that never change: made by an import, added to, compared, and used by number."""

import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn_core.labels import decode_mask
from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.data.check import check_dataset
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.versioned.adding import add_to_dataset, import_dataset
from pipeline.data.versioned.changes import compare_versions, history
from pipeline.data.versioned.report import AddReport
from pipeline.data.versioned.splits import Grouping, choose_splits, group_splits
from pipeline.data.versioned.versions import open_version, read_version, resolve, write_version
from pipeline.errors import InputError, ObjectChanged
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.importing import AddOptions, ImportOptions
from pipeline.storage.opening import open_store
from tests.pipeline.data.annotations.sources import Files, coco, task, write
from tests.samples import jpeg

SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]


def export(keys: list[str], *, category: int = 1, seed: int = 0, photos: bool = True) -> Files:
    """COCO's instances of images of 20x16 pixels, one square each."""
    value = coco([])
    value["images"] = [{"id": n, "file_name": key, "width": 20, "height": 16} for n, key in enumerate(keys)]
    value["annotations"] = [
        {"id": n, "image_id": n, "category_id": category, "segmentation": [SQUARE]} for n in range(len(keys))
    ]
    images = {f"images/{key}": jpeg(20, 16, seed=seed + sum(key.encode())) for key in keys}
    return {"instances.json": value, **(images if photos else {})}


def imported(folder: Path, keys: list[str], **options: Any) -> tuple[str, AddReport]:
    dataset = str(folder / "set")
    source = write(folder / "export", export(keys))
    return dataset, import_dataset(source, dataset, ImportOptions.model_validate(options))


def opened(dataset: str, split: str = "train") -> Any:
    return open_dataset(DatasetOptions(dataset=dataset), split)


def test_an_import_is_version_1_and_can_be_checked_and_read(tmp_path: Path) -> None:
    dataset, report = imported(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], val_share=0.3)
    assert (report.version, report.added, report.splits) == (1, 3, {"train": 2, "val": 1})
    assert check_dataset(DatasetOptions(dataset=f"{dataset}@1")).ok
    catalog = open_catalog(DatasetOptions(dataset=f"{dataset}@latest"))
    assert catalog.uri == f"{dataset}@1"
    assert catalog.labels.names == ("car", "Traffic_Light", "zeppelin")
    examples = pickle.loads(pickle.dumps(opened(f"{dataset}@latest")))
    assert {pair.name for pair in examples.pairs} < {"a.jpg", "b.jpg", "c.jpg"}
    assert (examples[0].mask[3:9, 2:12] == 0).all()
    assert (examples[0].mask == 0).sum() == 60


def test_corrections_replace_masks_by_image_and_keep_splits(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], val_share=0.3)
    before = {row.key: row for row in open_version(f"{dataset}@1")[1].rows}
    corrections = write(tmp_path / "more", export(["b.jpg", "d.jpg"], category=2) | {
        "images/renamed.jpg": jpeg(20, 16, seed=sum(b"c.jpg"))})  # fmt: skip
    report = add_to_dataset(dataset, corrections, AddOptions(val_share=0.9))
    assert (report.version, report.added, report.corrected) == (2, 1, 1)
    after = {row.key: row for row in open_version(f"{dataset}@2")[1].rows}
    assert {key: row.split for key, row in before.items()} == {key: after[key].split for key in before}
    assert after["a.jpg"] == before["a.jpg"]
    assert after["b.jpg"].mask != before["b.jpg"].mask
    assert after["b.jpg"].image == before["b.jpg"].image
    mask = decode_mask(open_store(dataset).get(after["b.jpg"].mask))
    assert (mask[3:9, 2:12] == 1).all()
    assert open_version(f"{dataset}@1")[1].rows == tuple(before[key] for key in sorted(before))
    diff = compare_versions(open_version(f"{dataset}@1")[1], open_version(f"{dataset}@latest")[1])
    assert [row.key for row in diff.corrected] == ["b.jpg"]
    assert [row.key for row in diff.added] == ["d.jpg"]
    assert [*diff.removed, *diff.replaced, *diff.moved] == []
    assert [(each.version, each.added, each.corrected) for each in history(dataset)] == [(2, 1, 1), (1, 3, 0)]


def test_the_same_corrections_again_make_no_version(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["a.jpg", "b.jpg"])
    report = add_to_dataset(dataset, str(tmp_path / "export"), AddOptions())
    assert (report.version, report.unchanged) == (None, 2)
    assert [entry.version for entry in history(dataset)] == [1]


def test_an_image_is_the_same_by_its_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["north/a.jpg", "b.jpg"])
    value = export(["copy.jpg"], category=2, photos=False)
    source = write(tmp_path / "copies", {**value, "copy.jpg": jpeg(20, 16, seed=sum(b"north/a.jpg"))})
    report = add_to_dataset(dataset, source, AddOptions())
    assert (report.added, report.corrected) == (0, 1)
    other = write(tmp_path / "other", {**export(["b.jpg"], seed=500)})
    report = add_to_dataset(dataset, other, AddOptions())
    assert report.version is None
    assert "another image of the name b.jpg" in report.left_out[0][1]
    assert add_to_dataset(dataset, other, AddOptions(prefix="site-2/")).added == 1


def test_annotations_without_images_correct_what_is_there_and_leave_out_the_rest(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["north/a.jpg", "b.jpg", "south/b.jpg"])
    source = write(tmp_path / "bare", export(["a.jpg", "b.jpg", "c.jpg"], category=2, photos=False))
    report = add_to_dataset(dataset, source, AddOptions())
    assert report.corrected == 2
    assert [key for key, _ in report.left_out] == ["c.jpg"]
    assert "its image is not in the source" in report.left_out[0][1]
    corrected = [row.key for row in open_version(f"{dataset}@2")[1].rows if row.version == 2]
    assert corrected == ["b.jpg", "north/a.jpg"]


def test_copies_of_an_exported_project_are_known_by_its_list(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["north/a.jpg", "b.jpg"])
    names = tmp_path / "images.csv"
    names.write_text("name,key,etag\nnorth_a.jpg,north/a.jpg,x\n")
    source = write(tmp_path / "bare", export(["north_a.jpg"], category=2, photos=False))
    assert add_to_dataset(dataset, source, AddOptions(names=str(names))).corrected == 1


@pytest.mark.parametrize("drawn_on", ["displayed", "stored"])
def test_masks_of_images_that_exif_turns_are_stored_as_the_image_is_displayed(tmp_path: Path, drawn_on: str) -> None:
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: 20x16 as stored is 16x20 to the eye
    Image.open(io.BytesIO(jpeg(20, 16))).save(sink, "JPEG", exif=exif)
    width, height = (16, 20) if drawn_on == "displayed" else (20, 16)
    value = coco([[[0, 0, width, 0, width, 4, 0, 4]]])
    value["images"][0] |= {"width": width, "height": height}
    report = import_dataset(
        write(tmp_path / "export", {"i.json": value, "a.jpg": sink.getvalue()}), str(tmp_path / "set"), ImportOptions()
    )
    example = opened(f"{tmp_path / 'set'}@1")[0]
    expected = np.full((20, 16), 255, np.uint8)
    if drawn_on == "displayed":
        expected[:4] = 0
    else:
        expected[:, 12:] = 0  # its upper edge is now on the right
        assert "turned as EXIF turns the image" in report.notes[0]
    assert (example.mask == expected).all()


def test_what_cannot_be_used_is_left_out_by_name_and_why(tmp_path: Path) -> None:
    value = export(["a.jpg", "broken.jpg", "small.jpg", "none.jpg", "twin.jpg"])
    files = {
        **value,
        "images/broken.jpg": b"no image",
        "images/small.jpg": jpeg(8, 8),
        "images/twin.jpg": jpeg(20, 16, seed=sum(b"a.jpg")),
    }
    assert isinstance(files["instances.json"], dict)
    files["instances.json"]["annotations"][3]["segmentation"] = []
    report = import_dataset(write(tmp_path / "export", files), str(tmp_path / "set"), ImportOptions())
    assert report.added == 1
    why = dict(report.left_out)
    assert "cannot be read" in why["broken.jpg"]
    assert "its mask is 20x16, the image 8x8" in why["small.jpg"]
    assert "nothing in it is labelled" in why["none.jpg"]
    assert "the same image as a.jpg" in why["twin.jpg"]


def test_a_source_of_which_nothing_can_be_used_makes_no_data_set(tmp_path: Path) -> None:
    dataset = tmp_path / "set"
    report = import_dataset(write(tmp_path / "e", export(["a.jpg"], photos=False)), str(dataset), ImportOptions())
    assert (report.version, report.usable, len(report.left_out)) == (None, 0, 1)
    assert not any(path.is_file() for path in dataset.rglob("*"))


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path: Path) -> None:
    dataset, report = imported(tmp_path, ["a.jpg", "b.jpg"], dry_run=True)
    assert (report.version, report.added) == (None, 2)
    assert not any(path.is_file() for path in Path(dataset).rglob("*"))


def test_two_who_add_at_once_do_not_overwrite_each_other(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["a.jpg"])
    store = open_store(dataset)
    rows = read_version(store, 1).rows
    write_version(store, 2, rows, {"source": "mine"})
    with pytest.raises(InputError, match="made by somebody else meanwhile"):
        write_version(store, 2, [replace(rows[0], split="val")], {"source": "theirs"})
    assert read_version(store, 2).notes["source"] == "mine"


def test_a_file_that_changed_under_a_version_is_refused(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["a.jpg"])
    examples = opened(f"{dataset}@1")
    (mask,) = (Path(dataset) / "masks").iterdir()
    mask.write_bytes(mask.read_bytes()[:-1] + b"x")
    with pytest.raises(ObjectChanged, match="not what it was when its version was made"):
        examples[0]


def test_references_that_mean_no_version_are_refused(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["a.jpg"])
    for reference, message in [
        (f"{dataset}@7", "has no version 7; it has 1 to 1"),
        (f"{tmp_path}/none@latest", "has no versions"),
        (dataset, "has versions: write"),
        (f"{dataset}@0", "is no version"),
    ]:
        with pytest.raises(InputError, match=message):
            opened(reference)
    with pytest.raises(InputError, match="is a data set already"):
        import_dataset(str(tmp_path / "export"), dataset, ImportOptions())
    with pytest.raises(InputError, match="has no versions"):
        add_to_dataset(str(tmp_path / "new"), str(tmp_path / "export"), AddOptions())
    assert resolve(f"{dataset}@latest") == f"{dataset}@1"


def test_versions_live_in_buckets_too(bucket: str, tmp_path: Path) -> None:
    source = write(tmp_path / "export", export(["a.jpg", "b.jpg"]))
    dataset = f"s3://{bucket}/sets/street"
    import_dataset(source, dataset, ImportOptions(val_share=0))
    assert add_to_dataset(dataset, write(tmp_path / "more", export(["c.jpg"])), AddOptions()).version == 2
    examples = open_dataset(DatasetOptions(dataset=f"{dataset}@latest", cache_bytes=0), "train")
    assert (examples[0].mask == 0).sum() == 60


def test_label_studio_corrections_of_a_ranked_export_find_their_images(tmp_path: Path) -> None:
    dataset, _ = imported(tmp_path, ["north/a.jpg", "b.jpg"])
    mask = np.zeros((16, 20), np.bool_)
    mask[:8] = True
    brush = {"value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["zeppelin"]}}
    value = [task([brush], data={"image": "/data/local-files/?d=p/images/north_a.jpg", "key": "north/a.jpg"})]
    report = add_to_dataset(dataset, write(tmp_path / "done", {"project.json": value}), AddOptions())
    assert report.corrected == 1
    row = next(row for row in open_version(f"{dataset}@2")[1].rows if row.version == 2)
    assert row.key == "north/a.jpg"
    assert (decode_mask(open_store(dataset).get(row.mask))[:8] == 2).all()


def test_a_group_stays_in_the_split_that_it_is_in(tmp_path: Path) -> None:
    grouping = Grouping("folder")
    assert [grouping.of(key) for key in ("cam1/a.jpg", "a.jpg")] == ["cam1", "a.jpg"]
    assert Grouping(r"(cam\d+)_").of("day/cam7_0001.jpg") == "cam7"
    assert Grouping("none").of("cam1/a.jpg") == "cam1/a.jpg"
    with pytest.raises(InputError, match="no regular expression"):
        Grouping("(")
    there = group_splits([("cam1", "val"), ("cam2", "train"), ("cam3", "val"), ("cam3", "train")])
    assert there == {"cam1": "val", "cam2": "train", "cam3": "train"}
    new = [("cam1/x", "cam1", None), ("cam2/x", "cam2", "val"), ("cam9/x", "cam9", "test")]
    splits, notes = choose_splits(new, there, 0.5)
    assert splits == {"cam1/x": "val", "cam2/x": "train", "cam9/x": "test"}
    assert "1 images went to the split that their group is in" in notes[0]


def test_a_share_of_new_groups_goes_to_val_and_never_all_of_them() -> None:
    new = [(f"cam{i}/{j}", f"cam{i}", None) for i in range(10) for j in range(5)]
    splits, notes = choose_splits(new, {}, 0.2)
    assert sum(split == "val" for split in splits.values()) == 10
    assert all(len({splits[f"cam{i}/{j}"] for j in range(5)}) == 1 for i in range(10))
    assert notes == []
    splits, notes = choose_splits(new[:5], {}, 0.2)
    assert set(splits.values()) == {"train"}
    assert "of one group" in notes[0]
    assert set(choose_splits(new[:5], {"old": "train"}, 0.9)[0].values()) == {"val"}
