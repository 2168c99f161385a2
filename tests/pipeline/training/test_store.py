"""What a run keeps: checkpoints that are whole or not there, whoever else writes."""

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core.errors import CheckpointError
from fcn_core.training.checkpoint import STATE_FILE, TENSORS_FILE, to_files
from pipeline.errors import InputError, ObjectExists, PipelineError, StorageUnavailable
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from pipeline.training.records import Checkpoint, Measured
from pipeline.training.store import TrainStore
from tests.samples import model


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "run"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/run")


MEASURED = Measured(images_per_second=4.5, memory_bytes=1 << 30)


def checkpoint(step: int, value: float = 0.0) -> Checkpoint:
    loop = {"trainer": {"model": {"weight": torch.full((3,), value + step)}, "step": step}, "unlogged": [0.5]}
    return Checkpoint(step=step, loop=loop, times={"1": 12.5}, measured={"1": MEASURED}, examples=("examples/a",))


def weight(found: Checkpoint | None) -> float:
    assert found is not None
    return float(found.loop["trainer"]["model"]["weight"][0])


def test_a_checkpoint_comes_back_as_it_was(store: Store) -> None:
    run = TrainStore(store)
    assert run.newest_checkpoint() is None
    run.save_checkpoint(checkpoint(4))
    found = run.newest_checkpoint()
    assert found is not None
    assert (found.step, found.times, found.examples) == (4, {"1": 12.5}, ("examples/a",))
    assert found.measured == {"1": MEASURED}
    assert found.loop["unlogged"] == [0.5]
    assert weight(found) == 4


def test_a_checkpoint_of_an_earlier_version_measured_nothing(tmp_path: Path) -> None:
    run = TrainStore(open_store(str(tmp_path)))
    state = {"loop": checkpoint(4).loop, "times": {}, "examples": []}
    for name, content in to_files(state).items():
        run.store.put(f"checkpoints/step-00000004/{name}", content)
    found = run.newest_checkpoint()
    assert found is not None
    assert found.measured == {}
    assert weight(found) == 4


def test_the_newest_two_are_kept(store: Store) -> None:
    run = TrainStore(store)
    for step in (2, 4, 6, 8):
        run.save_checkpoint(checkpoint(step))
    assert run.checkpoint_steps() == [6, 8]
    assert len(list(store.list("checkpoints/"))) == 4, "nothing of the old ones is left"


def test_the_first_to_commit_a_step_wins(store: Store) -> None:
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(4, value=100))
    run.save_checkpoint(checkpoint(4, value=200))
    assert weight(run.newest_checkpoint()) == 104


def test_tensors_without_a_commit_are_no_checkpoint_and_in_nobodys_way(store: Store) -> None:
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(2))
    store.put("checkpoints/step-00000004/state.safetensors", b"of a writer that died")
    assert run.checkpoint_steps() == [2]
    assert weight(run.newest_checkpoint()) == 2
    run.save_checkpoint(checkpoint(4))
    assert weight(run.newest_checkpoint()) == 4


@pytest.mark.parametrize("damaged", [STATE_FILE, TENSORS_FILE])
def test_a_damaged_checkpoint_is_passed_over(store: Store, damaged: str) -> None:
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(2))
    run.save_checkpoint(checkpoint(4))
    key = f"checkpoints/step-00000004/{damaged}"
    store.put(key, store.get(key)[:-9] + b"123456789")
    assert weight(run.newest_checkpoint()) == 2
    with pytest.raises(CheckpointError):
        run.load_checkpoint(4)


@pytest.mark.parametrize("damaged", [STATE_FILE, TENSORS_FILE])
def test_a_damaged_checkpoint_is_written_anew_by_whoever_comes_to_its_step(store: Store, damaged: str) -> None:
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(2))
    run.save_checkpoint(checkpoint(4))
    key = f"checkpoints/step-00000004/{damaged}"
    store.put(key, store.get(key)[:-9] + b"123456789")
    run.save_checkpoint(checkpoint(4))
    assert weight(run.newest_checkpoint()) == 4


@pytest.mark.parametrize("damaged", [STATE_FILE, TENSORS_FILE])
def test_a_damaged_checkpoint_is_not_listed_and_no_whole_one_is_dropped_for_it(store: Store, damaged: str) -> None:
    run = TrainStore(store)
    for step in (2, 4):
        run.save_checkpoint(checkpoint(step))
    key = f"checkpoints/step-00000004/{damaged}"
    store.put(key, store.get(key)[:-9] + b"123456789")
    for reader in (run, TrainStore(store)):
        assert reader.checkpoint_steps() == [2]
        assert reader.newest_step() == 2
    run.save_checkpoint(checkpoint(3))
    assert run.checkpoint_steps() == [2, 3], "two whole ones, whatever else is there"
    run.save_checkpoint(checkpoint(5))
    assert run.checkpoint_steps() == [3, 5]
    assert not list(store.list("checkpoints/step-00000004/")), "what nobody comes to any more is dropped"


def test_a_checkpoint_without_its_tensors_is_not_listed(store: Store) -> None:
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(2))
    store.delete(f"checkpoints/step-00000002/{TENSORS_FILE}")
    assert run.checkpoint_steps() == []
    assert run.newest_step() is None
    run.save_checkpoint(checkpoint(2))
    assert run.checkpoint_steps() == [2]


def test_what_was_found_whole_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = TrainStore(open_store(str(tmp_path)))
    for step in (2, 4):
        run.save_checkpoint(checkpoint(step))
    read: list[int] = []
    load = TrainStore.load_checkpoint
    monkeypatch.setattr(TrainStore, "load_checkpoint", lambda self, step: (read.append(step), load(self, step))[1])
    assert run.checkpoint_steps() == [2, 4]
    run.save_checkpoint(checkpoint(6))
    assert read == [], "a writer knows what it wrote"
    reader = TrainStore(open_store(str(tmp_path)))
    assert reader.checkpoint_steps() == reader.checkpoint_steps() == [4, 6]
    assert read == [4, 6]


def test_dropped_checkpoints_leave_no_empty_folders(tmp_path: Path) -> None:
    run = TrainStore(open_store(str(tmp_path)))
    for step in (2, 4, 6):
        run.save_checkpoint(checkpoint(step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]
    run.drop_checkpoints(0)
    assert run.checkpoint_steps() == []
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_dead_drivers_worker_cannot_make_a_checkpoint_of_two_halves(tmp_path: Path) -> None:
    """It puts its own tensors after ours, and then finds that the step is committed."""
    store = open_store(str(tmp_path))
    run = TrainStore(store)
    run.save_checkpoint(checkpoint(2))
    run.save_checkpoint(checkpoint(4))
    strangers = TrainStore(open_store(str(tmp_path / "other")))
    strangers.save_checkpoint(checkpoint(4, value=0.5))
    theirs = strangers.store.get("checkpoints/step-00000004/state.safetensors")
    store.put("checkpoints/step-00000004/state.safetensors", theirs)
    assert weight(run.newest_checkpoint()) == 2, "what does not belong together is not taken"


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4, unique=True), min_size=2, max_size=3))
def test_writers_side_by_side_leave_whole_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, writers: list[list[int]]
) -> None:
    run = TrainStore(open_store(str(tmp_path_factory.mktemp("run"))))

    def write(steps: list[int]) -> None:
        for step in sorted(steps):
            run.save_checkpoint(checkpoint(step))

    threads = [threading.Thread(target=write, args=(steps,)) for steps in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = run.newest_checkpoint()
    assert newest is not None
    assert newest.step == max(step for steps in writers for step in steps)
    assert weight(newest) == newest.step


def test_best_models_stay_as_long_as_a_checkpoint_needs_them(store: Store) -> None:
    run = TrainStore(store)
    bundle = model()
    for step in (1, 3, 5, 7):
        run.save_best(step, bundle)
    run.drop_bests_but([1, 5])
    assert run.best_steps() == [1, 5, 7], "7 is newer than any checkpoint knows"
    assert run.load_best(5).model_id == bundle.model_id
    run.drop_bests_but([])
    assert run.best_steps() == [1, 5, 7]


def test_a_start_model_is_there_whole_or_not_at_all(store: Store) -> None:
    run = TrainStore(store)
    assert not run.has_start()
    store.put("start/model.safetensors", b"half")
    assert not run.has_start()
    run.save_start(model())
    assert run.has_start()
    assert run.load_start().model_id == model().model_id
    store.delete("start/model.safetensors")
    with pytest.raises(PipelineError, match=r"start is gone or damaged .* train under another name"):
        run.load_start()


def test_the_plan_is_written_once(store: Store) -> None:
    run = TrainStore(store)
    assert run.load_run() is None
    store.create("job.json", b"{}")
    with pytest.raises(InputError, match=r"job\.json is not one that this version reads"):
        run.load_run()
    with pytest.raises(ObjectExists):
        store.create("job.json", b"{}")


def test_a_stage_has_a_place_of_its_own(store: Store) -> None:
    run = TrainStore(store)
    run.stage("fcn32s").save_checkpoint(checkpoint(2))
    assert run.checkpoint_steps() == []
    assert run.stage("fcn32s").checkpoint_steps() == [2]
    assert run.stage("fcn16s").checkpoint_steps() == []


def test_storage_out_of_reach_is_not_taken_for_an_empty_run(bucket: str, s3_endpoint: str) -> None:
    from pipeline.storage.store import StorageOptions

    patience = StorageOptions(connect_seconds=0.2, read_seconds=0.5, retry_seconds=0.5, check_seconds=0.5)
    store = open_store(f"s3://{bucket}/run?endpoint_url=http://127.0.0.1:9", patience)
    with pytest.raises(StorageUnavailable):
        TrainStore(store).newest_checkpoint()
