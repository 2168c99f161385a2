"""Where `fcn` begins and ends. Loads next to nothing, so that Ctrl-C is quiet from the first moment on."""

import atexit
import os
import signal
import sys

INTERRUPTED = 130


def main() -> None:
    """The console script: the command, which ends with its exit code."""
    # The first to register is the last to be called.
    atexit.register(_end)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell starts what it puts into the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # nothing is begun while modules are loaded
        # Python takes its handlers away as it ends, and what is pressed while libraries are unloaded would kill the
        # process, with another exit code than its own.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from pipeline.cli.app import main as run

    try:
        run()
    except SystemExit as done:
        global _code
        _code = done.code
        raise


_code: object = None
"""The exit code, once the command has one."""


def _end() -> None:
    """End the process where everything has been closed that closes itself: to unload PyTorch takes two seconds."""
    if isinstance(_code, int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_code)
