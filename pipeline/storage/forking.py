"""Whether this process is a fork of another Python process, as PyTorch's loader workers are.

Threads do not survive a fork, and obstore moves its bytes in threads of its own: used again in the child it waits for
ever. So a forked child reads through boto3, with connections of its own.
"""

import os

_forked = False


def is_forked() -> bool:
    """Whether this process was forked after this module was imported."""
    return _forked


def _note() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note)
