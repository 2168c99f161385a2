"""A diverse list has the unsure images that are unlike each other, by features where there are any."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcn_core.inference import features as network_features
from pipeline.errors import InputError
from pipeline.insight.diverse import CANDIDATES, LONGEST, k_center
from pipeline.insight.rank import Ranking, rank
from pipeline.outputs.features import NUMBERS, read_features, write_features
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.labellings import BUILDING, CAR, RECIPE, ROAD, SKY, Mask, striped, write_run

RUN = "20260101T000000Z-0000"
KINDS = {"night": striped(SKY), "town": striped(BUILDING, CAR), "road": striped(ROAD)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labels"))


@pytest.fixture
def kinds(store: Store) -> Store:
    """Four images of each kind; those of the night are the least sure ones, then those of the town."""
    masks: dict[str, Mask | str] = {f"{kind}-{k}.jpg": mask for kind, mask in KINDS.items() for k in range(4)}
    sure = {key: 0.3 + place / 100 for place, key in enumerate(masks)}
    write_run(store, RUN, masks, confidence=sure)
    return store


def chosen(ranking: Ranking) -> list[str]:
    return [row.key for row in ranking.ranked]


points = arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.integers(-20, 20).map(float))


@given(points, st.integers(1, 35))
def test_the_furthest_from_all_chosen_is_chosen_next(points: npt.NDArray[np.float32], count: int) -> None:
    found = k_center(points, count)
    places = [place for place, _ in found]
    assert places[0] == 0
    assert len(set(places)) == len(places) == min(count, len(points))
    for number, (place, distance) in enumerate(found[1:], 1):
        left = [other for other in range(len(points)) if other not in places[:number]]
        nearest = {other: min(np.linalg.norm(points[other] - points[one]) for one in places[:number]) for other in left}
        assert distance == pytest.approx(nearest[place], abs=1e-4)
        assert nearest[place] == pytest.approx(max(nearest.values()), abs=1e-4)


def test_one_image_of_each_kind_comes_before_a_second_of_any(kinds: Store) -> None:
    assert chosen(rank(kinds, top=3)) == ["night-0.jpg", "night-1.jpg", "night-2.jpg"]
    found = rank(kinds, top=3, diverse=True)
    assert {key.split("-")[0] for key in chosen(found)} == set(KINDS)
    assert found.ranked[0].key == "night-0.jpg"
    assert [row.rank for row in found.ranked] == [1, 2, 3]
    assert found.diversity is not None
    assert "by the areas of their classes, for none of them have features" in found.diversity
    assert chosen(found) == chosen(rank(kinds, top=3, diverse=True))


def test_only_the_first_by_score_are_candidates(kinds: Store) -> None:
    assert CANDIDATES == 5
    assert {key.split("-")[0] for key in chosen(rank(kinds, top=1, diverse=True))} == {"night"}
    two = rank(kinds, top=2, diverse=True, per_folder=4)
    assert len(two.ranked) == 2
    assert "road" not in "".join(chosen(rank(kinds, "rare", top=1, diverse=True)))


def test_as_many_numbers_are_stored_as_a_network_gives() -> None:
    assert network_features.NUMBERS == NUMBERS


def features(place: int) -> npt.NDArray[np.float16]:
    return np.eye(NUMBERS, dtype=np.float16)[place]


def write(store: Store, seen: dict[str, int], shard: int = 0, run: str = RUN, etag: str = "e") -> None:
    rows = [(key, etag, features(place)) for key, place in seen.items()]
    write_features(store, run, shard, RECIPE.model_id, rows)


def test_features_count_where_all_candidates_have_them(kinds: Store) -> None:
    """By features the second image of the night is unlike all others, which are alike."""
    keys = [f"{kind}-{k}.jpg" for kind in KINDS for k in range(4)]
    write(kinds, {key: int(key == "night-1.jpg") for key in keys[:7]})
    partly = rank(kinds, top=2, diverse=True)  # ten candidates
    assert chosen(partly) != ["night-0.jpg", "night-1.jpg"]
    assert partly.diversity is not None
    assert "for 7 of them have features" in partly.diversity
    write(kinds, dict.fromkeys(keys[7:], 0), shard=1)
    found = rank(kinds, top=2, diverse=True)
    assert chosen(found) == ["night-0.jpg", "night-1.jpg"]
    assert found.diversity is not None
    assert "unlike each other by their features" in found.diversity


def test_features_are_those_of_the_model_and_of_the_image_as_it_was_segmented(kinds: Store) -> None:
    write(kinds, {"night-0.jpg": 1}, etag="older")
    write_features(kinds, RUN, 1, "f" * 16, [("night-0.jpg", "e", features(2))])
    assert read_features(kinds, RECIPE.model_id, {"night-0.jpg": "e"}) == {}
    write(kinds, {"night-0.jpg": 3}, run="20260102T000000Z-0000")
    write(kinds, {"night-0.jpg": 4}, run="20260103T000000Z-0000", etag="older")
    found = read_features(kinds, RECIPE.model_id, {"night-0.jpg": "e", "night-1.jpg": "e"})
    assert found.keys() == {"night-0.jpg"}
    assert (found["night-0.jpg"] == features(3)).all()


def test_a_shard_s_features_are_written_once(store: Store) -> None:
    write(store, {"a.jpg": 1})
    write(store, {"a.jpg": 2})
    assert (read_features(store, RECIPE.model_id, {"a.jpg": "e"})["a.jpg"] == features(1)).all()
    write(store, {}, shard=1)


@pytest.mark.parametrize("by", ["confidence", "rare"])
def test_what_is_annotated_is_not_asked_for_again(kinds: Store, by: str) -> None:
    first = chosen(rank(kinds, by, top=4, diverse=True))  # type: ignore[arg-type]
    second = chosen(rank(kinds, by, top=4, diverse=True, without=frozenset(first)))  # type: ignore[arg-type]
    assert len(second) == 4
    assert not set(first) & set(second)


def test_what_cannot_be_chosen_is_one_sentence(kinds: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=f"chooses up to {LONGEST} images, not {LONGEST + 1}"):
        rank(kinds, top=LONGEST + 1, diverse=True)
    assert "names no version" in refused(capsys, "rank", kinds.uri, "--without", "sets/street")
