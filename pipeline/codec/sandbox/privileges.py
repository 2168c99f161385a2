"""No way back to rights that a process has given up, and none that root has beyond those of its files' owner."""

import ctypes

from pipeline.codec.sandbox.calls import CAPSET, PRCTL, call

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop() -> bool:
    """Take no new privileges with any program, have no capability, and be no other process's to look into.

    Root without capabilities may neither raise its limits nor trace or read what is not its own. A process that is not
    dumpable leaves no core, with pixels in it, either. Reports whether all of it is in force.
    """
    try:
        call(PRCTL, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        call(PRCTL, _PR_SET_DUMPABLE, 0, 0, 0, 0)
        call(CAPSET, ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref((_Data * 2)()))
    except OSError:
        return False
    return True
