"""A member of a container: its key, and the etag that says which bytes it is.

A member's key is its container's key, a slash, and its name in there. Its etag is

    <etag of the container>#<parts>:<place>/<size of the container>

where `parts` is the number of parts that the container's key has (folders may be called `x.parquet`, too), and `place`
is what the container's kind needs to find the member. So the identity of a member changes whenever its container or
its place does, and whoever has key and etag can read it with no further request.
"""

import re
from dataclasses import dataclass

from pipeline.storage.store import ObjectInfo

_ETAG = re.compile(r"(?P<etag>[^#]*)#(?P<parts>\d{1,4}):(?P<place>[^/]+)/(?P<size>\d{1,19})", re.DOTALL)
_FAULT = re.compile(r"!(?P<slug>[a-z_]+)@(?P<at>\d{1,19})")

IS_MEMBER = r"#\d{1,4}:[^/]+/\d{1,19}\z"
"""What every member's etag matches, and no etag of an object does; for `pyarrow.compute.match_substring_regex`."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member as its container's kind lists it. `size` is in bytes; `place` holds no slash."""

    name: str
    size: int
    place: str

    @property
    def mark(self) -> str:
        """What tells it from others of its name: the place, without the length and column in it."""
        return re.split(r"[+@]", self.place)[0]


@dataclass(frozen=True, slots=True)
class Fault:
    """What cannot be read of a container, from byte `at` on: `slug` is one of the kind's. `name` is that of the one
    member that it is about; None where the rest of the container is lost."""

    slug: str
    at: int
    name: str | None = None

    @property
    def place(self) -> str:
        return f"!{self.slug}@{self.at}"

    @property
    def mark(self) -> str:
        """As `Member.mark`."""
        return str(self.at)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a member is: the container as it was listed, and the place in it."""

    container: str
    etag: str
    size: int
    place: str

    @property
    def fault(self) -> Fault | None:
        """Why there is nothing to read; None for what can be read."""
        match = _FAULT.fullmatch(self.place)
        return Fault(match["slug"], int(match["at"])) if match else None


def entry_of(container: ObjectInfo, found: Member | Fault, name: str | None) -> ObjectInfo:
    """A member, or what could not be read, as a listing reports it. Without a `name` the key is the container's."""
    key = container.key if name is None else f"{container.key}/{name}"
    size = found.size if isinstance(found, Member) else 0
    parts = container.key.count("/") + 1
    etag = f"{container.etag}#{parts}:{found.place}/{container.size}"
    return ObjectInfo(key, etag, size, container.last_modified)


def address_of(key: str, etag: str | None) -> Address | None:
    """Where the member is that a listing reported so; None for what is an object of its own."""
    match = _ETAG.fullmatch(etag or "")
    if match is None:
        return None
    parts = key.split("/")
    count = int(match["parts"])
    if not 0 < count <= len(parts):
        return None
    return Address("/".join(parts[:count]), match["etag"], int(match["size"]), match["place"])
