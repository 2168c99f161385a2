"""Names of exported masks: different, and safe, on any file system."""

import unicodedata
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.names import plain_names

KEYS = st.lists(
    st.lists(
        st.sampled_from(
            [
                "a",
                "A",
                "a.jpg",
                "A.jpg",
                "a.png",
                "a.jpg.png",
                "é",
                "e\u0301",
                "ß",
                "SS",
                "%" * 200,
                "x" * 251,
                "é" * 150,
                "é" * 120 + "/x.jpg",
            ]
        ),
        min_size=1,
        max_size=3,
    ).map("/".join),
    max_size=12,
    unique=True,
)


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@given(KEYS)
def test_no_two_names_meet_and_none_is_anothers_folder_whatever_the_file_system_takes_for_one(keys: list[str]) -> None:
    names = plain_names(keys)
    assert set(names) == set(keys)
    on_disk = [folded(name) for name in names.values()]
    assert len(set(on_disk)) == len(keys)
    folders = {str(parent) for name in on_disk for parent in PurePosixPath(name).parents}
    assert not folders & set(on_disk)
    assert all(len(part.encode()) <= 255 for name in names.values() for part in name.split("/"))
    assert all(name.endswith(".png") for name in names.values())


def test_names_that_met_before() -> None:
    assert plain_names(["a.jpg", "a.png/b.jpg"]) == {"a.jpg": "a.jpg.png", "a.png/b.jpg": "a.png/b.png"}
    assert plain_names(["A.jpg", "a.jpg"]) == {"A.jpg": "A.jpg.png", "a.jpg": "a.jpg.png.png"}


def test_a_name_that_fits_is_as_plain_as_before() -> None:
    long = "x" * 251
    assert plain_names([f"cam/{long}.jpg", "b.jpeg"]) == {f"cam/{long}.jpg": f"cam/{long}.png", "b.jpeg": "b.png"}
