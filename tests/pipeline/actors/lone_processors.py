"""Processors for the lone worker's tests, in a module that its process can import."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import StorageUnavailable, TakenOver
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo


class Counting:
    """Returns how many images a shard has, and does to its process what `trouble` says at shard 1, the first time."""

    def __init__(self, trouble: str = "", folder: str = "", files: Mapping[str, bytes] | None = None) -> None:
        self._trouble = trouble
        self._marks = Path(folder)
        self._size = sum(map(len, (files or {}).values()))
        if trouble == "setup":
            raise StorageUnavailable("s3://bucket: no answer")

    def process(self, shard: Shard) -> tuple[int, int, int]:
        if self._trouble:
            (self._marks / f"at-{shard.number}").touch()
        if shard.number == 1:
            self._suffer()
        return shard.number, len(shard.entries), self._size

    def _suffer(self) -> None:
        match self._trouble:
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exits":
                print("no more \x1b[31mmemory", file=sys.stderr, flush=True)
                os._exit(3)
            case "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hangs":
                time.sleep(600)
            case "storage":
                raise StorageUnavailable("s3://bucket: no answer")
            case "odd":
                raise Unsendable(self._marks, 1)
            case "taken over":
                raise TakenOver("s3://labels")

    def probe(self, entry: ObjectInfo) -> None:
        raise AssertionError("a lone worker is not asked to")

    def progress(self) -> dict[int, int]:
        return {}

    def busy_seconds(self) -> float:
        return 0.0


class Unsendable(Exception):
    """Cannot be unpickled: its arguments are not those that it hands on."""

    def __init__(self, first: Path, second: int) -> None:
        super().__init__(f"{second} of it")
