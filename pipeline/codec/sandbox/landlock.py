"""Landlock: the kernel's own word on which files, ports and processes a process may reach. Here it is none.

Linux has it from 5.13 on where it is switched on (`lsm=` of the kernel's command line). Each version of its interface
can refuse more than the one before.
"""

import ctypes
import os

from pipeline.codec.sandbox.calls import LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, call

_VERSION = 1  # a flag: ask for the version, make nothing

_FILES_BY_VERSION = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many kinds of access to files, each a bit, can be refused from a version on: execute, write, read, list, remove
and make; link elsewhere (2), truncate (3), ioctl on devices (5)."""

_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none, or none is to be had here (an old container runtime)."""
    try:
        return call(LANDLOCK_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict() -> int:
    """Refuse this thread, and all that it starts, every kind of access that this kernel's Landlock knows.

    What is open stays open. Wants `no_new_privs`, see `privileges`. Returns the version in force, 0 for none.
    """
    known = version()
    if not known:
        return 0
    bits = max(count for since, count in _FILES_BY_VERSION.items() if since <= known)
    rules = _Ruleset((1 << bits) - 1, _TCP if known >= _TCP_SINCE else 0, _SCOPES if known >= _SCOPES_SINCE else 0)
    try:
        # A kernel that knows a shorter structure takes this one as long as the rest is zero.
        ruleset = call(LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
        try:
            call(LANDLOCK_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)
    except OSError:
        return 0
    return known
