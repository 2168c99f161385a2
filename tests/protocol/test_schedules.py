"""Random schedules of more of everything: whatever came of one, one more run finds, or makes, the output whole."""

import random
from typing import Any

import pytest

from tests.protocol.memory import Calm, Contents
from tests.protocol.scenarios import job, killed, newest_run_deleted, second_commit
from tests.protocol.schedules import Wandered, wander
from tests.protocol.world import Work, clean, driver, finish, index, problems, source_becomes

KEYS = ("a.jpg", "b.jpg", "c/d.jpg", "e.png")
VERSIONS = tuple(bytes(size) for size in (5, 7, 9))
SEEDS = 1000

Changes = list[dict[str, bytes | None]]


def changes(draw: random.Random, count: int) -> Changes:
    """Images that come, go and return."""
    return [{draw.choice(KEYS): draw.choice((None, *VERSIONS))} for _ in range(count)]


def history(draw: random.Random, options: dict[str, Any]) -> list[Work]:
    """What was done to the output before, one after the other."""
    jobs = [driver(job(**options, **more)) for more in ({}, {"include": ("*.jpg",)}, {"fresh": True}, {"limit": 2})]
    possible: list[Work] = [
        *jobs,
        killed(jobs[0], second_commit),
        lambda: [each() for each in (jobs[0], newest_run_deleted)],
        clean,
        index,
        source_becomes(*changes(draw, 2)),
    ]
    return draw.choices(possible, k=draw.randrange(5))


def schedule(seed: int) -> tuple[Wandered, Contents]:
    """One schedule, and what is stored after the run that came last."""
    draw = random.Random(seed)
    options = {"masks": draw.choice(("objects", "objects", "tar")), "shard_size": draw.choice((1, 2, 3))}
    calm = Calm(Contents())
    calm.do("source", source_becomes(dict.fromkeys(KEYS, VERSIONS[0])))
    for number, work in enumerate(history(draw, options)):
        calm.do(f"before {number}+-{20 - number}h", work)
    works = {
        "one": driver(job(**options)),
        "two+2h": driver(job(**options, include=draw.choice(((), ("*.jpg",), ("a*",))))),
        "three+4h": driver(job(**options, repair=draw.random() < 0.5, takeover=draw.random() < 0.5)),
        "gc+6h": clean,
        "another gc+8h": clean,
        "index": index,
        "another index": index,
        "source": source_becomes(*changes(draw, 4)),
    }
    found = wander(calm.contents, works, seed)
    return found, finish(found.contents, job(**options))


def check(seed: int) -> Wandered:
    found, contents = schedule(seed)
    wrong = problems(contents)
    assert not wrong, "\n".join([f"seed {seed}:", *found.steps, "", *wrong])
    return found


@pytest.mark.parametrize("seed", range(20))
def test_a_random_schedule_ends_whole(seed: int) -> None:
    assert check(seed).steps


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_thousand_random_schedules_end_whole() -> None:
    found = [check(seed) for seed in range(SEEDS)]
    steps, faults, crashes = (sum(each) for each in zip(*(_counts(each) for each in found), strict=True))
    print(f"{SEEDS:,} schedules of {steps:,} requests, {faults:,} faults and {crashes:,} crashes")
    assert min(steps, faults, crashes) > 0


def _counts(found: Wandered) -> tuple[int, int, int]:
    return len(found.steps), found.faults, found.crashes
