"""A run's own record: run.json (what was asked, how it was resolved, how it stands) and progress.json (live numbers).

Neither says what is done: the committed results do. The record finds an unfinished run again and keeps what "auto" was
resolved to. To show a run to a person, ask `pipeline.outputs.standing`, which counts what is committed.
"""

import contextlib
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fcn_core import PredictorSettings
from pipeline.errors import InputError, ObjectMissing, PipelineError, StorageError
from pipeline.models.origin import ModelOrigin
from pipeline.outputs.claim import claim_for_run
from pipeline.outputs.seal import BrokenSeal, check_json, to_json
from pipeline.sources.opening import open_source
from pipeline.sources.source import Source
from pipeline.storage.store import Store, create_own

PROGRESS_SECONDS = 5.0

RunState = Literal["running", "finished", "interrupted", "failed"]

_RUN_KEY = re.compile(r"runs/([^/]+)/run\.json")
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")


class DamagedRecord(StorageError):
    """A run.json that is no run record, or one of another version."""


class Counts(BaseModel):
    """Images by outcome; `errors` counts error rows by reason."""

    model_config = ConfigDict(frozen=True)

    images: int = 0
    ok: int = 0
    errors: dict[str, int] = Field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    @property
    def error_rate(self) -> float:
        """Share of the finished images that have no mask, 0..1."""
        finished = self.ok + self.failed
        return self.failed / finished if finished else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        errors = {
            reason: self.errors.get(reason, 0) + other.errors.get(reason, 0)
            for reason in sorted(self.errors.keys() | other.errors.keys())
        }
        return Counts(images=self.images + other.images, ok=self.ok + other.ok, errors=errors)


class Attempt(BaseModel):
    """One driver's work on a run. `finished` is None while it works, and after it was killed. `images` were committed
    meanwhile."""

    model_config = ConfigDict(frozen=True)

    started: datetime
    finished: datetime | None = None
    images: int = 0
    lease: int | None = None
    """The number of its driver's lease. None in records that are older than this field."""

    @property
    def seconds(self) -> float:
        """How long it took; 0 while that is not known."""
        return (self.finished - self.started).total_seconds() if self.finished else 0.0


class RunRecord(BaseModel):
    """run.json. `counts` and `shards_done` are those of all attempts, as of the moment when the newest one began or
    ended; `seconds` is the sum over the attempts that ended."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: RunState
    job: dict[str, Any]
    job_digest: str
    model: ModelOrigin | None = None
    """What `job.model` stood for when the run was planned. None in records that are older than registries."""
    model_id: str
    params_id: str
    recipe: str
    settings: PredictorSettings
    images: int
    shards: int
    started: datetime
    finished: datetime | None = None
    counts: Counts = Counts()
    seconds: float = 0.0
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds in each stage of the work (fetch, decode, predict, encode, put, commit), summed over all threads of all
    attempts that ended. Empty in records that are older than this field."""
    attempts: tuple[Attempt, ...] = ()
    """Oldest first. Empty in records of 0.1."""
    shards_done: int | None = None
    """None in records of 0.1."""
    generation: int = 0
    """Which the run's masks are of: see `pipeline.outputs.generation`."""
    reason: str | None = None
    lost_output: str | None = None
    """Since when, and why, the newest attempt that ended could not write to standard error: what it said is lost."""
    version: str

    @property
    def images_per_second(self) -> float:
        """Overall speed: committed images per second of all attempts, the start of Ray and of the model included."""
        return self.counts.images / self.seconds if self.seconds else 0.0


class Progress(BaseModel):
    """progress.json: how far a run is, as of `updated`.

    `counts` and `shards_done` are of committed shards, `done` also counts finished images of shards that are not
    committed yet; all three include earlier attempts. `images_per_second` is the current speed: over the last minute,
    from the first actor on.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    images: int
    done: int
    counts: Counts
    shards: int
    shards_done: int
    actors: int
    images_per_second: float
    eta_seconds: float | None
    restarts: int
    retries: int
    updated: datetime


def is_run_id(name: str) -> bool:
    """Whether this is a name that runs are given: a UTC second, and four hexadecimal digits."""
    return _RUN_ID.fullmatch(name) is not None


def create_record(output: Store, record: RunRecord) -> None:
    """Write the first record of a new run, whose plan is there.

    Raises PipelineError when another run has its id, or its plan was taken for one that nobody goes on with.
    """
    if not claim_for_run(output, record.run_id):
        raise PipelineError(
            f"{output.uri}: the plan of run {record.run_id} was removed before the run began, as a leftover; run again"
        )
    if not create_own(output, _record_key(record.run_id), _encode(record)):
        raise PipelineError(f"{output.uri}: another run took the id {record.run_id} at this very moment; run again")


def write_record(output: Store, record: RunRecord) -> None:
    """Write the newer record of a run that has one."""
    output.put(_record_key(record.run_id), _encode(record))


def read_record(output: Store, run_id: str) -> RunRecord:
    """Raises ObjectMissing when there is no such run, DamagedRecord when its record cannot be understood."""
    key = _record_key(run_id)
    data = output.get(key)
    try:
        record = RunRecord.model_validate_json(data)
        check_json(data)
    except BrokenSeal as error:
        raise DamagedRecord(f"{output.uri}: {key} {error}; bring it back from a copy") from error
    except ValidationError as error:
        raise DamagedRecord(
            f"{output.uri}: {key} is not a run record this version reads ({error.errors()[0]['msg']})"
        ) from error
    if record.run_id != run_id:
        raise DamagedRecord(f"{output.uri}: {key} is the record of run {record.run_id}; bring back its own from a copy")
    return record


def has_record(output: Store, run_id: str) -> bool:
    """Whether the run has a record, sound or not."""
    key = _record_key(run_id)
    return any(info.key == key for info in output.list(key))


def source_of(record: RunRecord) -> Source:
    """Where the run's images are, opened as the run opened it. Raises InputError when that makes no sense."""
    return open_source(str(record.job.get("source", "")), follow_links=bool(record.job.get("follow_links")))


def run_ids(output: Store) -> list[str]:
    """Ids of the runs that have a record, newest first."""
    found = (match[1] for info in output.list("runs/") if (match := _RUN_KEY.fullmatch(info.key)))
    return sorted(found, reverse=True)


def require_output(output: Store, *, allow_empty: bool = False) -> None:
    """Raise InputError where no job has written anything: a check of nothing is not sound, and nobody means it."""
    output.check_readable()
    if not allow_empty and all(next(iter(output.list(folder)), None) is None for folder in ("runs/", "results/")):
        raise InputError(
            f"{output.uri} is no output of `fcn segment`: neither runs/ nor results/ is there; give the OUTPUT of a "
            "job, or --allow-empty where there may be none yet"
        )


def records(output: Store) -> Iterator[RunRecord]:
    """All runs of an output, newest first; those whose record makes no sense are passed over."""
    for run_id in run_ids(output):
        with contextlib.suppress(ObjectMissing, DamagedRecord):
            yield read_record(output, run_id)


def read_progress(output: Store, run_id: str) -> Progress | None:
    try:
        return Progress.model_validate_json(output.get(progress_key(run_id)))
    except (ObjectMissing, ValidationError):
        return None


class ProgressWriter:
    """Writes the newest progress to storage every few seconds, from a thread: slow storage must not slow the work."""

    def __init__(self, output: Store, key: str) -> None:
        self._output = output
        self._key = key
        self._latest: BaseModel | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
        self._thread.start()

    def update(self, progress: BaseModel) -> None:
        self._latest = progress

    def close(self) -> None:
        """Write the last state and end the thread."""
        self._stop.set()
        self._thread.join(timeout=PROGRESS_SECONDS)

    def _loop(self) -> None:
        written = None
        while True:
            stopping = self._stop.wait(PROGRESS_SECONDS)
            progress = self._latest
            if progress is not None and progress is not written:
                # Progress is for watching only: a write that fails is made good by the next one.
                with contextlib.suppress(StorageError):
                    self._output.put(self._key, progress.model_dump_json().encode())
                    written = progress
            if stopping:
                return


def progress_key(run_id: str) -> str:
    """Where under OUTPUT a run's progress is written."""
    return f"runs/{run_id}/progress.json"


def _encode(record: RunRecord) -> bytes:
    return to_json(record.model_dump_json(indent=2))


def _record_key(run_id: str) -> str:
    return f"runs/{run_id}/run.json"
