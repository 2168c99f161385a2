"""The places that a job names, so that they mean the same wherever the job, or its record, is read."""

import os
from typing import TypeVar

from pydantic import BaseModel

from pipeline.jobs.affects import is_place
from pipeline.storage.uri import is_absolute

J = TypeVar("J", bound=BaseModel)


def absolute_places(job: J) -> J:
    """`job` with places that mean the same in every folder: relative ones are of the current folder of now."""
    absolute = {
        name: os.path.abspath(os.path.expanduser(value))
        for name, field in type(job).model_fields.items()
        if (is_place(field) or name == "cache")
        and isinstance(value := getattr(job, name), str)
        and not is_absolute_or_registered(value)
    }
    return job.model_copy(update=absolute)


def is_absolute_or_registered(place: str) -> bool:
    """Whether a place means the same in every folder, also as the name of a model in a registry."""
    return is_absolute(place) or place.startswith("registry:")
