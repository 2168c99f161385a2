"""The leader of a training's workers: whenever one of them dies, it is a failure like any other."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from pipeline.training import leader
from pipeline.training.group_spec import GroupResult, GroupSpec
from pipeline.training.leader import GroupLeader
from pipeline.training.progress import WorkerOutcome

OUTCOME = WorkerOutcome(finished=True, step=8, seconds=1.0)


def group(max_failures: int) -> GroupSpec:
    return GroupSpec(
        workers=(1, 1), cpus=1, use_gpu=False, device="cpu", resources={}, placement="PACK", backend="gloo",
        backend_timeout=60, environment={}, max_failures=max_failures, resize_interval=60,
    )  # fmt: skip


def led(monkeypatch: pytest.MonkeyPatch, ends: list[TrainingFailedError], max_failures: int = 10) -> Any:
    """The result of a stage of which Ray Train ends like this, one time after the other, and then well.

    Also how many failures it was allowed each time.
    """
    allowed: list[int] = []

    class Trainer:
        def __init__(self, worker: Any, run_config: Any, **rest: Any) -> None:
            allowed.append(run_config.failure_config.max_failures)

        def fit(self) -> Any:
            if ends:
                raise ends.pop(0)
            return SimpleNamespace(return_value=OUTCOME)

    monkeypatch.setattr(leader, "_Trainer", Trainer)
    led_by = GroupLeader()
    return led_by.run(None, group(max_failures), "night", [None]), allowed, led_by.status()


def lost_at_start() -> ControllerError:
    """As Ray Train 2.60 reports a worker that dies while its process group is set up, and one that does at its end."""
    return ControllerError(ActorDiedError())


def lost_by_echo() -> ControllerError:
    """What the others say of it: their connection broke."""
    cause = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")
    return ControllerError(RayTaskError("setup", "\x1b[36mray::setup()\x1b[39m", cause))


@pytest.mark.parametrize("lost", [lost_at_start, lost_by_echo])
def test_a_worker_killed_while_its_group_starts_or_ends_counts_as_a_failure_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, lost: Any
) -> None:
    result, allowed, status = led(monkeypatch, [lost(), lost(), lost()])
    assert result == GroupResult(OUTCOME)
    assert allowed == [10, 9, 8, 7]
    assert status.failures == 3
    assert status.waiting
    assert status.reason.startswith("a worker was lost while its group started or ended (")
    assert "\x1b" not in status.reason


def test_so_many_of_them_end_the_training_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    result, allowed, status = led(monkeypatch, [lost_at_start() for _ in range(5)], max_failures=2)
    assert result.outcome is None
    assert "a worker was lost" in str(result.failed)
    assert (allowed, status.failures) == ([2, 1, 0], 3)
    forever, allowed, _ = led(monkeypatch, [lost_at_start() for _ in range(5)], max_failures=-1)
    assert (forever.outcome, set(allowed)) == (OUTCOME, {-1})


def test_what_no_other_try_would_mend_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, allowed, _ = led(monkeypatch, [ControllerError(leader._Refused("no such data set"))])
    assert (refused.refused, allowed) == ("no such data set", [10])
    odd, allowed, _ = led(monkeypatch, [ControllerError(ValueError("a mistake"))])
    assert (odd.failed, allowed) == ("a mistake", [10])
    worn_out, allowed, _ = led(monkeypatch, [WorkerGroupError("x", {0: ValueError("again")})])
    assert (worn_out.failed, allowed) == ("worker 0 failed (again)", [10])
