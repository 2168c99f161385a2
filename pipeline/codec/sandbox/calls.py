"""System calls that Python has no function for, by number; None of them is a privileged one."""

import ctypes
import os
import platform

PRCTL, CAPSET, SECCOMP, LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = range(5)

_COMMON = {LANDLOCK_CREATE_RULESET: 444, LANDLOCK_RESTRICT_SELF: 446}
_NUMBERS = {
    "x86_64": {PRCTL: 157, CAPSET: 126, SECCOMP: 317, **_COMMON},
    "aarch64": {PRCTL: 167, CAPSET: 91, SECCOMP: 277, **_COMMON},
}

_libc = ctypes.CDLL(None, use_errno=True)


def machine() -> str:
    """The architecture whose system calls this process makes, as Linux names it; "" where it is not known here."""
    name = platform.machine()
    return name if name in _NUMBERS and ctypes.sizeof(ctypes.c_void_p) == 8 else ""


def call(name: int, *arguments: "int | ctypes._CArgObject | None") -> int:
    """What a system call returns. Raises OSError where it fails, or has no number here."""
    number = _NUMBERS.get(machine(), {}).get(name)
    if number is None:
        raise OSError(f"no system call numbers are known for {platform.machine()}")
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
