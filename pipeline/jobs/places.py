"""The places that a job names, so that they mean the same wherever the job, or its record, is read."""

import os
from typing import Any, TypeVar

from pydantic import BaseModel

from pipeline.jobs.affects import is_place
from pipeline.storage.uri import is_absolute, split_prefix

J = TypeVar("J", bound=BaseModel)


def absolute_places(job: J) -> J:
    """`job` with places that mean the same in every folder: relative ones are of the current folder of now."""
    absolute: dict[str, Any] = {}
    for name, field in type(job).model_fields.items():
        value = getattr(job, name)
        if isinstance(value, BaseModel):
            inner = absolute_places(value)
            if inner != value:
                absolute[name] = inner
        elif (is_place(field) or name == "cache") and isinstance(value, str) and not is_absolute_or_registered(value):
            prefix, bare = split_prefix(value)
            absolute[name] = prefix + os.path.abspath(os.path.expanduser(bare))
    return job.model_copy(update=absolute)


def is_absolute_or_registered(place: str) -> bool:
    """Whether a place means the same in every folder, also as the name of a model in a registry."""
    return is_absolute(split_prefix(place)[1]) or place.startswith("registry:")
