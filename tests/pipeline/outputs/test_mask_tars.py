"""The masks of a shard in one tar: names that any reader takes, the same bytes every time, and one mask out of many."""

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ObjectMissing
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_formats.packed import MaskPart, is_archive_of, member_names
from pipeline.outputs.mask_formats.tar import TarMasks, build_tar, read_tar
from pipeline.outputs.masks import mask_file, read_mask
from pipeline.storage.opening import open_store

RECIPE = Recipe("model", "params")
TAR = TarMasks()
HOSTILE = [
    "a.jpg", "a.png", "ä/b.c.jpg", "../x.jpg", "/abs.jpg", "__thumbs__/x.jpg", ".hidden", "folder/", "x/..", "x/.2e",
    "long" * 100 + ".jpg", "deep/" * 300 + "x.jpg", "line\nend.jpg", "a%2e.jpg", "100%.jpg", "no extension", "😀.jpg",
    "b\\c.jpg", "cam.1/2026.01.02/x.jpg",
]  # fmt: skip
PIECES = st.sampled_from([".", "..", "/", "a", "B", "%", "2e", "ä", ".jpg", "__", "~", "\n", " "])
KEYS = st.lists(st.lists(PIECES, min_size=1, max_size=8).map("".join), min_size=1, max_size=8, unique=True)


def test_the_name_is_the_key_without_its_extension() -> None:
    assert member_names(["cam.1/2026/front door.jpg", "b.jpeg"]) == ["cam.1/2026/front door.png", "b.png"]
    assert member_names(["a.b.jpg"]) == ["a%2eb.png"], "WebDataset takes all after the first dot for the extension"


@given(KEYS)
def test_no_two_masks_share_a_name_and_none_leaves_its_folder(keys: list[str]) -> None:
    names = member_names(keys)
    assert len(set(names)) == len(names)
    for name in names:
        assert name.endswith(".png")
        assert not name.startswith("/")
        assert not {"", ".", ".."} & set(name.split("/"))
        assert all(len(part.encode()) <= 200 for part in name.split("/"))


def test_webdataset_and_tar_read_every_name(tmp_path: Path) -> None:
    names = member_names(HOSTILE)
    data, _ = build_tar((name, key.encode()) for name, key in zip(names, HOSTILE, strict=True))
    (tmp_path / "shard.tar").write_bytes(data)
    found = list(webdataset.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False))
    assert [(sample["__key__"] + ".png", sample["png"].decode()) for sample in found] == list(
        zip(names, HOSTILE, strict=True)
    )
    with tarfile.open(tmp_path / "shard.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert [(tmp_path / "out" / name).read_text() for name in names] == HOSTILE


def test_equal_masks_give_equal_bytes_without_times_or_owners() -> None:
    members = [(name, bytes(index * 100)) for index, name in enumerate(member_names(HOSTILE))]
    data, offsets = build_tar(members)
    assert build_tar(members)[0] == data
    assert TAR.key(RECIPE, 42, data).startswith(f"mask_tars/{RECIPE.name}/shard-00000042.")
    assert TAR.key(RECIPE, 42, data) != TAR.key(RECIPE, 42, data + b"\0")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {(member.mtime, member.uid, member.gid, member.uname) for member in tar} == {(0, 0, 0, "")}
    assert list(read_tar(data).values()) == [
        (offset, len(content)) for (_, content), offset in zip(members, offsets, strict=True)
    ]


def test_a_tar_that_is_cut_off_is_no_tar() -> None:
    data, _ = build_tar([("a.png", bytes(5000))])
    for broken in (data[:3000], b"", b"x" * 2000):
        with pytest.raises(tarfile.TarError):
            read_tar(broken)


def test_a_mask_is_read_from_where_its_row_says(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    data, offsets = build_tar([("a.png", b"first"), ("b.png", b"second")])
    key = TAR.key(RECIPE, 0, data)
    store.put(key, data)
    place = str(MaskPart(key, offsets[1], 6))
    assert (TAR.part(place), mask_file(place)) == (MaskPart(key, offsets[1], 6), key)
    assert read_mask(store, place) == b"second"
    odd = "masks/1a2b3c4d/shard-00000000.90abcdef12345678.tar#1+2.00000000.png"
    store.put(odd, b"an object with a name like that")
    assert TAR.part(odd) is None
    assert read_mask(store, odd) == b"an object with a name like that"
    store.put(key, data[: offsets[1]])
    with pytest.raises(ObjectMissing):
        read_mask(store, place)


def test_a_tar_of_a_later_generation_has_another_name_and_is_found_by_it() -> None:
    recipe, data = Recipe("m", "p"), b"tar"
    assert TAR.key(recipe, 3, data, 0) == TAR.key(recipe, 3, data)
    key = TAR.key(recipe, 3, data, 12)
    assert key == TAR.key(recipe, 3, data).replace(".tar", "-12.tar")
    assert is_archive_of(key, data)
    assert not is_archive_of(key, b"other")
    assert TAR.part(f"{key}#512+7") == MaskPart(key, 512, 7)
