"""A seccomp filter: the few system calls that decoding takes, and a refusal of every other.

The filter is a program of the kernel's classic BPF, which sees a call's number and arguments and no memory behind them.
It is a list of what may pass, so that what a later kernel adds is refused, too.
"""

import ctypes
import os
from dataclasses import dataclass

from pipeline.codec.sandbox.calls import SECCOMP, call, machine

_ALLOWED = {
    # Requests, replies and the arena, all of them open already.
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "ftruncate": (77, 46),
    "close": (3, 57),
    # Memory.
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # What the C library and Python ask for on the way.
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "gettimeofday": (96, 169),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""System calls by name: their numbers on x86-64 and on 64-bit ARM."""

_WITHOUT_EXECUTABLE_MEMORY = {"mmap": (9, 222), "mprotect": (10, 226)}
_TO_ITSELF = {"tgkill": (234, 131)}  # abort(), so that a decoder that gives up is told from one that was killed

_WITH_THREADS = {
    "set_robust_list": (273, 99),
    "rseq": (334, 293),  # the C library ends a process whose new thread may not
}
_CLONE = {"clone": (56, 220)}
_A_THREAD = 0x003D0F00
"""The flags with which the C library starts a thread, and never a process or a namespace. Its first choice, clone3,
has them where the filter cannot see; after ENOSYS it calls clone."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}

_FIRST_SINCE_2019 = 424
"""From here on all architectures count alike. The C library tries these first, and an older call after ENOSYS alone."""

_PROT_EXEC = 4
_EPERM, _ENOSYS = 1, 38

_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of 32-bit words
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1


@dataclass(frozen=True, slots=True)
class Instruction:
    """One of classic BPF. `if_true` and `if_false`: how many instructions a comparison passes over."""

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0


class _Packed(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("operand", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Packed)))


def program(architecture: str, pid: int, *, threads: bool = False) -> list[Instruction]:
    """The filter for a process on "x86_64" or "aarch64"; with `threads`, for one that may start threads.

    A call of another architecture's kind (32-bit ones have other numbers) ends the process.
    """
    column = _COLUMN[architecture]
    allow = [Instruction(_RETURN, _ALLOW)]
    branches = [
        *((numbers, allow) for numbers in (_ALLOWED | (_WITH_THREADS if threads else {})).values()),
        *((numbers, _unless_any(2, _PROT_EXEC)) for numbers in _WITHOUT_EXECUTABLE_MEMORY.values()),
        *((numbers, _only(0, pid)) for numbers in _TO_ITSELF.values()),
        *((numbers, _only(0, _A_THREAD)) for numbers in (_CLONE if threads else {}).values()),
    ]
    return [
        Instruction(_LOAD, _ARCHITECTURE_AT),
        Instruction(_IF_EQUAL, _AUDIT_ARCH[architecture], if_true=1),
        Instruction(_RETURN, _KILL_PROCESS),
        Instruction(_LOAD, _NUMBER_AT),
        *(step for numbers, then in branches for step in _if_called(numbers[column], then)),
        Instruction(_IF_AT_LEAST, _FIRST_SINCE_2019, if_false=1),
        Instruction(_RETURN, _ERRNO | _ENOSYS),
        Instruction(_RETURN, _ERRNO | _EPERM),
    ]


def _if_called(number: int, then: list[Instruction]) -> list[Instruction]:
    return [Instruction(_IF_EQUAL, number, if_false=len(then)), *then]


def _unless_any(argument: int, bits: int) -> list[Instruction]:
    """Allow the call unless an argument has one of these bits."""
    return [
        Instruction(_LOAD, _ARGUMENTS_AT + 8 * argument),
        Instruction(_IF_ANY_BIT, bits, if_false=1),
        Instruction(_RETURN, _ERRNO | _EPERM),
        Instruction(_RETURN, _ALLOW),
    ]


def _only(argument: int, value: int) -> list[Instruction]:
    """Allow the call if the lower half of an argument is this: all that the kernel reads of a process's number, and
    of clone's flags."""
    return [
        Instruction(_LOAD, _ARGUMENTS_AT + 8 * argument),
        Instruction(_IF_EQUAL, value, if_true=1),
        Instruction(_RETURN, _ERRNO | _EPERM),
        Instruction(_RETURN, _ALLOW),
    ]


def install(*, threads: bool = False) -> bool:
    """Put the filter on all threads of this process, for good. Wants `no_new_privs`, see `privileges`.

    Reports whether it is in force: not on other architectures, nor where seccomp is compiled out or not to be had.
    """
    architecture = machine()
    if not architecture:
        return False
    steps = program(architecture, os.getpid(), threads=threads)
    packed = (_Packed * len(steps))(*(_Packed(s.code, s.if_true, s.if_false, s.operand) for s in steps))
    try:
        return call(SECCOMP, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(_Program(len(steps), packed))) == 0
    except OSError:
        return False
