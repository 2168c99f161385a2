"""Model check of the commit protocol: whatever the order of requests, one more run finds, or makes, the output whole.

See `tests.protocol.search` for what is tried, and `tests.protocol.scenarios` for where it begins.
"""

import pytest

from tests.protocol.memory import Contents
from tests.protocol.scenarios import SCENARIOS
from tests.protocol.search import Explored, explore
from tests.protocol.world import finish, problems


def check(scenario: str, *names: str, switches: int, faults: int = 0) -> Explored:
    """Explore a scenario with those of its participants, and fail with the first schedules that break the output."""
    chosen = SCENARIOS[scenario]
    works = (
        {name: work for name, work in chosen.works.items() if name.split("+")[0] in names} if names else chosen.works
    )
    assert len(works) == len(names or works)

    def judge(contents: Contents) -> list[str]:
        try:
            return problems(finish(contents, chosen.last))
        except Exception as error:  # the run that comes last, or gc, refuses to work
            return [f"{type(error).__name__}: {error}"]

    found = explore(chosen.before(), works, judge, switches=switches, faults=faults)
    print(f"{scenario}, {', '.join(works)}, {switches} switches, {faults} faults: {found}")
    told = ["\n".join([*steps, "", *wrong]) for steps, wrong in found.failures]
    assert not told, "\n\n".join(["the output is not whole after", *told])
    assert found.states > found.judged > 0
    return found


def test_a_driver_and_gc_may_freeze_and_die_at_every_request() -> None:
    check("masks without rows", "one", "gc", switches=1)


def test_two_drivers_may_freeze_and_die_at_every_request_while_an_image_changes() -> None:
    check("interrupted, changing", "one", "two", "source", switches=1)


def test_one_request_may_fail_or_be_answered_wrongly() -> None:
    check("nothing", "one", switches=1, faults=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_participants_one_switch(scenario: str) -> None:
    check(scenario, switches=1)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", [("one", "gc"), ("one", "two"), ("gc", "index")], ids="-".join)
@pytest.mark.parametrize("scenario", ["nothing", "masks without rows", "packed", "interrupted"])
def test_two_participants_two_switches(scenario: str, names: tuple[str, ...]) -> None:
    check(scenario, *names, switches=2)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", ["masks without rows", "packed", "interrupted"])
def test_two_participants_a_switch_and_a_fault(scenario: str) -> None:
    check(scenario, "one", "gc", switches=1, faults=1)
