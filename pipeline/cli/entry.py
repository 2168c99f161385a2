"""Where `fcn` begins. Loads next to nothing, so that Ctrl-C is quiet from the first moment on."""

import atexit
import os
import signal

INTERRUPTED = 130


def main() -> None:
    """The console script: the command, which ends with its exit code."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell starts what it puts into the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # nothing is begun while modules are loaded
        # The first to register is the last to be called. Python takes its handlers away as it ends, and what is pressed
        # while libraries are unloaded would kill the process, with another exit code than its own.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    from pipeline.cli.app import main as run

    run()
