"""Exports that are stopped, repeated, changed and refused; of a selection, to a folder and to S3."""

import itertools
import json
from pathlib import Path

import boto3
import numpy as np
import pytest

from fcn_core.labels import Mask, decode_mask
from pipeline.errors import AccessDenied, InputError, StorageError
from pipeline.exports import job as exports
from pipeline.exports.formats.base import Exported, MaskedImage
from pipeline.exports.formats.geojson import GeoJson
from pipeline.exports.job import export_masks
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from tests.pipeline.exports.outputs import files_under, write_run

SECOND = "20260102T000000Z-0001"


def mask_of(seed: int) -> Mask:
    return np.random.default_rng(seed).integers(0, 3, (5, 7), dtype=np.uint8)


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images in parts of at most four."""
    monkeypatch.setattr(exports, "MOST_OF_A_PART", 4)
    write_run(open_store(str(tmp_path / "out")), {f"{index:02d}.jpg": mask_of(index) for index in range(12)})
    return tmp_path / "out"


@pytest.mark.parametrize("format", ["png", "coco-rle", "coco-panoptic", "yolo"])
def test_a_stopped_export_is_finished_by_the_same_call_wherever_it_stopped(
    format: str, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, stopped = tmp_path / "calm", tmp_path / "stopped"
    export_masks(str(output), str(calm), format=format)
    wanted = files_under(calm)
    document = {"yolo": "data.yaml"}.get(format, "annotations.json")
    left = 0
    for name in ("put", "put_file", "delete"):
        plain = getattr(LocalStore, name)

        def write(self: LocalStore, *given: object, plain: object = plain) -> None:
            nonlocal left
            if self.uri == str(stopped):
                left -= 1
                if left < 0:
                    raise AccessDenied("the export stops here")
            plain(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(LocalStore, name, write)
    stops = 0
    for writes in itertools.count(1, 3):  # each goes on where the last one has stopped
        left = writes
        try:
            report = export_masks(str(output), str(stopped), format=format)
            break
        except AccessDenied:
            stops += 1
        assert not (stopped / "_fcn_export" / "finished.json").exists()
        assert not (stopped / document).exists(), "what is not whole has no document"
        assert all(wanted[key] == data for key, data in files_under(stopped).items()), "nothing half-written"
    assert (stops > 2, report.kept >= 4) == (True, True)
    assert files_under(stopped) == wanted
    assert (stopped / "_fcn_export" / "finished.json").exists()
    left = 0  # nothing is left to write
    monkeypatch.setattr(LocalStore, "check_writable", lambda self: None)
    assert export_masks(str(output), str(stopped), format=format).kept == 12


def test_an_export_follows_the_output(output: Path, tmp_path: Path) -> None:
    """Changed, new and deselected images: as if made anew, and only their parts are written."""
    to = tmp_path / "to"
    export_masks(str(output), str(to), format="geojson")
    before = {name: (to / name).stat().st_mtime_ns for name in files_under(to)}
    write_run(open_store(str(output)), {"05.jpg": mask_of(50), "06.png": mask_of(60)}, run_id=SECOND)
    report = export_masks(str(output), str(to), format="geojson")
    assert 0 < report.kept < 13
    export_masks(str(output), str(tmp_path / "anew"), format="geojson")
    found = files_under(to)
    assert found == files_under(tmp_path / "anew")
    assert {"06.jpg.geojson", "06.png.geojson"} <= found.keys()
    assert "06.geojson" not in found, "another image's file has that name no more"
    kept = [name for name in found if before.get(name) == (to / name).stat().st_mtime_ns]
    assert len(kept) == report.kept

    export_masks(str(output), str(to), format="geojson", where="key >= '03'")
    assert min(files_under(to)) == "03.geojson"
    export_masks(str(output), str(to), format="geojson")
    assert files_under(to) == found


def test_only_images_that_fit_a_condition(output: Path, tmp_path: Path) -> None:
    where = "confidence < 0.45 AND key LIKE '0%' -- and no more"
    export_masks(str(output), str(tmp_path / "to"), format="coco-rle", where=where)
    document = json.loads((tmp_path / "to" / "annotations.json").read_text())
    assert [image["file_name"] for image in document["images"]] == [f"{index:02d}.jpg" for index in range(4)]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("confidence <", "where cannot be asked"),
        ("camera = 'a'", "camera"),
        ("confidence", "is of type float"),
        ("true), (false", "2 conditions"),
        ("false", "no mask that fits"),
    ],
)
def test_a_condition_that_fails_or_chooses_nothing_writes_nothing(
    where: str, said: str, output: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        export_masks(str(output), str(tmp_path / "to"), where=where)
    assert not (tmp_path / "to").exists()


def test_one_place_holds_one_export(output: Path, tmp_path: Path) -> None:
    write_run(open_store(str(tmp_path / "out2")), {"a.png": mask_of(1)}, source=tmp_path / "photos")
    export_masks(str(output), str(tmp_path / "to"), format="yolo")
    for place, format, said in (
        (tmp_path / "to", "png", "has masks as yolo"),
        (output / "more", "png", "lies inside the output"),
        (tmp_path / "new", "obj", "no format 'obj'"),
    ):
        with pytest.raises(InputError, match=said):
            export_masks(str(output), str(place), format=format)
    with pytest.raises(InputError, match="lies inside the source"):
        export_masks(str(tmp_path / "out2"), str(tmp_path / "photos"))
    with pytest.raises(InputError, match="--tolerance is nothing that png has; it is for polygons, yolo, geojson"):
        export_masks(str(output), str(tmp_path / "new"), options=exports.ExportOptions(tolerance=1.0))
    assert not (tmp_path / "new").exists()


def test_lost_and_damaged_masks_are_told_and_the_others_exported(output: Path, tmp_path: Path) -> None:
    lost, damaged = sorted(output.rglob("*.png"))[2:4]
    lost.unlink()
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-20])
    with pytest.raises(StorageError, match=r"2 masks cannot be exported, such as .*--repair"):
        export_masks(str(output), str(tmp_path / "to"), format="yolo")
    assert len(files_under(tmp_path / "to")) == 10, "and no data.yaml"
    damaged.write_bytes(data)
    with pytest.raises(StorageError, match="1 mask cannot"):
        export_masks(str(output), str(tmp_path / "to"), format="yolo")


def test_a_class_that_no_table_names_is_told(tmp_path: Path) -> None:
    """Of a run that is not finished only classes are known that have appeared."""
    store = open_store(str(tmp_path / "out"))
    write_run(store, {"a.jpg": np.zeros((2, 2), np.uint8)}, run_id=SECOND, finished=False)
    export_masks(str(tmp_path / "out"), str(tmp_path / "to"), format="yolo")
    assert 'names:\n  0: "sky"\n' in (tmp_path / "to" / "data.yaml").read_text()
    image = MaskedImage("a.jpg", "a.png", next((tmp_path / "out").rglob("*.png")).read_bytes(), num_classes=0)
    with pytest.raises(InputError, match="class 0, for which the tables have no name"):
        _ = image.mask


def test_exports_to_s3_from_s3(bucket: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of many parts included: S3 takes none of less than 5 MiB but the last."""
    client = boto3.client("s3")
    for file in files_under(output).items():
        client.put_object(Bucket=bucket, Key=f"labels/{file[0]}", Body=file[1])
    monkeypatch.setattr("pipeline.exports.formats.coco.CocoDocument.lines", lambda self, records: ["x" * (9 << 20)])
    where = f"s3://{bucket}/to"
    assert export_masks(f"s3://{bucket}/labels", where, format="coco-panoptic").kept == 0
    assert export_masks(f"s3://{bucket}/labels", where, format="coco-panoptic").kept == 12
    store = open_store(where)
    assert store.head("annotations.json").size == 9 << 20
    assert sum(1 for _ in store.list("annotations/")) == 12


def test_many_images_are_exported_at_once_and_none_is_mixed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = {f"{index}.jpg": mask_of(index) for index in range(100)}
    write_run(open_store(str(tmp_path / "out")), masks)
    monkeypatch.setattr(exports, "PIXELS_AT_ONCE", 10)  # less than an image has
    export_masks(str(tmp_path / "out"), str(tmp_path / "to"))
    found = {name.replace(".png", ".jpg"): decode_mask(data) for name, data in files_under(tmp_path / "to").items()}
    assert found.keys() == masks.keys()
    assert all((found[key] == masks[key]).all() for key in masks)


def test_a_format_that_fails_leaves_nothing_that_looks_whole(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = GeoJson.write

    def write(self: GeoJson, image: MaskedImage) -> Exported:
        if image.key == "07.jpg":
            raise MemoryError
        return plain(self, image)

    monkeypatch.setattr(GeoJson, "write", write)
    with pytest.raises(MemoryError):
        export_masks(str(output), str(tmp_path / "to"), format="geojson")
    assert not (tmp_path / "to" / "_fcn_export" / "finished.json").exists()
    monkeypatch.undo()
    export_masks(str(output), str(tmp_path / "to"), format="geojson")
    assert len(files_under(tmp_path / "to")) == 12
