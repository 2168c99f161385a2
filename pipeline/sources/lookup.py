"""Members by their names alone, as a person or a manifest gives them: looked for in their containers."""

import threading
from collections import OrderedDict

from pipeline.errors import ObjectMissing
from pipeline.sources.expansion import expand
from pipeline.sources.kinds import KINDS, kind_of
from pipeline.storage.store import ObjectInfo, Store

CONTAINERS_KEPT = 8
MEMBERS_KEPT = 1 << 16
"""Of one container; a larger one is read from its beginning for every name."""


def may_be_member(key: str) -> bool:
    """Whether a key or URI may name a member: a part of it before the last is called like a container."""
    lower = key.lower()
    return any(f"{kind.suffix}/" in lower for kind in KINDS)


def above_containers(folder: str, name: str) -> tuple[str, str]:
    """A folder and a name in it, the same place, with all that may be containers in the name: `d/x.tar`, `a.jpg`
    becomes `d`, `x.tar/a.jpg`."""
    while may_be_member(f"{folder}/"):
        above, _, part = folder.rpartition("/")
        folder, name = above or ("/" if folder.startswith("/") else "."), f"{part}/{name}"
    return folder, name


class MemberLookup:
    """Finds members in the containers of a store. Keeps what is in the last few containers. Thread-safe."""

    def __init__(self, store: Store, image_column: str | None = None) -> None:
        """`image_column` is as `expand` takes it."""
        self._store = store
        self._image_column = image_column
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], dict[str, ObjectInfo]] = OrderedDict()

    def find(self, key: str) -> ObjectInfo | None:
        """The first member of that key; None where there is no such container, or it has no such member.

        Raises StorageError as `Store.head` and `Store.get_range` do.
        """
        if not may_be_member(key):
            return None
        parts = key.split("/")
        for count in range(len(parts) - 1, 0, -1):
            container = "/".join(parts[:count])
            if kind_of(container) is not None:
                try:
                    info = self._store.head(container)
                except ObjectMissing:
                    continue
                return self._find_in(info, key)
        return None

    def _find_in(self, container: ObjectInfo, key: str) -> ObjectInfo | None:
        name = (container.key, container.etag)
        with self._lock:  # whoever else wants a member of it would read it, too
            if name in self._known:
                self._known.move_to_end(name)
                return self._known[name].get(key)
            members: dict[str, ObjectInfo] | None = {}
            found = None
            for entry in expand(self._store, [container], lambda _: True, image_column=self._image_column):
                if entry.key == key and found is None:
                    found = entry
                if members is not None:
                    members.setdefault(entry.key, entry)
                    if len(members) > MEMBERS_KEPT:
                        members = None
                if members is None and found is not None:
                    return found
            if members is not None:
                self._known[name] = members
                while len(self._known) > CONTAINERS_KEPT:
                    self._known.popitem(last=False)
            return found
