"""Names follow from identity: different work, different names; and no name leaves OUTPUT."""

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.outputs.identity import Recipe, params_id
from pipeline.outputs.mask_formats.objects import mask_key, mask_keys

RECIPE = Recipe("a" * 16, "b" * 16)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40) | st.lists(
    st.sampled_from(["", ".", "..", "a", "%", "%2e%2e", "\\", "\n", "x" * 300, "é" * 150, "~"]),
    min_size=1,
    max_size=12,
).map("/".join)


@given(KEYS, st.text(min_size=1, max_size=40))
def test_mask_names_stay_inside_output_and_fit_any_store(key: str, etag: str) -> None:
    usual, short = mask_keys(RECIPE, key, etag)
    assert len(short) < 100
    for name in (usual, short):
        segments = name.split("/")
        assert segments[:2] == ["masks", RECIPE.name]
        assert all(segment not in ("", ".", "..") and len(segment.encode()) <= 255 for segment in segments)
        assert all(ord(char) >= 32 and char != "\\" for char in name)
        assert len(name.encode()) <= 1024
        assert name.endswith(".png")


@example([("\0", "e"), ("", "e")])
@given(st.lists(st.tuples(KEYS, st.sampled_from(["e1", "e2"])), min_size=2, max_size=20, unique=True))
def test_different_images_have_different_mask_names(images: list[tuple[str, str]]) -> None:
    names = {name for key, etag in images for name in mask_keys(RECIPE, key, etag)}
    assert len(names) == 2 * len(images)


def test_a_newer_photo_under_the_same_key_has_a_mask_of_its_own() -> None:
    assert mask_key(RECIPE, "a.jpg", "old") != mask_key(RECIPE, "a.jpg", "new")
    long = "x" * 2000 + ".jpg"
    assert mask_key(RECIPE, long, "old") != mask_key(RECIPE, long, "new")


def test_an_ordinary_key_keeps_its_path() -> None:
    name = mask_key(RECIPE, "cam1/2026/front door.jpg", "abc")
    assert name.startswith(f"masks/{RECIPE.name}/cam1/2026/front door.jpg.")


def test_models_and_settings_have_folders_of_their_own() -> None:
    folders = {Recipe(model, params).name for model in ("m1", "m2") for params in ("p1", "p2")}
    assert len(folders) == 4


def test_params_id_does_not_depend_on_the_order_of_settings() -> None:
    assert params_id({"a": 1, "b": 2}) == params_id({"b": 2, "a": 1})
    assert params_id({"a": 1, "b": 2}) != params_id({"a": 1, "b": 3})
