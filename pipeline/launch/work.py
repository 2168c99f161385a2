"""A job as something to send elsewhere, and what comes back: both are plain data.

A job names places, never credentials: the machine that does the work finds its own, as everywhere else. What comes
back is written to the job's own output, so that whoever comes later, on whatever machine, finds it there.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.jobs.affects import is_place, marked
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.places import is_absolute_or_registered
from pipeline.jobs.segment import SegmentJob
from pipeline.jobs.train import TrainJob
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

Kind = Literal["segment", "evaluate", "train"]
AnyJob = SegmentJob | EvaluateJob | TrainJob

KINDS: dict[Kind, type[AnyJob]] = {"segment": SegmentJob, "evaluate": EvaluateJob, "train": TrainJob}


class Work(BaseModel):
    """A job of one of three kinds, as it travels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    options: dict[str, Any]

    @classmethod
    def of(cls, job: AnyJob) -> "Work":
        """Raises InputError for a job that leaves nothing behind: there would be nowhere to read its outcome. Also for
        one with a place relative to a folder: it would be another folder there."""
        kind = next(kind for kind, model in KINDS.items() if isinstance(job, model))
        if job.output is None:
            raise InputError("a job that runs elsewhere needs an output, where its outcome is written; set `output`")
        refuse_relative(job)
        # A retraining is a training with options of its own, which say nothing to whoever trains.
        options = job.model_dump(mode="json", exclude_unset=True, include=set(KINDS[kind].model_fields))
        return cls(kind=kind, options=options)

    def job(self) -> AnyJob:
        return KINDS[self.kind].model_validate(self.options)

    @property
    def name(self) -> str:
        """The same for equal jobs, and fit for a Kubernetes name: "fcn-segment-0f3a5c917be2"."""
        driver = {name for name, mark in marked(KINDS[self.kind]) if mark.driver}
        asked = {key: value for key, value in self.job().model_dump(mode="json").items() if key not in driver}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return f"fcn-{self.kind}-{digest[:12]}"

    def output(self) -> Store:
        """Where the job writes."""
        job = self.job()
        assert job.output is not None
        return open_store(job.output)


def refuse_relative(job: BaseModel) -> None:
    """Raise InputError, which names it, for a place of `job` that depends on the folder one happens to be in."""
    for name, value in _places(job):
        if not is_absolute_or_registered(value):
            raise InputError(
                f"{name} is the relative path {value!r}, which is another folder where the job runs; give a URI, or an "
                "absolute path that is the same on every machine"
            )


def _places(job: BaseModel) -> Iterator[tuple[str, str]]:
    for name, field in type(job).model_fields.items():
        value = getattr(job, name)
        if isinstance(value, BaseModel):
            yield from _places(value)
        elif is_place(field) and value is not None:
            yield name, value


class Outcome(BaseModel):
    """How a job that ran elsewhere ended.

    refused: it could not be done as asked, nothing was done; failed: on its way; interrupted: it was told to stop. In
    all three `message` says why. finished: `report` is what the job's function returns, as data.
    """

    model_config = ConfigDict(frozen=True)

    state: Literal["finished", "interrupted", "failed", "refused"]
    message: str = ""
    report: dict[str, Any] | None = None


def write_outcome(work: Work, launch_id: str, outcome: Outcome) -> None:
    work.output().put(_key(launch_id), outcome.model_dump_json(indent=2).encode())


def read_outcome(work: Work, launch_id: str) -> Outcome | None:
    """None when the job ended without one: its process was killed, or never started."""
    key = _key(launch_id)
    try:
        return Outcome.model_validate_json(work.output().get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        raise StorageError(f"{key} is no outcome of a job ({error.error_count()} errors); delete it") from error


def dump(report: Any, kind: type[Any]) -> dict[str, Any]:
    """A job's report as data."""
    data: dict[str, Any] = TypeAdapter(kind).dump_python(report, mode="json")
    return data


def _key(launch_id: str) -> str:
    return f"launches/{launch_id}.json"
