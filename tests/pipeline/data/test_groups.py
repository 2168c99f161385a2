"""Splits by groups: no group is on both sides, and every image is on one."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv, parquet
from pydantic import ValidationError

from fcn_core.data.datasets import Pair
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.groups import PartOfSplit, group_of, parse_part
from pipeline.data.layouts import Split
from pipeline.errors import InputError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.held_out import HeldOutGroups, fold_parts
from pipeline.training.plan import check_inputs
from tests.labelled import write_labelled
from tests.trainings import job


@pytest.mark.parametrize(
    ("name", "folder", "prefix"),
    [
        ("night/0001TP_006690", "night", "0001TP"),
        ("a/b/cam-3_x.jpg", "a/b", "cam"),
        ("frame000123", "", "frame"),
        ("000123", "", "000123"),
        ("_x", "", "_x"),
    ],
)
def test_a_group_is_a_folder_or_what_a_name_begins_with(name: str, folder: str, prefix: str) -> None:
    assert group_of(name, "folder") == folder
    assert group_of(name, "prefix") == prefix


NAMES = ("day_1", "day_2", "night_1", "rain_1", "rain_2", "snow_7")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images of four groups, by prefix, in split train."""
    write_labelled(tmp_path / "data", len(NAMES))
    for index, name in enumerate(NAMES):
        for kind, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            (tmp_path / f"data/{kind}/{index:03d}.{suffix}").rename(tmp_path / f"data/{kind}/{name}.{suffix}")
    lists = tmp_path / "data/ImageSets/Segmentation"
    (lists / "val.txt").unlink()
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return tmp_path


def names(folder: Path, split: str) -> set[str]:
    options = DatasetOptions(dataset=str(folder / "data"), labels="camvid")
    return {pair.name for pair in open_dataset(options, split).pairs}


def test_held_out_groups_are_validated_on_and_all_others_trained_on(folder: Path) -> None:
    assert names(folder, "train:prefix=night,rain") == {"night_1", "rain_1", "rain_2"}
    assert names(folder, "train:prefix!=night,rain") == {"day_1", "day_2", "snow_7"}
    asked = job(folder, labels="camvid", val_split={"by": "prefix", "hold_out": ["night", "rain"]})
    assert (asked.train_split, asked.val_split) == ("train:prefix!=night,rain", "train:prefix=night,rain")
    assert type(asked).model_validate(asked.model_dump()) == asked
    inputs = check_inputs(asked)
    assert len(inputs.train_set) == 3
    assert inputs.val_set is not None
    assert len(inputs.val_set) == 3


def split_of(names: Iterable[str]) -> Split:
    return Split(tuple(Pair(name, f"{name}.jpg", f"{name}.png") for name in names))


def parts_of(whole: Split, part: PartOfSplit) -> set[str]:
    """The names in a part; none where it is refused, because nothing is left."""
    try:
        return {pair.name for pair in part.of(whole).pairs}
    except InputError:
        return set()


@given(
    sizes=st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 9), min_size=2, max_size=20),
    folds=st.integers(2, 7),
)
def test_every_group_is_validated_on_in_one_fold_and_trained_on_in_all_others(
    sizes: dict[str, int], folds: int
) -> None:
    folds = min(folds, len(sizes))
    whole = split_of(f"{group}_{index}" for group, size in sizes.items() for index in range(size))
    validated: list[set[str]] = []
    for fold in range(1, folds + 1):
        to_train, to_validate = map(parse_part, fold_parts("train", "prefix", fold, folds))
        assert to_train is not None
        assert to_validate is not None
        validated.append({pair.name for pair in to_validate.of(whole).pairs})
        assert {pair.name for pair in to_train.of(whole).pairs} == {p.name for p in whole.pairs} - validated[-1]
    assert sum(map(len, validated)) == len(whole.pairs) == len(set().union(*validated))
    groups = [{group_of(name, "prefix") for name in names} for names in validated]
    assert sum(map(len, groups)) == len(sizes)
    assert max(map(len, validated)) - min(map(len, validated)) <= max(sizes.values()), "of nearly equal size"


def test_folds_of_single_images_differ_by_one_at_most(folder: Path) -> None:
    sizes = [len(names(folder, f"train:image@{fold}of4")) for fold in (1, 2, 3, 4)]
    assert sorted(sizes) == [1, 1, 2, 2]


def test_folds_that_cannot_be_made_are_refused(folder: Path) -> None:
    catalog = open_catalog(DatasetOptions(dataset=str(folder / "data"), labels="camvid"))
    with pytest.raises(InputError, match=r"into 5 folds by prefix: it has 4 \(it has 'day'"):
        catalog.split("train:prefix@1of5")
    for wrong in (
        "train:prefix@0of5",
        "train:prefix@6of5",
        "train:prefix@1of1",
        "train:prefix!@1of101",
        "train:image@a",
    ):
        with pytest.raises(InputError, match="one of 2 to 100 folds"):
            catalog.split(wrong)
    with pytest.raises(InputError, match="no column 'camera': only a manifest has columns"):
        catalog.split("train:column.camera=a")


@pytest.fixture(params=["csv", "parquet"])
def manifest(request: pytest.FixtureRequest, folder: Path) -> str:
    """The six images with two further columns: the camera, a number, and the weather, which one row lacks."""
    rows = [
        {
            "image": f"JPEGImages/{name}.jpg",
            "mask": f"SegmentationClass/{name}.png",
            "split": "train",
            "Camera": index % 3,
            "weather": name.partition("_")[0] if index else "",
        }
        for index, name in enumerate(NAMES)
    ]
    table = pa.Table.from_pylist(rows)
    path = folder / f"data/list.{request.param}"
    if request.param == "csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
    return str(path)


def test_images_are_held_out_by_a_column_of_the_manifest(manifest: str, folder: Path) -> None:
    asked = job(
        folder,
        dataset=manifest,
        labels="camvid",
        val_split={"by": "column", "column": "camera", "hold_out": [1]},
    )
    assert (asked.train_split, asked.val_split) == ("train:column.camera!=1", "train:column.camera=1")
    inputs = check_inputs(asked)
    assert inputs.val_set is not None
    assert [pair.name for pair in inputs.val_set.pairs] == ["JPEGImages/day_2.jpg", "JPEGImages/rain_2.jpg"]
    assert len(inputs.train_set) == 4


def test_a_column_that_is_not_there_or_has_gaps_is_refused_by_name(manifest: str) -> None:
    catalog = open_catalog(DatasetOptions(dataset=manifest, labels="camvid"))
    with pytest.raises(InputError, match="has no column 'lens'"):
        catalog.split("train:column.lens=a")
    with pytest.raises(InputError, match="row 1 has no weather"):
        catalog.split("train:column.weather=day")
    with pytest.raises(InputError, match=r"split train has no camera '7' \(it has '0', '1', '2'\)"):
        catalog.split("train:column.camera=7")


@given(st.floats(0.01, 0.99), st.lists(st.text("abc", min_size=1, max_size=3), min_size=1))
def test_a_share_cuts_between_groups_and_never_through_one(share: float, groups: list[str]) -> None:
    to_train, to_validate = map(parse_part, HeldOutGroups(by="prefix", share=share).parts("train"))
    assert to_train is not None
    assert to_validate is not None
    whole = split_of(f"{group}_{index}" for group in dict.fromkeys(groups) for index in range(3))
    sides = [parts_of(whole, part) for part in (to_train, to_validate)]
    assert sides[0] | sides[1] == {pair.name for pair in whole.pairs}
    assert not {group_of(name, "prefix") for name in sides[0]} & {group_of(name, "prefix") for name in sides[1]}


def test_groups_that_are_not_there_and_parts_without_images_are_refused(folder: Path) -> None:
    catalog = open_catalog(DatasetOptions(dataset=str(folder / "data"), labels="camvid"))
    with pytest.raises(InputError, match=r"split train has no prefix 'fog' \(it has 'day', 'night', 'rain', 'snow'\)"):
        catalog.split("train:prefix=fog")
    with pytest.raises(InputError, match="nothing is in this part"):
        catalog.split("train:prefix!=day,night,rain,snow")
    with pytest.raises(InputError, match="share of the groups between 0 and 1"):
        catalog.split("train:prefix<2")
    with pytest.raises(InputError, match="no split 'night:folder'"):
        catalog.split("night:folder")


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "prefix"},
        {"by": "prefix", "hold_out": ["a"], "share": 0.1},
        {"by": "size"},
        {"by": "column", "share": 0.2},
        {"by": "prefix", "column": "camera", "share": 0.2},
        {"by": "column", "column": "a=b", "share": 0.2},
    ],
)
def test_a_val_split_of_groups_says_which(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        job("x", val_split=wrong)
