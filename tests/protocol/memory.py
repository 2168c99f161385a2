"""Storage in memory whose every request is a step that somebody else decides on.

`Contents` is what is stored: a value, to which a request is applied and gives new contents and a response.
`MemoryStore` is the `pipeline.storage.store.Store` that the code under test is given: it turns each call into one
`Request`, has the participant that runs in this thread ask for the response, and waits until that is granted.

A date tells only the order in which plans became whole and shards were committed, which is all that is ever decided by
dates; other objects bear the first one. So equal contents are equal, whichever way they came about.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pipeline.errors import ObjectChanged, ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from pipeline.storage.store import Location, ObjectInfo, folder

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Verb = Literal["list", "get", "head", "put", "create", "delete"]

_DATED = re.compile(r"output/(results/.*|runs/[^/]+/plan/plan\.json)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to storage. `key` begins with the store's name; of a listing it is the prefix."""

    verb: Verb
    key: str
    data: bytes = b""
    after: str = ""
    """Of a listing: the last key of the page before."""

    def __str__(self) -> str:
        return f"{self.verb} {self.key}"


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An object. `mark` is a number for all that can be seen of it, its name included."""

    info: ObjectInfo
    data: bytes
    mark: int

    @classmethod
    def of(cls, key: str, data: bytes, when: int) -> "Stored":
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        # Images are as old as they are large, so that a version that comes back looks as it did.
        date = EPOCH + timedelta(seconds=len(data) if key.startswith("source/") else when)
        info = ObjectInfo(key, etag, len(data), date)
        return cls(info, data, hash((key, etag, date)))


@dataclass(frozen=True, slots=True)
class Response:
    """What a request is answered with: objects, or an error by its class. `mark` stands for all of it."""

    objects: tuple[Stored, ...] = ()
    error: type[StorageError] | None = None
    is_last: bool = True

    @property
    def mark(self) -> int:
        return hash((tuple(each.mark for each in self.objects), self.error, self.is_last))


DONE = Response()


@dataclass(frozen=True)
class Contents:
    """All that is stored. `mark` stands for it, `dated` counts the objects whose dates matter."""

    objects: dict[str, Stored] = field(default_factory=dict)
    mark: int = 0
    dated: int = 0

    def apply(self, request: Request, page: int | None = None) -> tuple["Contents", Response]:
        """The contents after a request, and its response. A listing's has `page` objects at most."""
        key, there = request.key, self.objects.get(request.key)
        match request.verb:
            case "list":
                keys = sorted(each for each in self.objects if each.startswith(key) and each > request.after)
                return self, Response(tuple(self.objects[each] for each in keys[:page]), None, keys == keys[:page])
            case "get" | "head":
                return self, Response(error=ObjectMissing) if there is None else Response((there,))
            case "create" if there is not None:
                return self, Response(error=ObjectExists)
            case "create" | "put":
                dated = self.dated + (1 if there is None and _DATED.fullmatch(key) else 0)
                stored = Stored.of(key, request.data, dated if _DATED.fullmatch(key) else 0)
                mark = self.mark ^ stored.mark ^ (there.mark if there else 0)
                return Contents({**self.objects, key: stored}, mark, dated), DONE
            case "delete" if there is not None:
                rest = {each: stored for each, stored in self.objects.items() if each != key}
                return replace(self, objects=rest, mark=self.mark ^ there.mark), DONE
            case _:
                return self, DONE


class Asking(threading.local):
    """Whom the stores of this thread ask for a response, and the name of the participant that this thread is of."""

    name: str = ""
    ask: Callable[[Request], Response]


asking = Asking()


class MemoryStore:
    """See `pipeline.storage.store.Store`; `name` is "source" or "output"."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def uri(self) -> str:
        return f"memory:{self._name}"

    @property
    def location(self) -> Location:
        return Location("memory", "", tuple(self._name.split("/")))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        after = ""
        while True:
            page = self._ask("list", prefix, after=after)
            for each in page.objects:
                yield replace(each.info, key=each.info.key.removeprefix(f"{self._name}/"))
            if page.is_last:
                return
            after = page.objects[-1].info.key

    def get(self, key: str, *, size: int | None = None, etag: str | None = None) -> bytes:
        (there,) = self._ask("get", key).objects
        if size not in (None, there.info.size) or etag not in (None, there.info.etag):
            raise ObjectChanged(f"{key} is not the object that was listed")
        return there.data

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        data = self.get(key, etag=etag)[offset : offset + length]
        if len(data) < length:
            raise ObjectChanged(f"{key} ends before the bytes that were asked for")
        return data

    def head(self, key: str) -> ObjectInfo:
        (there,) = self._ask("head", key).objects
        return replace(there.info, key=key)

    def put(self, key: str, data: bytes) -> None:
        self._ask("put", key, data)

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def create(self, key: str, data: bytes) -> None:
        self._ask("create", key, data)

    def delete(self, key: str) -> None:
        self._ask("delete", key)

    def at(self, path: str) -> "MemoryStore":
        return MemoryStore(f"{self._name}/{folder(path, self._name).rstrip('/')}")

    def check_readable(self) -> None:
        """Memory can be read."""

    def check_writable(self) -> None:
        """Memory can be written."""

    def _ask(self, verb: Verb, key: str, data: bytes = b"", after: str = "") -> Response:
        response = asking.ask(Request(verb, f"{self._name}/{key}", data, after))
        if response.error is not None:
            raise response.error(f"{verb} {key}: {response.error.__name__}")
        return response


class Calm:
    """Contents that grant every request at once: for what happens before, and after, the schedule that is explored."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents

    def grant(self, request: Request) -> Response:
        """Apply a request."""
        self.contents, response = self.contents.apply(request)
        return response

    def do(self, name: str, work: Callable[[], None]) -> None:
        before = asking.name, getattr(asking, "ask", None)
        asking.name, asking.ask = name, self.grant
        try:
            work()
        finally:
            asking.name = before[0]
            if before[1] is not None:
                asking.ask = before[1]


FAULTS: dict[str, tuple[type[StorageError], bool]] = {
    "refused": (StorageUnavailable, False),
    "unheard": (StorageUnavailable, True),
    "lost answer": (ObjectExists, True),
}
"""By which error a request fails, and whether it takes effect all the same."""


def faults_of(request: Request, response: Response) -> list[str]:
    """In which ways of FAULTS a request may fail that would be answered so.

    Only a write can take effect unheard; a lost answer is that of a create whose retry finds its own object.
    """
    takes_effect = request.verb in ("put", "create", "delete") and response.error is None
    ways = ["refused"] + ["unheard"] * takes_effect
    return [*ways, "lost answer"] if takes_effect and request.verb == "create" else ways
