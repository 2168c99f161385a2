"""Schedules of the real code that are given, or drawn from a seed: no state is looked at twice, and none is left out.

`play` leads participants through a schedule that was found once. `wander` draws one: who makes the next request, which
of them fail and how, who crashes and when; listings come in pages, between which others are at work.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.protocol.memory import FAULTS, Calm, Contents, Request, Response, faults_of
from tests.protocol.participants import Live
from tests.protocol.world import Work

Until = Callable[[Request], bool]


def before(verb: str, part: str, nth: int = 1) -> Until:
    """A participant stands still before the nth request of that verb whose key has that part."""
    met: list[Request] = []

    def is_next(request: Request) -> bool:
        if request.verb == verb and part in request.key and not any(request is each for each in met):
            met.append(request)
        return len(met) == nth and request is met[-1]

    return is_next


def play(contents: Contents, works: Mapping[str, Work], moves: Sequence[tuple[str, Until | None]]) -> Contents:
    """What is stored after these moves: a participant goes on until that request is next, or to its end."""
    calm = Calm(contents)
    lives = {name: Live(name, work) for name, work in works.items()}
    for name, until in moves:
        live = lives[name]
        while live.request is not None and not (until is not None and until(live.request)):
            live.grant(calm.grant(live.request))
        assert until is None or live.request is not None, f"{name} has ended before that request"
    for live in lives.values():
        live.end()
    return calm.contents


@dataclass
class Wandered:
    """What is stored after a random schedule, and the schedule."""

    contents: Contents
    steps: list[str] = field(default_factory=list)
    faults: int = 0
    crashes: int = 0


SWITCH_RATE, FAULT_RATE, CRASH_RATE = 0.15, 0.01, 0.004
"""How likely a step is made by another than the one before, fails, and is the last of its participant."""

PAGE = 4


def wander(contents: Contents, works: Mapping[str, Work], seed: int) -> Wandered:
    """Draw a schedule from `seed`, and go through it to the end of all participants."""
    draw = random.Random(seed)
    found = Wandered(contents)
    lives = {name: Live(name, work) for name, work in works.items()}
    running = draw.choice(sorted(lives))
    while True:
        waiting = [name for name in sorted(lives) if lives[name].request is not None]
        if not waiting:
            return found
        if running not in waiting or draw.random() < SWITCH_RATE:
            running = draw.choice(waiting)
        live = lives[running]
        request = live.request
        assert request is not None
        if draw.random() < CRASH_RATE:
            found.steps.append(f"{running}: dies before {request}")
            found.crashes += 1
            live.end()
            continue
        after, response = found.contents.apply(request, page=PAGE)
        how = ""
        if draw.random() < FAULT_RATE:
            how = draw.choice(faults_of(request, response))
            error, takes_effect = FAULTS[how]
            after, response = after if takes_effect else found.contents, Response(error=error)
            found.faults += 1
        found.steps.append(f"{running}: {request}{how and f' ({how})'}")
        found.contents = after
        live.grant(response)
