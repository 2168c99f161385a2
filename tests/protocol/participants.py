"""Participants: the real code in a thread of its own that stands still at each request until it is granted.

What a participant does depends on nothing but the responses that it got: its clock, its random numbers and its machine
are its own (`tests.protocol.virtual`). So a history of responses stands for its whole state, and the tree of histories
(`Node`) says what it asks for next. Each branch of it is found out by the real code, once.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.protocol.memory import Request, Response, asking

MAX_LIVE = 48
"""Threads that stand still at once; others are run again from their beginning when they are needed."""


class Gone(BaseException):
    """What a participant's requests are answered with when it is to end: a crash, as far as storage can tell."""


class Live:
    """A participant at work: `request` is what it waits for, None once it has ended."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.request: Request | None = None
        self.error: Exception | None = None
        self._response: Response | None = None
        self._is_gone = False
        self._granted, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(name, work), name=name, daemon=True)
        self._thread.start()
        self._stands.acquire()

    def grant(self, response: Response) -> None:
        """Give the response to the request, and wait for the next one or the end."""
        self._response = response
        self._granted.release()
        self._stands.acquire()

    def end(self) -> None:
        """Let it crash where it stands."""
        if self.request is not None:
            self._is_gone = True
            self._granted.release()
        self._thread.join()

    def _run(self, name: str, work: Callable[[], None]) -> None:
        asking.name, asking.ask = name, self._ask
        try:
            work()
        except Gone:
            pass
        except Exception as error:
            self.error = error
        self.request = None
        self._stands.release()

    def _ask(self, request: Request) -> Response:
        if not self._is_gone:
            self.request = request
            self._stands.release()
            self._granted.acquire()
        if self._is_gone:
            raise Gone
        assert self._response is not None
        return self._response


@dataclass(eq=False)
class Node:
    """A participant after one history of responses: what it asks for, None once it has ended, and how it ended."""

    request: Request | None
    error: Exception | None
    history: tuple["Node", Response] | None
    children: dict[int, "Node"] = field(default_factory=dict)


class Participant:
    """The tree of all that one participant was seen to do."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.histories = 0
        self.starts = 0
        self._work = work
        self._live: OrderedDict[Node, Live] = OrderedDict()
        self.start = self._stand(self._begin(), None)

    def after(self, node: Node, response: Response) -> Node:
        """Where it stands when its request at `node` is answered so."""
        mark = response.mark
        found = node.children.get(mark)
        if found is None:
            live = self._live.pop(node, None) or self._again(node)
            live.grant(response)
            found = node.children[mark] = self._stand(live, (node, response))
        return found

    def close(self) -> None:
        """End its threads."""
        for live in self._live.values():
            live.end()
        self._live.clear()

    def _begin(self) -> Live:
        self.starts += 1
        return Live(self.name, self._work)

    def _stand(self, live: Live, history: tuple[Node, Response] | None) -> Node:
        node = Node(live.request, live.error, history)
        self.histories += 1
        if live.request is not None:
            self._live[node] = live
            if len(self._live) > MAX_LIVE:
                self._live.popitem(last=False)[1].end()
        return node

    def _again(self, node: Node) -> Live:
        """The real code, led to `node` once more."""
        way: list[tuple[Node, Response]] = []
        while node.history is not None:
            way.append(node.history)
            node = node.history[0]
        live = self._begin()
        for before, response in reversed(way):
            assert live.request == before.request, f"{self.name} is not repeatable: {before.request}, {live.request}"
            live.grant(response)
        return live
