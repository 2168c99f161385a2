"""Schedules that the search, or a seed, has found to break an output: each is one fault that was mended."""

import pytest

from pipeline.outputs.runs import run_ids
from tests.protocol.memory import Calm, Contents
from tests.protocol.scenarios import ONLY_A, after, job
from tests.protocol.schedules import before, play
from tests.protocol.world import OUTPUT, clean, driver, finish, index, problems

WORKS = {"one": driver(), "gc+4h": clean, "index": index}


@pytest.mark.parametrize("part", ["plan/plan.json", "claim.json"])
def test_a_run_whose_plan_gc_took_for_a_leftover_stands_in_nobodys_way(part: str) -> None:
    """A driver freezes before its plan is whole, or has a record; gc comes and goes."""
    contents = play(after(), WORKS, [("one", before("create", part)), ("gc+4h", None), ("one", None)])
    assert records(contents) == []
    assert problems(finish(contents)) == []


@pytest.mark.parametrize("until", ["claim.json", "run.json"])
def test_a_plan_that_gc_is_about_to_remove_is_removed_or_becomes_a_run_but_not_both(until: str) -> None:
    """Both have looked, and each goes on only when the other has done what it had decided."""
    last = before("delete", "plan/") if until == "claim.json" else None  # a plan that a run has claimed stays
    moves = [("one", before("create", until)), ("gc+4h", last), ("one", None), ("gc+4h", None)]
    contents = play(after(), WORKS, moves)
    assert len(records(contents)) == (until == "run.json")
    assert problems(finish(contents)) == []


@pytest.mark.parametrize(("prefix", "look"), [("runs/", 3), ("class_totals/", 1)])
def test_gc_takes_nothing_of_a_run_that_came_after_its_first_look(prefix: str, look: int) -> None:
    """gc freezes before it lists a kind, having read which runs there are; its clock is ahead, so all seems old."""
    moves = [("gc+4h", before("list", prefix, look)), ("one", None), ("gc+4h", None)]
    contents = play(after(driver(ONLY_A)), WORKS, moves)
    assert len(records(contents)) == 2
    assert problems(finish(contents)) == []


def test_an_index_that_lost_a_part_to_a_late_deletion_is_replaced() -> None:
    """Compaction freezes for so long that gc takes its parts for leftovers, and then writes the manifest. The digest of
    what it covered is larger than that of the index that comes next."""
    moves = [("index", before("create", "shards.parquet")), ("gc+4h", None), ("index", None)]
    contents = play(after(driver(job(include=("a*",), masks="tar"))), WORKS, moves)
    assert any("a part is missing" in problem for problem in problems(contents))
    assert problems(finish(contents)) == []


def records(contents: Contents) -> list[str]:
    found: list[str] = []
    Calm(contents).do("judge", lambda: found.extend(run_ids(OUTPUT)))
    return found
