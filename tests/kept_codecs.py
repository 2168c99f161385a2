"""Codec workers that outlive their pool: each takes a fifth of a second of a CPU to start, and a small job uses three.

For tests/pipeline and for jobs in this process (tests/in_process.py). What pools do is tested with pools as they are.
"""

import atexit
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.codec import processes, slot
from pipeline.codec.slot import Limits, Reply, Slot
from pipeline.errors import ImageError

MOST = 4
"""Workers that are kept for each kind of pool."""

_STARTER = ThreadPoolExecutor(1, "kept-codecs")  # a worker ends with the thread that started it
_resting: dict[tuple[Limits, str], list[dict[str, Any]]] = {}


def keep_codec_workers(patch: pytest.MonkeyPatch) -> None:
    """Let pools that are made until `patch` is undone take over workers, and leave theirs behind."""
    patch.setattr(processes, "Slot", KeptSlot)


class KeptSlot(Slot):
    """Its worker, where that is sound and has nothing to do as the slot is closed, goes on in the next slot like it."""

    def __init__(self, limits: Limits, closing: threading.Event) -> None:
        resting = _resting.get((limits, slot.WORKER))
        if resting:
            self.__dict__ = resting.pop() | {"_closing": closing}
        else:
            super().__init__(limits, closing)
        self._kind = limits, slot.WORKER
        self._at_work = False

    def ask(self, *request: Any, **options: Any) -> Reply:
        self._at_work = True
        try:
            reply = super().ask(*request, **options)
        except ImageError:  # an answer like another; after any other error the worker is discarded
            self._at_work = False
            raise
        self._at_work = False
        return reply

    def start(self) -> None:
        _STARTER.submit(super().start).result()

    def kill(self) -> None:
        if self._at_work:
            super().kill()

    def close(self) -> None:
        resting = _resting.setdefault(self._kind, [])
        sound = self.ready_pid is not None and self._process is not None and self._process.poll() is None
        if sound and not self._heif and len(resting) < MOST:  # no slot begins with what only HEIC may do
            resting.append(self.__dict__)
        else:
            super().close()


@atexit.register
def _end() -> None:
    for resting in _resting.values():
        for each in resting:
            each["_process"].kill()
            each["_process"].wait()
