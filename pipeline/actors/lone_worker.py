"""A worker process for small jobs, without Ray: a few images are labelled before a Ray would have started.

It does with a shard what an actor does, with the same Processor. For whatever goes wrong it has one answer: it is left,
and the job goes on with Ray's actors, which know how to find the image to blame, to wait for storage, to replace what
stands still. So it knows nothing of any of this.

This module imports nothing that takes long: the command line starts the process before it imports PyTorch and Ray.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn_core.text.printable import printable
from pipeline.actors.lone_answers import Answer, Done, Failed, Progress, Ready
from pipeline.actors.lone_main import THREADS
from pipeline.actors.pool_progress import PoolProgress
from pipeline.closing import Closing
from pipeline.errors import TakenOver, first_line

if TYPE_CHECKING:
    from pipeline.actors.pool_spec import PoolSpec
    from pipeline.actors.worker import Processor
    from pipeline.outputs.shard import Shard

SMALL_IMAGES = 100
"""Jobs of up to so many images, which one actor would do anyway, are done without Ray."""

START_SECONDS = 120.0
"""How long it may take to get ready before it is left."""

STILL_SECONDS = 60.0
"""How long it may go without finishing an image before it is left; longer where an image may take longer."""

WAIT_SECONDS = 0.2
MODULE = "pipeline.actors.lone_main"
_SOURCE = str(Path(__file__).resolve().parents[2])


class WorkerLeft(Exception):
    """Something went wrong in the worker process, as the message says; what is not committed is for Ray's actors."""


def may_do(ray_address: str | None, actors: int | None, gpus: float | None) -> bool:
    """Whether a job with these options may be done by a lone worker, if it is small: where nobody asked for a Ray."""
    asked = ray_address or os.environ.get("RAY_ADDRESS")
    in_use = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    return not asked and not in_use and actors in (None, 1) and not gpus


def is_small(pool: "PoolSpec", shards: int, images: int) -> bool:
    """Whether so much is left to do that one worker has done it before Ray is there."""
    return images <= SMALL_IMAGES and not pool.gpus and pool.limited_to(shards).actors == 1


_early: "dict[str, LoneWorker]" = {}


def start_early(module: str) -> None:
    """Have the process for factories of `module` started by the time that `lone_worker` wants it."""
    _early[module] = LoneWorker(module)


def lone_worker(module: str) -> "LoneWorker":
    """The process that was started early for factories of `module`, or a new one."""
    return _early.pop(module, None) or LoneWorker(module)


class LoneWorker(Closing):
    """The process. It imports what it needs at once, so that it is ready by the time that there is a plan. One use."""

    def __init__(self, module: str) -> None:
        """`module` is the factory's, and is imported there."""
        self._stderr = os.memfd_create("fcn-worker-stderr")
        self._factory = os.memfd_create("fcn-worker-factory")
        self._channel, theirs = Pipe()
        handed = (theirs.fileno(), self._factory)
        # The same packages as here; with -P the current folder is not among them.
        path = os.pathsep.join([_SOURCE, *(entry for entry in sys.path if entry)])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(os.getpid()), *map(str, handed), module],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=handed,
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, name="lone-worker", daemon=True)
        self._listener.start()

    def run(
        self,
        factory: "Callable[..., Processor]",
        arguments: tuple[Any, ...],
        shards: "Iterator[Shard]",
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
        patience: float = STILL_SECONDS,
    ) -> bool:
        """Work through `shards`, as `ShardPool.run` does: True when all are committed, False when `should_stop` said so
        first. After `patience` seconds without a finished image it counts as stuck.

        Raises WorkerLeft where anything goes wrong, and TakenOver where another driver has the output by now.
        """
        with os.fdopen(self._factory, "wb", closefd=False) as file:
            pickle.dump((factory, arguments), file, protocol=pickle.HIGHEST_PROTOCOL)
        os.lseek(self._factory, 0, os.SEEK_SET)  # the position is shared with the process
        self._send(None)
        at_work: dict[int, int] = {}
        """Images finished in each shard that was handed over."""
        ready, following, still = False, next(shards, None), 0.0
        while not should_stop():
            while ready and following is not None and len(at_work) < THREADS:
                self._send(replace(following, attempt=1))
                at_work[following.number] = 0
                following = next(shards, None)
            on_progress(PoolProgress(int(ready), 1, len(at_work), sum(at_work.values()), 0, 0))
            if ready and not at_work:
                return True
            before, answer = time.monotonic(), self._next_answer()
            # A pause of the driver itself is none of the worker's.
            still += min(time.monotonic() - before, 2 * WAIT_SECONDS)
            moved = answer is not None
            match answer:
                case Ready():
                    ready = True
                case Done(shard, value):
                    del at_work[shard]
                    on_done(value)
                case Progress(images):
                    found = {number: images.get(number, 0) for number in at_work}
                    moved, at_work = found != at_work, found
                case Failed(_, error):
                    if isinstance(error, TakenOver):
                        raise error
                    raise WorkerLeft(first_line(error))
            still = 0.0 if moved else still
            if still > (max(patience, STILL_SECONDS) if ready else START_SECONDS):
                raise WorkerLeft(f"the worker process has stood still for {still:.0f} s")
        return False

    def close(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._listener.join()  # it has heard the end
        self._channel.close()
        os.close(self._stderr)
        os.close(self._factory)

    def _send(self, message: "Shard | None") -> None:
        try:
            self._channel.send(message)
        except OSError:
            raise self._died() from None

    def _next_answer(self) -> Answer | None:
        """What the process says next; None where it says nothing for WAIT_SECONDS."""
        try:
            answer = self._answers.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            return None
        if answer is None:
            raise self._died()
        return answer

    def _listen(self) -> None:
        """Take what the process says, in a thread of its own: one that is stopped in the middle of a word is waited for
        no longer than others."""
        try:
            while True:
                self._answers.put(self._channel.recv())
        except (EOFError, OSError):
            self._answers.put(None)

    def _died(self) -> WorkerLeft:
        self._process.kill()
        code = self._process.wait()
        if code < 0:
            return WorkerLeft(f"the worker process was ended by {signal.Signals(-code).name}")
        size = os.fstat(self._stderr).st_size
        lines = os.pread(self._stderr, 4096, max(0, size - 4096)).decode(errors="replace").strip().splitlines()
        return WorkerLeft(f"the worker process ended: {printable(lines[-1])[:300] if lines else f'exit code {code}'}")
