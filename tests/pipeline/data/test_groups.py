"""Splits by groups: no group is on both sides, and every image is on one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.groups import group_of, parse_part
from pipeline.errors import InputError
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.held_out import HeldOutGroups
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


@given(st.floats(0.01, 0.99), st.lists(st.text("abc", min_size=1, max_size=3), min_size=1))
def test_a_share_cuts_between_groups_and_never_through_one(share: float, groups: list[str]) -> None:
    to_train, to_validate = map(parse_part, HeldOutGroups(by="prefix", share=share).parts("train"))
    assert to_train is not None
    assert to_validate is not None
    for group in groups:
        sides = {(to_train._has(f"{group}_{index}"), to_validate._has(f"{group}_{index}")) for index in range(3)}
        assert sides in ({(True, False)}, {(False, True)})


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


@pytest.mark.parametrize("wrong", [{"by": "prefix"}, {"by": "prefix", "hold_out": ["a"], "share": 0.1}, {"by": "size"}])
def test_a_val_split_of_groups_says_which(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        job("x", val_split=wrong)
