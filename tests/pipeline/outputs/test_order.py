"""A new run's id comes after all there are; what has been committed since a run was planned is found."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.outputs.order import new_run_id, overtaken_by
from pipeline.outputs.runs import is_run_id
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.clocks import set_clock

OLD, NEW = "20260101T000000Z-ffff", "20260101T000001Z-0000"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


seconds = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))


@settings(max_examples=60, deadline=None)
@given(clock=st.lists(seconds, min_size=2, max_size=6), folders=st.lists(st.sampled_from(["runs", "results", "plan"])))
def test_every_new_id_is_larger_than_all_before_whatever_the_clock_says(
    clock: list[datetime], folders: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("output")))
    store.put("results/run_id=not-ours/shard-00000000.parquet", b"")
    given_out: list[str] = []
    for now, folder in zip(clock, [*folders, *["runs"] * len(clock)], strict=False):
        with pytest.MonkeyPatch.context() as patch:
            set_clock(patch, now)
            given_out.append(new_run_id(store))
        name = given_out[-1]
        assert is_run_id(name)
        datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ")
        files = {"runs": f"runs/{name}/run.json", "plan": f"runs/{name}/plan/part-00000.parquet"}
        store.put(files.get(folder, f"results/run_id={name}/shard-00000000.parquet"), b"")
    assert given_out == sorted(set(given_out))


def test_where_the_clock_is_right_an_id_tells_the_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(f"runs/{OLD}/run.json", b"")
    set_clock(monkeypatch, datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC))
    assert new_run_id(store).startswith("20260101T000007Z-")


@pytest.mark.parametrize("last", ["99991231T235959Z-0000", "20269999T000000Z-0000"])
def test_where_no_id_can_come_after_the_newest_that_is_said(last: str, store: Store) -> None:
    store.put(f"runs/{last}/run.json", b"")
    with pytest.raises(InputError, match=rf"to come after run {last[:16]}.* move what that has"):
        new_run_id(store)


def planned(store: Store, run_id: str, when: int) -> None:
    put(store, f"runs/{run_id}/plan/plan.json", when)


def put(store: Store, key: str, when: int) -> None:
    store.put(key, b"")
    os.utime(Path(store.uri.removeprefix("file://")) / key, (when, when))


@pytest.mark.parametrize(
    ("other", "when", "overtakes"),
    [
        (NEW, 50, True),  # whatever the dates say
        (NEW, 150, True),
        ("20250101T000000Z-0000", 50, False),
        ("20250101T000000Z-0000", 150, True),  # an actor that was late
        (OLD, 150, False),  # its own
        ("zzz", 50, False),  # no name of ours
        ("zzz", 150, True),
    ],
)
def test_a_run_is_overtaken_by_whatever_was_committed_since_its_plan(
    other: str, when: int, overtakes: bool, store: Store
) -> None:
    planned(store, OLD, 100)
    put(store, f"results/run_id={other}/shard-00000000.parquet", when)
    assert overtaken_by(store, OLD) == (other if overtakes else None)


def test_a_newer_run_that_has_committed_nothing_overtakes_none(store: Store) -> None:
    planned(store, OLD, 100)
    planned(store, NEW, 200)
    assert overtaken_by(store, OLD) is None
