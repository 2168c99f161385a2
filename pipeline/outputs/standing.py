"""How a run stands, counted from what is committed: the one source of every number that people are shown of a run.

A finished run's record has its final numbers. Of any other run the record knows only what its driver last wrote, and a
killed driver writes nothing. So the committed shards are counted, and a killed attempt ends with the last sign of it.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from pipeline.outputs.results import RunTally, committed_files, read_result_files, shard_number, tally
from pipeline.outputs.runs import Attempt, Counts, Progress, RunRecord, RunState, read_progress
from pipeline.storage.store import ObjectInfo, Store

FRESH_SECONDS = 30.0
"""A driver that has written progress within so long is at work; it does so every five seconds."""

COUNTED_SHARDS = 1000
"""Of a run at work with more shards, the driver's own counts are taken, which are seconds old."""

_COLUMNS = ("status", "error", "areas")


def standing(store: Store, record: RunRecord) -> RunRecord:
    """`record` with the counts, shards, attempts and seconds of what is committed now.

    A finished run costs no request. Any other costs a listing, and a GET per committed shard where the record and the
    progress counted another number of shards.
    """
    if record.state == "finished":
        return record
    files = committed_files(store, record.run_id)
    progress = live_progress(store, record)
    attempts = _ended(record, _last_sign(files.values(), progress))
    counts, shards = record.counts, record.shards_done
    # What 0.1 wrote as progress counts its own attempt alone.
    exact = progress is not None and bool(record.attempts)
    if progress is not None and exact and (progress.shards_done == len(files) or _is_enough(progress, record)):
        counts, shards = progress.counts, progress.shards_done
    elif shards != len(files):
        seen = count_committed(store, record.run_id)
        counts, shards = counts_of(seen), len(seen.shards)
    seconds = sum(attempt.seconds for attempt in attempts)
    return record.model_copy(update={"counts": counts, "shards_done": shards, "attempts": attempts, "seconds": seconds})


def begin_attempt(store: Store, record: RunRecord, lease: int | None = None) -> tuple[RunRecord, RunTally]:
    """The record of a run that the driver with that lease begins or resumes now, and what is committed of it.

    An attempt that was killed gets its end, and its images.
    """
    now = datetime.now(UTC)
    files = committed_files(store, record.run_id)
    seen = count_committed(store, record.run_id) if files else RunTally()
    attempts = _ended(record, _last_sign(files.values(), live_progress(store, record)))
    counts = counts_of(seen)
    if attempts:
        before = sum(attempt.images for attempt in attempts[:-1])
        ended = min(now, attempts[-1].finished or now)
        last = attempts[-1].model_copy(update={"finished": ended, "images": max(0, counts.images - before)})
        attempts = (*attempts[:-1], last)
    return _with(record, seen, (*attempts, Attempt(started=now, lease=lease)), state="running", reason=None), seen


def end_attempt(
    record: RunRecord, seen: RunTally, seconds: float, state: RunState, reason: str | None = None
) -> RunRecord:
    """The record of a run whose newest attempt ends after `seconds`, with all of `seen` committed."""
    *earlier, last = record.attempts
    images = counts_of(seen).images - sum(attempt.images for attempt in earlier)
    finished = last.started + timedelta(seconds=seconds)
    last = last.model_copy(update={"finished": finished, "images": images})
    ended = _with(record, seen, (*earlier, last), state=state, reason=reason)
    return ended.model_copy(update={"finished": finished})


def count_committed(store: Store, run_id: str, seen: RunTally | None = None) -> RunTally:
    """What the committed shards of a run add up to; those that `seen` lacks are read and added to it."""
    seen = seen or RunTally()
    for info, table in read_result_files(store, run_id, _COLUMNS, but=seen.shards):
        number = shard_number(info.key)
        assert number is not None, "only shards' files are read"
        seen.add(number, tally(table))
    return seen


def counts_of(seen: RunTally) -> Counts:
    """The images of counted shards, by outcome."""
    return Counts(images=seen.ok + seen.errors.total(), ok=seen.ok, errors=dict(sorted(seen.errors.items())))


def _with(
    record: RunRecord, seen: RunTally, attempts: tuple[Attempt, ...], state: RunState, reason: str | None
) -> RunRecord:
    return record.model_copy(
        update={
            "state": state,
            "reason": reason,
            "counts": counts_of(seen),
            "shards_done": len(seen.shards),
            "attempts": attempts,
            "seconds": sum(attempt.seconds for attempt in attempts),
        }
    )


def live_progress(store: Store, record: RunRecord) -> Progress | None:
    """The progress of the attempt that is at work, or was killed; None when it has written none yet."""
    progress = read_progress(store, record.run_id) if record.state == "running" else None
    if progress is None or (record.attempts and progress.updated < record.attempts[-1].started):
        return None
    return progress


def _is_enough(progress: Progress, record: RunRecord) -> bool:
    silent = (datetime.now(UTC) - progress.updated).total_seconds()
    return silent < FRESH_SECONDS and record.shards > COUNTED_SHARDS


def _last_sign(files: Collection[ObjectInfo], progress: Progress | None) -> datetime | None:
    signs = [info.last_modified for info in files] + ([progress.updated] if progress else [])
    return max(signs, default=None)


def _ended(record: RunRecord, last_sign: datetime | None) -> tuple[Attempt, ...]:
    """The attempts of a run, where one that is at work or was killed ends with the last sign of it."""
    if not record.attempts:
        return _attempts_of_old(record, last_sign)
    *earlier, last = record.attempts
    if last.finished is not None:
        return record.attempts
    ended = max(last.started, last_sign or last.started)
    return (*earlier, last.model_copy(update={"finished": ended}))


def _attempts_of_old(record: RunRecord, last_sign: datetime | None) -> tuple[Attempt, ...]:
    """The same of a record of 0.1, which has one duration for all attempts that ended, and none for a killed one."""
    if not record.seconds and last_sign is None:
        return ()
    known = record.started + timedelta(seconds=record.seconds)
    finished = known if record.seconds or last_sign is None else max(known, last_sign)
    return (Attempt(started=record.started, finished=finished, images=record.counts.images),)
