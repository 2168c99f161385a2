"""How a model in a registry is called: `name@version`, `name@champion`; and which names there may be."""

import re
from dataclasses import dataclass

from pipeline.errors import InputError

PREFIX = "registry:"
CHAMPION = "champion"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model as a job names it: `registry:<name>@<version>`, or the champion (`@champion`, or nothing)."""

    name: str
    version: str | None
    """None is the champion of the moment."""

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Raises InputError for what is no reference: another prefix, a name or version of other characters."""
        if not is_reference(text):
            raise InputError(f"{text!r} is no reference to a registry; write {PREFIX}NAME@{CHAMPION}")
        name, mark, version = text.removeprefix(PREFIX).partition("@")
        check_name(name)
        if not mark or version == CHAMPION:
            return cls(name, None)
        check_version(version)
        return cls(name, version)

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}@{self.version or CHAMPION}"


@dataclass(frozen=True, slots=True)
class ResolvedReference:
    """What a reference stood for when it was looked up; `uri` is the version's folder, which never changes."""

    name: str
    version: str
    uri: str
    model_id: str
    champion: int | None
    """The number of the promotion that was followed; None where a version was named."""


def is_reference(model: str) -> bool:
    """Whether a model is named by registry rather than by place. (A folder of such a name: ./registry:...)"""
    return model.startswith(PREFIX)


def check_name(name: str) -> None:
    """Raises InputError for what cannot be a model's name: it becomes a folder, and part of commands and messages."""
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name[:80]!r} cannot name a model; use letters, digits, '.', '_' and '-', 64 at most, "
            "a letter or digit first"
        )


def check_version(version: str) -> None:
    """Raises InputError for what cannot be a version."""
    if not VERSION.fullmatch(version):
        raise InputError(
            f"{version[:80]!r} cannot be a version; a version is a model_id, 16 hexadecimal digits, or {CHAMPION}"
        )
