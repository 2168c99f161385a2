"""Counts and times of a run come from what is committed, whatever became of its drivers."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.outputs.results import commit_shard
from pipeline.outputs.runs import Attempt, Counts, Progress, RunRecord, progress_key, write_record
from pipeline.outputs.standing import begin_attempt, count_committed, end_attempt, standing
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.labellings import ROAD, SETTINGS, SKY, rows_of, striped

BEGAN = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)


@pytest.fixture
def output(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labels"))


def record(**changes: object) -> RunRecord:
    begun = RunRecord(
        run_id="r", state="running", job={}, job_digest="0", model_id="1" * 16, params_id="2" * 16, recipe="x",
        settings=SETTINGS, images=80, shards=20, started=BEGAN, version="0",
    )  # fmt: skip
    return begun.model_copy(update=changes)


def commit(output: Store, first: int, last: int, at: float | None = None) -> None:
    """Commit shards `first` to `last` - 1 of four images each, of which shard 3 has an unreadable one."""
    for number in range(first, last):
        masks = {f"{number}-{index}.jpg": striped(SKY, ROAD) for index in range(4)}
        outcomes = {**masks, "3-0.jpg": "truncated"} if number == 3 else masks
        commit_shard(output, "r", number, rows_of(output, outcomes))
        if at is not None:
            path = Path(output.uri) / f"results/run_id=r/shard-{number:08d}.parquet"
            moment = (BEGAN + timedelta(seconds=at)).timestamp()
            os.utime(path, (moment, moment))


def tell(output: Store, shards: int, counts: Counts, updated: datetime) -> None:
    progress = Progress(
        run_id="r", images=80, done=counts.images, counts=counts, shards=20, shards_done=shards, actors=1,
        images_per_second=1, eta_seconds=None, restarts=0, retries=0, updated=updated,
    )  # fmt: skip
    output.put(progress_key("r"), progress.model_dump_json().encode())


def test_a_run_of_0_1_that_was_stopped_after_a_resume_shows_all_that_is_committed(output: Store) -> None:
    commit(output, 0, 20)
    old = record(state="interrupted", counts=Counts(images=30, ok=30), seconds=300.0)
    found = standing(output, old)
    assert found.counts == Counts(images=80, ok=79, errors={"truncated": 1})
    assert (found.shards_done, found.seconds) == (20, 300.0)


def test_a_killed_driver_leaves_counts_and_the_time_until_the_last_sign_of_it(output: Store) -> None:
    commit(output, 0, 5, at=14)
    tell(output, 4, Counts(images=16, ok=15, errors={"truncated": 1}), BEGAN + timedelta(seconds=12))
    found = standing(output, record(attempts=(Attempt(started=BEGAN),)))
    assert found.counts == Counts(images=20, ok=19, errors={"truncated": 1})
    assert found.seconds == pytest.approx(14)
    assert found.images_per_second == pytest.approx(20 / 14)


def test_a_run_at_work_is_counted_by_its_progress_once_that_knows_every_commit(
    output: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(output, 0, 5)
    now = datetime.now(UTC)
    tell(output, 5, Counts(images=20, ok=19, errors={"truncated": 1}), now)
    monkeypatch.setattr("pipeline.outputs.standing.count_committed", lambda *_: pytest.fail("no results are read"))
    found = standing(output, record(attempts=(Attempt(started=now - timedelta(seconds=8)),)))
    assert (found.counts.images, found.counts.failed) == (20, 1)
    assert found.seconds == pytest.approx(8)


def test_a_resumed_run_has_attempts_with_their_own_start_and_end(output: Store) -> None:
    commit(output, 0, 5, at=14)
    killed = record(attempts=(Attempt(started=BEGAN),))
    resumed, seen = begin_attempt(output, killed)
    assert resumed.counts == Counts(images=20, ok=19, errors={"truncated": 1})
    first, second = resumed.attempts
    assert (first.seconds, first.images, second.finished) == (pytest.approx(14), 20, None)
    commit(output, 5, 20)
    finished = end_attempt(resumed, count_committed(output, "r", seen), 6.0, "finished")
    assert finished.counts == Counts(images=80, ok=79, errors={"truncated": 1})
    assert [attempt.images for attempt in finished.attempts] == [20, 60]
    assert finished.seconds == pytest.approx(20)
    assert finished.images_per_second == pytest.approx(4)
    assert finished.finished == second.started + timedelta(seconds=6)


def test_what_was_committed_without_being_heard_counts_when_the_attempt_is_counted(output: Store) -> None:
    began, seen = begin_attempt(output, record())
    ended = end_attempt(began, seen, 5.0, "interrupted", "stopped on request")
    write_record(output, ended)
    commit(output, 0, 2)  # by an actor that outlived its driver for a moment
    assert standing(output, ended).counts.images == 8
