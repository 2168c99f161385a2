"""What ends a command early: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed or an ssh that broke off.

The first asks a job to stop: what is at work is finished or left, resumably. The second interrupts it, and gives it
QUIT_SECONDS to clean up. The third ends the process at once, and so does the end of that time. Signals are counted in
a thread, because the main one may be inside a library for minutes; nothing is lost, for a commit is one request.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipeline.cli.common import INTERRUPTED

QUIT_SECONDS = 5.0
"""How long cleaning up may take after the second signal: storage that is away would be waited for for minutes."""

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], Any] | int | None


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first of these signals sets; the second raises KeyboardInterrupt, the third ends the process.

    To be called in the main thread. A SIGHUP counts once: the kernel and the shell each send one. `nohup` is respected:
    a SIGHUP that is ignored stays so.
    """
    stop = threading.Event()
    asked = False

    # A handler takes no lock, for the main thread may have it: neither the event's nor that of the buffer of stderr.
    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            if number == signal.SIGHUP:
                return
            raise KeyboardInterrupt
        asked = True
        told = "\nfcn: stopping; press Ctrl-C again to quit at once"
        _say(told if number == signal.SIGINT else f"fcn: {signal.Signals(number).name}: stopping")

    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    numbers = [number for number in STOPPING if not (ignored and number == signal.SIGHUP)]
    with _counted(frozenset(numbers), stop):  # before the handlers, so that none says what is not done
        previous: dict[int, _Handler] = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield stop
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt once; from then on, and from the end of the body on, it ends the process at once.

    For a whole program: nothing that is pressed while it ends becomes a traceback.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, lambda *_: leave())
        raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, lambda *_: leave())


def leave() -> None:
    """End this process at once. What it has started ends with it: Ray's processes and codecs see that it is gone."""
    _say("\nfcn: quit at once; the same command resumes")
    os._exit(INTERRUPTED)


def _say(text: str) -> None:
    """Write a line to standard error, past its buffer."""
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())


@contextmanager
def _counted(numbers: frozenset[int], stop: threading.Event) -> Iterator[None]:
    """Set `stop` at the first of these signals; end the process at the third, and QUIT_SECONDS after the second where
    the body is not over."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over = threading.Event()

    def count() -> None:
        seen = 0
        hung_up = False
        while data := os.read(reader, 64):
            if any(byte in numbers for byte in data):
                stop.set()
            now = sum(byte in numbers and byte != signal.SIGHUP for byte in data)
            if signal.SIGHUP in data and not hung_up:
                hung_up = True
                now += 1
            if seen < 2 <= seen + now:
                threading.Thread(target=late, name="quit", daemon=True).start()
            seen += now
            if seen >= 3 and not over.is_set():
                leave()

    def late() -> None:
        if not over.wait(QUIT_SECONDS):
            leave()

    told = sys.unraisablehook

    def tell(unraisable: "sys.UnraisableHookArgs") -> None:
        # What a handler raises in the midst of a fork Python drops, with a traceback. Time ends the process then.
        if unraisable.exc_type is not KeyboardInterrupt:
            told(unraisable)

    threading.Thread(target=count, name="signals", daemon=True).start()
    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = told
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread, which leaves the other end to the process: it may be in a read
