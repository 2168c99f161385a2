"""Why an actor died: memory and disk are named, by the kernel's counter, the disk, and Ray's own words, as recorded."""

import pytest
from ray.exceptions import ActorDiedError, OutOfDiskError, OutOfMemoryError, RayError, RayTaskError

from pipeline.actors import deaths
from pipeline.actors.deaths import Deaths, NodeState
from pipeline.actors.ray_words import clean, plain

DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\t"
    "actor_id: 98cbe16fdf58d00b4cf5675201000000\n\tpid: 29735\n\tnamespace: ae92c81f\n\tip: 127.0.0.1\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called, or (3) the worker crashed "
    "unexpectedly due to SIGSEGV or another unexpected error."
)
"""What Ray 2.60 said of an actor that had been killed."""

MEMORY = (
    "Memory on the node (IP: 10.0.0.7, ID: 7800f990) where the task was running was 0.86GB / 0.90GB (0.955), which "
    "exceeds the memory usage threshold of 0.95.\nRay killed this worker (ID: 78d53c) because it was the most recently "
    "scheduled task."
)


def died(message: str = DIED) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = message
    return error


class Node:
    """A node whose state a test sets; only what it says of itself is known of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = NodeState(0, 900 << 20, "/tmp/ray/session", 50 << 30, 100 << 30)
        monkeypatch.setattr(deaths, "_is_private", lambda: False)
        monkeypatch.setattr(Deaths, "_ask", lambda _, node_id: self.state)

    def has(self, **changes: int) -> None:
        self.state = NodeState(**(vars(self.state) | changes))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_an_actor_that_the_kernel_ended_for_want_of_memory_is_said_to_have_lacked_it(node: Node) -> None:
    known = Deaths()
    known.note("n", 3)
    known.note("n", 4)  # of an actor that came after the death
    node.has(oom_kills=4)
    said = str(known.cause("n", died()))
    assert "the kernel ended a process there for want of memory; its container may take 944 MB" in said
    assert "fewer --actors" in said
    assert known.cause("n", died()) is None, "what was before is of no death that comes later"


def test_a_full_disk_of_rays_session_is_named_with_its_place(node: Node) -> None:
    node.has(disk_free=1 << 30)
    said = str(Deaths().cause("n", died()))
    assert said.startswith("the disk of Ray's session is full (1.07 GB free at /tmp/ray/session); free it")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (OutOfMemoryError(MEMORY), "memory"),
        (OutOfDiskError("x"), "disk"),
        (died(DIED.replace("End of file", "write: No space left on device")), "disk"),
    ],
)
def test_rays_own_words_for_memory_and_disk_are_taken(node: Node, error: RayError, lacks: str) -> None:
    cause = Deaths().cause("n", error)
    assert cause is not None
    assert cause.lacks == lacks


def test_a_death_of_another_kind_is_blamed_on_nothing(node: Node) -> None:
    assert Deaths().cause("n", died()) is None
    assert plain(died()) == "the actor's process (process 29735 on 127.0.0.1) was killed or crashed"
    killed = DIED.partition("\n")[0] + "\n\tclass_name: A\nThe actor is dead because it was killed by `ray.kill`."
    assert plain(died(killed)) == "The actor is dead because it was killed by `ray.kill`"


def test_messages_of_rays_lose_their_colours_ids_and_objects() -> None:
    assert clean("\x1b[36mray::A.boom()\x1b[39m failed") == "ray::A.boom() failed"
    assert clean("got <pipeline.actors.worker._ShardWorker object at 0x7f1a5d998710>") == "got _ShardWorker"
    assert clean("ObjectRef(00ffab01) of Actor(_ShardWorker, 7558fed5) is lost") == "ObjectRef of _ShardWorker is lost"
    assert clean("one\n  two\x1b]8;;http://x\x07") == "one two"
    assert len(clean("x" * 10_000)) <= 300
    cause = ValueError("no \x1b[31mway\x1b[0m\nmore")
    error = RayTaskError("f", "\x1b[36mray::f()\x1b[39m (pid=1)\nValueError: no way", cause)
    assert plain(error) == "ValueError: no way"
