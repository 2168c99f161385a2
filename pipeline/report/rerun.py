"""The commands that belong to a run, spelled for a shell, from its record alone."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.jobs.affects import marked
from pipeline.jobs.segment import SegmentJob

_POSITIONAL = ("source", "output")
_ONCE = {name for name, mark in marked(SegmentJob) if mark.once}

_USERINFO = re.compile(r"(?<=//)[^/@\s]+@")


def segment_command(job: Mapping[str, Any], *more: str) -> list[str]:
    """The words of `fcn segment ...` with every option that the job gave; `more` are options to add.

    `job` is a run record's: fields of another version that are unknown here are spelled like the others.
    """
    words = ["fcn", "segment", *(_operand(str(job.get(name, ""))) for name in _POSITIONAL)]
    for name, value in changed_options(job):
        words += option_words(name, value)
    return words + [option for option in more if option not in words]


def quoted(words: Iterable[str]) -> list[str]:
    """Each word as a shell must be given it, without user names and passwords."""
    return [shlex.quote(without_secrets(word)) for word in words]


def changed_options(job: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options of a job that are not their defaults."""
    fields = SegmentJob.model_fields
    for name, value in job.items():
        if name in _POSITIONAL or name in _ONCE:
            continue
        default = fields[name].default if name in fields else None
        if value != (list(default) if isinstance(default, tuple) else default) and value is not None:
            yield name, value


def without_secrets(text: str) -> str:
    """`text` without a user name and password inside a URI: some write them there."""
    return _USERINFO.sub("", text)


def option_words(name: str, value: Any) -> list[str]:
    """The words that give the option `name` a value on a command line."""
    return _option("--" + name.replace("_", "-"), value)


def _option(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list | tuple):
        return [word for item in value for word in _option(flag, item)]
    # With "=", since a value may begin with a hyphen.
    return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]


def _operand(place: str) -> str:
    return f"./{place}" if place.startswith("-") else place
