"""The process of a lone worker, started by `pipeline.actors.lone_worker`; not for use by hand.

Run as `python -m pipeline.actors.lone_main PARENT_PID CHANNEL_FD FACTORY_FD MODULE`. It imports the module, which
takes longest, waits for shards and answers through the channel. What it is sent comes from the driver, never from an
image: those are decoded in processes of their own, as in an actor.
"""

import contextlib
import ctypes
import importlib
import logging
import os
import pickle
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from pipeline.actors.lone_answers import Answer, Done, Failed, Progress, Ready
from pipeline.errors import PipelineError, first_line

if TYPE_CHECKING:
    from pipeline.outputs.shard import Shard

THREADS = 2
"""Shards at work at once, as in an actor (`read_ahead.SHARDS_IN_FLIGHT`)."""

PROGRESS_SECONDS = 0.25
"""How often it reports the images that are finished."""

_PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, channel, factory = (int(argument) for argument in sys.argv[1:4])
    _follow_parent(parent)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pipeline").setLevel(logging.INFO)
    importlib.import_module(sys.argv[4])
    with contextlib.suppress(EOFError, OSError):  # the driver has what it wanted, or is gone
        _serve(Connection(channel), factory)
    # Threads may wait for a storage that never answers.
    os._exit(0)


def _follow_parent(parent: int) -> None:
    """Die with the parent, and leave Ctrl-C and the closing of the terminal to it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _serve(channel: Connection, factory_fd: int) -> None:
    lock = threading.Lock()

    def answer(message: Answer) -> None:
        with lock:
            channel.send(message)

    channel.recv()  # the factory is there
    with os.fdopen(factory_fd, "rb") as file:
        factory, arguments = pickle.load(file)
    try:
        processor = factory(*arguments)
    except Exception as error:
        return answer(Failed(None, _sendable(error)))
    del arguments  # the model's files
    answer(Ready())

    def process(shard: "Shard") -> None:
        try:
            value = processor.process(shard)
        except Exception as error:
            answer(Failed(shard.number, _sendable(error)))
        else:
            answer(Done(shard.number, value))

    def report() -> None:
        while True:
            answer(Progress(processor.progress()))
            time.sleep(PROGRESS_SECONDS)

    threading.Thread(target=report, name="progress", daemon=True).start()
    threads = ThreadPoolExecutor(THREADS, "shard")
    while True:
        threads.submit(process, channel.recv())


def _sendable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return PipelineError(f"{type(error).__name__}: {first_line(error)}")
    return error


if __name__ == "__main__":
    main()
