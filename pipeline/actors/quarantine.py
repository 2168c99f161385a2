"""Finding the image that kills actors, without ever blaming one for a lost machine.

A shard whose actors keep dying is taken through here: its images go one at a time, alone, through an actor that has
nothing else to do. An image is blamed only when it has killed three such actors. Each death counts only after a new
actor came up on the very same node, so the node was alive, and only after that actor has lived through another image:
where that dies as well, somebody kills the actors there, whatever they work on.
"""

import threading
from collections import Counter
from typing import Any, Literal

import ray
from ray.exceptions import GetTimeoutError, OutOfMemoryError, RayError, RayTaskError

from pipeline.actors import cluster
from pipeline.actors.worker import WorkerSpec, start_worker
from pipeline.errors import StorageUnavailable
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

DEATHS_TO_BLAME = 3

MAX_CONTROLS_LOST = 5
"""After so many deaths over other images the examination ends without a culprit: the machine is at fault."""

MAX_IN_VAIN = 5
"""The examination also ends after so many actors in a row that gave no evidence."""

PAUSE_SECONDS = 2.0
"""Pause after one of them, for each there were in a row."""

STORAGE_PAUSE_SECONDS = 10.0
"""Pause after one that found no storage as it got ready."""

MAX_STORAGE_PAUSES = 108
"""How often, in one examination: a quarter of an hour."""

REPLACEMENT_SECONDS = 120.0
"""How long a replacement on the same node may take; a node that cannot start one in this time counts as lost."""


Outcome = Literal["lived", "died", "nothing"]
"""What became of an actor over an image; "nothing" says nothing about the image."""


class Quarantine:
    """Examines one shard in a thread of its own. `culprits` is None until it is done."""

    def __init__(
        self,
        shard: Shard,
        worker: WorkerSpec,
        known_good: ObjectInfo | None = None,
        *,
        image_seconds: float,
        setup_seconds: float,
    ) -> None:
        """`known_good` is an image of another shard that an actor has lived through. An actor that takes longer than
        `image_seconds` over an image, or `setup_seconds` to get ready, is ended.
        """
        self.shard = shard
        self.culprits: frozenset[str] | None = None
        self.waits_for_place = False
        self._worker = worker
        self._known_good = known_good
        self._image_seconds = image_seconds
        self._setup_seconds = setup_seconds
        self._in_vain = 0
        self._storage_pauses = 0
        self._stopped = threading.Event()
        self._handle: Any = None
        self._node: str | None = None
        self._thread = threading.Thread(target=self._examine, name=f"quarantine-{shard.number}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the examination at once; its actor is killed."""
        self._stopped.set()
        self._discard()
        self._thread.join(timeout=10)

    def _examine(self) -> None:
        deaths: Counter[str] = Counter()
        survivors = [self._known_good] if self._known_good else []
        lost: set[str] = set()  # controls that died, too: another that kills, or the machine
        controls_lost = 0
        try:
            for entry in self.shard.entries:
                while not self._stopped.is_set() and deaths[entry.key] < DEATHS_TO_BLAME:
                    if self._in_vain >= MAX_IN_VAIN:
                        return
                    outcome = self._try(entry)
                    if outcome == "lived":
                        survivors.append(entry)
                        break
                    if outcome == "nothing" or not self._replaced_on_same_node():
                        continue
                    others = [*survivors, *(each for each in self.shard.entries if not deaths[each.key])]
                    controls = [each for each in others if each.key != entry.key]
                    control = min(controls, key=lambda each: each.key in lost, default=None)
                    outcome = "lived" if control is None else self._try(control)
                    if outcome == "lived":
                        deaths[entry.key] += 1
                    elif outcome == "died" and control is not None:
                        self._discard()
                        lost.add(control.key)
                        controls_lost += 1
                        if controls_lost >= MAX_CONTROLS_LOST:
                            return
        finally:
            self._discard()
            self.culprits = frozenset(key for key, count in deaths.items() if count >= DEATHS_TO_BLAME)

    def _try(self, entry: ObjectInfo) -> Outcome:
        """What becomes of an actor over this image. An exception is life: the shard's own run will report it."""
        try:
            if self._handle is None:
                self._start(None)
        except RayTaskError as error:
            if isinstance(error.cause, StorageUnavailable) and self._storage_pauses < MAX_STORAGE_PAUSES:
                # Says nothing of images, nor of the machine.
                self._discard()
                self._storage_pauses += 1
                self._stopped.wait(STORAGE_PAUSE_SECONDS)
                return "nothing"
            return self._learned_nothing()
        except RayError:  # also a set-up that did not end in time
            return self._learned_nothing()
        try:
            ray.get(self._handle.probe.remote(entry), timeout=self._image_seconds)
        except RayTaskError:
            pass
        except (OutOfMemoryError, GetTimeoutError):
            return self._learned_nothing()
        except RayError:
            return "died"
        self._in_vain = 0
        return "lived"

    def _learned_nothing(self) -> Outcome:
        self._discard()
        self._in_vain += 1
        self._stopped.wait(PAUSE_SECONDS * self._in_vain)
        return "nothing"

    def _replaced_on_same_node(self) -> bool:
        """Whether a new actor comes up where the last one died. If not, the next one may come up anywhere."""
        node = self._node
        self._discard()
        # One that died before it was ready: no image had been near it. One on a node that is about to go: it may have
        # been ended, and nothing new is placed there.
        if node is None or node in cluster.draining_nodes():
            return False
        try:
            self._start(node)
        except RayError:
            self._discard()
            return False
        return True

    def _start(self, node: str | None) -> None:
        self._handle, ready = start_worker(self._worker, node)
        self._node = None
        if node is None:  # however long it waits for a place, it has its time to get ready after that
            self.waits_for_place = True
            ray.get(self._handle.progress.remote())
            self.waits_for_place = False
        self._node, _ = ray.get(ready, timeout=REPLACEMENT_SECONDS if node else self._setup_seconds)

    def _discard(self) -> None:
        handle, self._handle, self._node = self._handle, None, None
        if handle is not None:
            ray.kill(handle)
