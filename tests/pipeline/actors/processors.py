"""What actors of test_pool do with shards: well, badly, or not at all.

Imports next to nothing, for each actor that starts anew imports it.
"""

import os
import signal
import time
from pathlib import Path

from pipeline.errors import PipelineError, ShardRefused, StorageUnavailable, WorkerBroken
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

PATIENCE = 120.0


class Steady:
    """Returns (shard number, process id) after a moment."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.seconds = seconds

    def process(self, shard: Shard) -> tuple[int, int]:
        time.sleep(self.seconds)
        return shard.number, os.getpid()

    def probe(self, entry: ObjectInfo) -> None: ...

    def progress(self) -> dict[int, int]:
        return {}

    def busy_seconds(self) -> float:
        return 0.0


class WaitsForCompany(Steady):
    """Holds its shards until another process has one, too."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def process(self, shard: Shard) -> tuple[int, int]:
        (self.marks / str(os.getpid())).touch()
        deadline = time.monotonic() + PATIENCE
        while len(list(self.marks.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().process(shard)


class WaitsForLeave(Steady):
    """Notes each shard and its process, then holds it until it may go on."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def process(self, shard: Shard) -> tuple[int, int]:
        (self.marks / f"{os.getpid()}.{shard.number}").touch()
        deadline = time.monotonic() + PATIENCE
        while not (self.marks / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return super().process(shard)


class DiesOnce(Steady):
    """Takes its whole process down at shard 3, the first time anybody gets it."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def process(self, shard: Shard) -> tuple[int, int]:
        mark = self.marks / str(shard.number)
        if shard.number == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(shard)


class DiesThrice(Steady):
    """Shard 1 comes to three untimely ends. Notes whether its images are examined for it."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def process(self, shard: Shard) -> tuple[int, int]:
        deaths = len(list(self.marks.glob("death*")))
        if shard.number == 1 and deaths < 3:
            (self.marks / f"death{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(shard)

    def probe(self, entry: ObjectInfo) -> None:
        (self.marks / "probed").touch()


class KilledFromOutside(Steady):
    """Somebody kills two processes over shard 1, and then each of the next eight that look at an image, whichever."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def die(self, what: str, times: int) -> None:
        deaths = len(list(self.marks.glob(f"{what}*")))
        if deaths < times:
            (self.marks / f"{what}{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def process(self, shard: Shard) -> tuple[int, frozenset[str]]:  # type: ignore[override]
        if shard.number == 1:
            self.die("shard", 2)
        return shard.number, shard.culprits

    def probe(self, entry: ObjectInfo) -> None:
        self.die("probe", 8)


class DiesOfCompany(Steady):
    """Shard 1 kills its process as a whole; each of its images alone is harmless."""

    def process(self, shard: Shard) -> tuple[int, int]:
        if shard.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(shard)


class Poisoned(Steady):
    """Image "poison" kills whatever process works on it, unless the shard names it a culprit."""

    def process(self, shard: Shard) -> tuple[int, frozenset[str]]:  # type: ignore[override]
        if any(entry.key == "poison" for entry in shard.entries) and "poison" not in shard.culprits:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return shard.number, shard.culprits

    def probe(self, entry: ObjectInfo) -> None:
        if entry.key == "poison":
            os.kill(os.getpid(), signal.SIGKILL)


class StorageAway(Steady):
    """The storage never has shard 1."""

    def process(self, shard: Shard) -> tuple[int, int]:
        if shard.number == 1:
            raise StorageUnavailable("s3://bucket: no answer")
        return super().process(shard)


class Buggy(Steady):
    def process(self, shard: Shard) -> tuple[int, int]:
        raise ZeroDivisionError("a mistake in the program")


class Troubled(Steady):
    """Three things go wrong once: the storage does not answer the first process as it starts, nor for shard 1, and the
    first process to get shard 3 finds itself broken.
    """

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks
        if self.first("start"):
            raise StorageUnavailable("s3://bucket: no answer")

    def process(self, shard: Shard) -> tuple[int, int]:
        if shard.number == 1 and self.first("storage"):
            raise StorageUnavailable("s3://bucket: no answer")
        if shard.number == 3 and self.first("broken"):
            raise WorkerBroken("the device is gone")
        return super().process(shard)

    def first(self, what: str) -> bool:
        if (self.marks / what).exists():
            return False
        (self.marks / what).touch()
        return True


class CannotStart(Steady):
    def __init__(self) -> None:
        raise PipelineError("precision bfloat16 is not to be had here")


class AwayAtTheStart(Steady):
    """Its storage does not answer while it gets ready."""

    def __init__(self) -> None:
        super().__init__()
        raise StorageUnavailable("s3://bucket: no answer")


class AwayForTheFirst(Steady):
    """The storage does not answer the first three processes as they get ready."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        if len(list(marks.iterdir())) < 3:
            (marks / str(os.getpid())).touch()
            raise StorageUnavailable("s3://bucket: no answer")


class DiesAlways(Steady):
    """Whatever shard it gets takes its process down."""

    def process(self, shard: Shard) -> tuple[int, int]:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().process(shard)


class Freezes(Steady):
    """The first process to get shard 3 stops, as the whole of a paused machine does."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        self.marks = marks

    def process(self, shard: Shard) -> tuple[int, int]:
        if shard.number == 3 and not list(self.marks.iterdir()):
            (self.marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().process(shard)


class Hangs(Freezes):
    """The first process to get shard 3 never returns from it, and answers all else."""

    def process(self, shard: Shard) -> tuple[int, int]:
        if shard.number == 3 and not list(self.marks.iterdir()):
            (self.marks / str(os.getpid())).touch()
            time.sleep(10 * PATIENCE)
        return Steady.process(self, shard)


class StuckAtStart(Steady):
    """The first process never gets ready: once the file `placed` is there it stops, or waits for a device that never
    answers."""

    def __init__(self, marks: Path, placed: Path, signal_number: int | None) -> None:
        super().__init__()
        if not list(marks.iterdir()):
            while not placed.exists():
                time.sleep(0.01)
            (marks / str(os.getpid())).touch()
            if signal_number:
                os.kill(os.getpid(), signal_number)
            time.sleep(10 * PATIENCE)


class StuckInQuarantine(Steady):
    """A process hangs the first time, where it is told to; "poison" kills its process."""

    def __init__(self, marks: Path, where: str) -> None:
        super().__init__()
        self.marks, self.where = marks, where
        self.hang("setup")

    def hang(self, here: str) -> None:
        if here == self.where and not (self.marks / here).exists():
            (self.marks / here).touch()
            time.sleep(10 * PATIENCE)

    def probe(self, entry: ObjectInfo) -> None:
        self.hang("probe")
        if entry.key == "poison":
            os.kill(os.getpid(), signal.SIGKILL)


class NeverReady(Steady):
    def __init__(self) -> None:
        raise StorageUnavailable("s3://bucket: no answer")


class Locked(Steady):
    """The first process has bad credentials, and waits for company, so that another process gets shards, too."""

    def __init__(self, marks: Path) -> None:
        super().__init__()
        try:
            (marks / "bad").mkdir()
            self.good = False
        except FileExistsError:
            self.good = True

    def process(self, shard: Shard) -> tuple[int, int]:
        if not self.good and not shard.insist:
            raise ShardRefused("none of 16 images could be read; a.jpg: not allowed")
        return super().process(shard)


class Forbidden(Steady):
    """Nobody may read shard 1."""

    def process(self, shard: Shard) -> tuple[int, bool]:
        if shard.number == 1 and not shard.insist:
            raise ShardRefused("none of 16 images could be read; a.jpg: not allowed")
        return shard.number, shard.insist
