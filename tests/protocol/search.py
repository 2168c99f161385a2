"""Every order of participants' requests, within bounds: a depth-first search over what is stored and where each stands.

A state is what is stored, and the history of each participant. From one that has been seen no second look is taken,
unless more is left of the bounds. The participant that made the last request goes on for nothing; having another go on
while it could is a *switch*, of which there are so many. Whoever is switched from goes on later (it was frozen), or
never (it crashed, as far as storage can tell). The run that comes last, and the judgement, come for nothing once nobody
is left whom a switch would have to stop: and for a switch after each single step. So two switches are, for instance,
each step of one at which it freezes, times each step of another at which that one does; or a freeze, and then a crash.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.protocol.memory import FAULTS, Contents, Response, faults_of
from tests.protocol.participants import Node, Participant
from tests.protocol.world import Work

Way = tuple["Way", str] | None
"""The steps that led to a state, as a chain that shares its beginning with others."""


@dataclass(frozen=True, slots=True)
class State:
    """`running` made the last request, -1 at first. `switches` and `faults` are what is left of the bounds."""

    contents: Contents
    nodes: tuple[Node, ...]
    running: int
    switches: int
    faults: int
    way: Way

    @property
    def goes_on(self) -> bool:
        """Whether the participant that made the last request could make another."""
        return self.running >= 0 and self.nodes[self.running].request is not None

    @property
    def mark(self) -> tuple[int, ...]:
        return (self.contents.mark, self.running if self.goes_on else -1, *map(id, self.nodes))


@dataclass
class Explored:
    """How much was looked at: states, steps between them, contents that were judged; and the real code's runs."""

    states: int = 0
    steps: int = 0
    judged: int = 0
    histories: int = 0
    starts: int = 0
    failures: list[tuple[list[str], list[str]]] = field(default_factory=list)
    """Schedules after which the output was not whole, and why not."""

    def __str__(self) -> str:
        return (
            f"{self.states:,} states, {self.steps:,} steps, {self.judged:,} outputs judged; {self.histories:,} "
            f"histories in {self.starts:,} runs of the real code"
        )


def explore(
    before: Contents,
    works: Mapping[str, Work],
    judge: Callable[[Contents], list[str]],
    *,
    switches: int,
    faults: int = 0,
    most_failures: int = 3,
) -> Explored:
    """Try all schedules of `works` that begin with what is stored `before`; ends early after `most_failures`.

    With `faults`, so many requests of a schedule are answered with an error, each in all ways of FAULTS.
    """
    found = Explored()
    seen: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    judged: set[int] = set()
    participants = [Participant(name, work) for name, work in works.items()]

    def visit(state: State) -> Iterator[State]:
        """The states after one that has to be looked at; none where it has been."""
        bounds = seen.setdefault(state.mark, [])
        if any(state.switches <= switches and state.faults <= faults for switches, faults in bounds):
            return iter(())
        found.states += not bounds
        bounds.append((state.switches, state.faults))
        if state.switches or not state.goes_on:
            mark = _what_counts(state.contents)
            if mark not in judged:
                judged.add(mark)
                wrong = judge(state.contents)
                if wrong:
                    found.failures.append((_told(state.way), wrong))
        return _steps(state, participants)

    # Iterators, so that the real code is asked when a step is taken, and its thread still stands there.
    stack = [visit(State(before, tuple(each.start for each in participants), -1, switches, faults, None))]
    while stack and len(found.failures) < most_failures:
        state = next(stack[-1], None)
        if state is None:
            stack.pop()
        else:
            found.steps += 1
            stack.append(visit(state))
    found.judged = len(judged)
    for each in participants:
        found.histories += each.histories
        found.starts += each.starts
        each.close()
    return found


def _steps(state: State, participants: Sequence[Participant]) -> Iterator[State]:
    """The states one request later; the participant that runs comes first."""
    places = range(len(participants))
    for index in sorted(places, key=lambda place: place != state.running):
        switches = state.switches - (state.goes_on and index != state.running)
        if state.nodes[index].request is not None and switches >= 0:
            yield from _answers(state, index, switches, participants[index])


def _answers(state: State, index: int, switches: int, participant: Participant) -> Iterator[State]:
    """The states after the next request of one participant: whatever it may be answered."""
    node = state.nodes[index]
    request = node.request
    assert request is not None

    def after(contents: Contents, response: Response, faults: int, how: str = "") -> State:
        nodes = (*state.nodes[:index], participant.after(node, response), *state.nodes[index + 1 :])
        return State(contents, nodes, index, switches, faults, (state.way, f"{participant.name}: {request}{how}"))

    contents, response = state.contents.apply(request)
    yield after(contents, response, state.faults)
    for how in faults_of(request, response) if state.faults else ():
        error, takes_effect = FAULTS[how]
        yield after(contents if takes_effect else state.contents, Response(error=error), state.faults - 1, f" ({how})")


def _what_counts(contents: Contents) -> int:
    """The mark of contents without leases: whoever comes later takes every owner for dead, whichever it is."""
    mark = contents.mark
    for key, stored in contents.objects.items():
        if key.startswith("output/lease/"):
            mark ^= stored.mark
    return mark


def _told(way: Way) -> list[str]:
    steps: list[str] = []
    while way is not None:
        way, step = way
        steps.append(step)
    return steps[::-1]
