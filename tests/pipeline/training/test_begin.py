"""How a training begins, where two begin at once, and where one died on the way: its plan and its start model."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import InputError, PipelineError
from pipeline.jobs.train import TrainJob
from pipeline.outputs.lease import Lease, TakenOver
from pipeline.training import job as training
from pipeline.training.group_spec import GroupResult
from pipeline.training.observer import TrainObserver
from pipeline.training.plan import check_inputs, new_run
from pipeline.training.progress import now
from pipeline.training.records import TrainRecord, TrainRun
from tests.trainings import InProcess, job, kept, write_scenes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begin")
    write_scenes(folder / "data", train=2, val=1)
    return folder


def begin(this: TrainJob) -> TrainRun:
    """The first step of a driver; who holds the lease makes no difference to it."""
    lease = cast(Lease, None)
    return training._Driver(this, check_inputs(this), TrainObserver(), lambda: False, lease, None)._begin()


def meanwhile(monkeypatch: pytest.MonkeyPatch, other: TrainJob) -> list[TrainRun]:
    """The next driver prepares its plan, and before it writes it another one has begun. Returns the other's plan."""
    begun: list[TrainRun] = []

    def prepare(*arguments: Any) -> Any:
        monkeypatch.setattr(training, "new_run", new_run)
        prepared = new_run(*arguments)
        begun.append(begin(other))
        return prepared

    monkeypatch.setattr(training, "new_run", prepare)
    return begun


def test_a_training_does_not_go_on_with_its_own_plan_where_another_has_begun(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = job(place, name="two", train={"steps": 2, "seed": 1})
    begun = meanwhile(monkeypatch, first)
    with pytest.raises(InputError, match=r"holds another training: .*seed was 1 and is 2"):
        begin(job(place, name="two", train={"steps": 2, "seed": 2}))
    store = kept(first)
    assert [store.load_run()] == begun
    assert store.load_start().model_id == begun[0].start_model_id, "the start model is still that of the plan"


def test_a_training_that_another_has_begun_alike_goes_on_from_the_others_plan(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = job(place, name="alike", train={"steps": 2})
    begun = meanwhile(monkeypatch, same)
    assert [begin(same)] == begun


def test_a_training_that_died_between_its_plan_and_its_start_model_gets_the_same_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = job(place, name="died", train={"steps": 2})

    def die(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.TrainStore, "save_start", die)
        with pytest.raises(KeyboardInterrupt):
            begin(same)
    run = begin(same)
    assert kept(same).load_start().model_id == run.start_model_id


def test_a_start_model_that_is_another_by_now_is_refused(place: Path) -> None:
    same = job(place, name="changed", train={"steps": 2})
    run = begin(same)
    store = kept(same).store
    store.delete("start/model.json")
    store.put("job.json", run.model_copy(update={"start_model_id": "0" * 16}).model_dump_json().encode())
    with pytest.raises(InputError, match=r"was begun with the start model 0{16}, which it never got"):
        begin(same)


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_a_driver_that_was_superseded_leaves_the_record_to_its_successor(
    place: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Another driver takes over in the last moment, before a heartbeat could have shown it."""
    this = job(place, name=f"superseded-{ending}", train={"steps": 2}, val_split=None)
    successors = TrainRecord(state="running", started=now(), updated=now(), version="successor")

    class TakenAtTheEnd(InProcess):
        def wait(self, seconds: float) -> GroupResult | None:
            result = super().wait(seconds)
            if result is None:
                return None
            Lease.acquire(kept(this).store, takeover=True)
            kept(this).save_record(successors)
            return result if ending == "finished" else GroupResult(None, failed="its node is gone")

    monkeypatch.setattr(training, "Group", TakenAtTheEnd)
    with pytest.raises(TakenOver if ending == "finished" else PipelineError):
        training.train(this)
    assert kept(this).load_record() == successors
