"""How long a call to storage is tried: the one loop that every request of the S3 store goes through.

The clients below it try once. So pages of a listing, reads, writes and renewals of credentials have the same patience,
however many threads share a client.
"""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import CredentialsExpired, StorageError, StorageUnavailable, UntrustedCertificate

Result = TypeVar("Result")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0

_RENEWAL_PAUSE = 0.3
"""Seconds between a renewal of credentials and the next try; obstore may hold the old ones for a tenth of a second."""


def ask_patiently(
    ask: Callable[[], Result],
    explain: Callable[[Exception], StorageError],
    *,
    seconds: float,
    attempts: int = 1,
    renew: Callable[[], object] = lambda: None,
    stopped: threading.Event | None = None,
) -> Result:
    """What `ask` returns, tried again with growing pauses for `seconds`, and `attempts` times at least.

    `explain` turns what `ask` raises into a StorageError. Only StorageUnavailable is waited for. Keys that the service
    does not accept any more are renewed with `renew`, once before each answer, and then asked with again. A certificate
    that is not trusted is reported at once. After `stopped` is set, nothing is tried again.
    """
    deadline, pause, tries, renewed = time.monotonic() + seconds, _FIRST_PAUSE, 0, False
    waiting = stopped or threading.Event()
    while True:
        tries += 1
        try:
            return ask()
        except Exception as error:
            trouble = explain(error)
        if isinstance(trouble, CredentialsExpired) and not renewed:
            renewed = True
            try:
                renew()
            except Exception as error:
                trouble = explain(error)
            else:
                waiting.wait(_RENEWAL_PAUSE)
                continue
        if not isinstance(trouble, StorageUnavailable) or isinstance(trouble, UntrustedCertificate):
            raise trouble
        left = deadline - time.monotonic()
        if left <= 0 and tries >= attempts:
            raise trouble
        wanted = pause * random.uniform(0.5, 1)
        if waiting.wait(min(wanted, left) if left > 0 else wanted):  # the last try is made when the time is up
            raise trouble
        pause, renewed = min(2 * pause, _LONGEST_PAUSE), False
