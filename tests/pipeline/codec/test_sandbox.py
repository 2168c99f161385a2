"""A codec worker that is taken over can do no more than answer with a wrong picture.

What this kernel does not have is not tried, and the reason says what that is.
"""

import contextlib
import functools
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcn_core.decoding import Decoded, decode
from fcn_core.errors import DecodeError
from pipeline.codec import slot
from pipeline.codec.processes import CodecPool
from pipeline.codec.sandbox import calls, landlock, seccomp
from pipeline.codec.worker_main import DECODE
from pipeline.errors import ImageError
from tests.fcn_core.decoding.survey import FAMILIES, Variant
from tests.pipeline.codec.harmful_worker import ANSWERS, DONE, ERROR_WITHOUT_REASON, HARMS, REFUSED

ROOT = Path(__file__).resolve().parents[3]

LIMITS_STOP = {"read a file", "list a folder", "write a file", "make a socket", "open a connection",
               "make a file in memory", "read the parent's environment", "open the parent's memory"}  # fmt: skip
LANDLOCK_STOPS = {"make a folder", "read the parent's memory", "trace the parent", "run a program"}
THREADS_COME_TO = {"start a thread": DONE, "start threads without end": "decoder_crashed"}
PRIVILEGES_STOP = {"be another user", "raise its limits"}


@functools.cache
def tried(user: str) -> dict[str, Any]:
    """What came of each harm in a worker of this user's, or of nobody's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = python("-m", "tests.pipeline.codec.harmful_worker", "try", user, str(server.getsockname()[1]))
    found: dict[str, Any] = json.loads(done)
    return found


def python(*arguments: str) -> str:
    """What Python prints, started as a worker is."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments], cwd="/", capture_output=True, text=True, timeout=280, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("user", ["this", "nobody", "heif"])
@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_that_is_taken_over_does_no_harm(harm: str, user: str) -> None:
    """One that reads HEIC may start a few threads, and nothing else that the others may not."""
    if user == "nobody" and os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    found = tried(user)
    stopped = (
        harm in LIMITS_STOP
        or (harm in LANDLOCK_STOPS and found["landlock"])
        or (harm in PRIVILEGES_STOP and "no_new_privs" not in found["missing"])
        or "seccomp" not in found["missing"]
    )
    if not stopped:
        pytest.skip(f"nothing stops it on a kernel without {', '.join(found['missing'])}")
    reason, words = found["outcomes"][harm]
    expected = THREADS_COME_TO.get(harm, REFUSED) if user == "heif" else REFUSED
    assert reason == expected, words


ALONE = """
import os, socket, sys, resource
from pipeline.codec.sandbox import landlock, limits, privileges
from tests.pipeline.codec.harmful_worker import become_nobody

def refused(act):
    try:
        act()
    except (OSError, ValueError):
        return True
    return False

if os.geteuid() == 0:  # whom limits do not hold
    become_nobody()
"""


def test_limits_alone_let_nothing_be_opened_and_no_process_start() -> None:
    assert python("-c", ALONE + """
limits.limit(1 << 34, 1000)
limits.start_nothing()
print(refused(lambda: os.open("/etc/passwd", os.O_RDONLY)), refused(lambda: socket.socket()), refused(os.fork),
      refused(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))),
      refused(lambda: os.ftruncate(1, 1001)))
os.close(0)  # there is room for another descriptor now
print(refused(lambda: os.open("/etc/passwd", os.O_RDONLY)), refused(lambda: socket.socket()))
""").split() == ["True"] * 7  # fmt: skip


def test_landlock_alone_lets_no_file_be_reached_and_no_port_from_version_4_on() -> None:
    version = landlock.version()
    if not version:
        pytest.skip("this kernel has no Landlock, or it is switched off")
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = python("-c", ALONE + """
privileges.drop()
version = landlock.restrict()
def connect():
    with socket.socket() as client:
        client.connect(("127.0.0.1", int(sys.argv[1])))
print(version, refused(lambda: os.open("/etc/passwd", os.O_RDONLY)), refused(lambda: os.listdir("/")),
      refused(lambda: os.open("/tmp/harm", os.O_WRONLY | os.O_CREAT)), refused(connect),
      refused(lambda: os.kill(os.getppid(), 0)), refused(lambda: os.execv("/bin/true", ["true"])))
""", str(server.getsockname()[1]))  # fmt: skip
    # Signals to another user's process are refused in any case; where all are one user, from version 6 on.
    assert told == f"{version} True True True {version >= 4} {version >= 6 or os.geteuid() == 0} True"


def test_a_worker_has_no_thread_beside_the_one_that_is_confined() -> None:
    with CodecPool(1) as pool:
        pool.confinement()
        (pid,) = pool.worker_pids()
        assert len(os.listdir(f"/proc/{pid}/task")) == 1


def test_an_answer_that_makes_no_sense_is_that_image_s_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "WORKER", "tests.pipeline.codec.harmful_worker")
    # The pool would start another worker after each of them.
    worker = slot.Slot(slot.Limits(1 << 30, 100, 1 << 24), threading.Event())
    with contextlib.closing(worker):
        worker.start()
        for answer in ANSWERS:
            with pytest.raises(slot.FaultError) as caught:
                worker.ask(DECODE, answer.encode())
            assert str(caught.value.blame) == "decoder_crashed: The decoder's answer makes no sense.", answer


def test_an_error_without_a_reason_costs_the_image_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "WORKER", "tests.pipeline.codec.harmful_worker")
    with CodecPool(workers=1) as pool, pytest.raises(ImageError) as caught:
        pool.decode(ERROR_WITHOUT_REASON.encode()).result(timeout=100)
    assert caught.value.reason == "decoder_crashed"
    assert caught.value.message == r"Decoding failed: \x1b[2Jall is well."


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_confined_worker_decodes_every_variant_as_it_is_decoded_here(
    family: Callable[[], Iterator[Variant]], pool: CodecPool
) -> None:
    """Whatever a decoder loads or asks of the system, it has before or is let."""
    for variant in family():
        data = variant.data
        expected, found = outcome(functools.partial(decode, data)), outcome(functools.partial(pool.decode_now, data))
        np.testing.assert_array_equal(found, expected, variant.name)


def outcome(attempt: Callable[[], Decoded]) -> Any:
    """Pixels, or the reason that there are none."""
    try:
        return attempt().pixels
    except (DecodeError, ImageError) as error:
        return error.reason


@pytest.fixture(scope="module")
def pool() -> Iterator[CodecPool]:
    with CodecPool(1) as pool:
        yield pool


ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
A_THREAD, SIGCHLD = 0x3D0F00, 17
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(steps: list[seccomp.Instruction], architecture: int, number: int, *arguments: int) -> int:
    """What a filter says to a system call: classic BPF, as far as the filter uses it."""
    words = {0: number, 4: architecture} | {16 + 8 * at: value & 0xFFFFFFFF for at, value in enumerate(arguments)}
    accumulator = at = 0
    while True:
        step = steps[at]
        at += 1
        match step.code:
            case 0x20:  # load a word
                accumulator = words.get(step.operand, 0)
            case 0x06:  # return
                return step.operand
            case code:
                compared = {0x15: accumulator == step.operand, 0x35: accumulator >= step.operand,
                            0x45: accumulator & step.operand != 0}[code]  # fmt: skip
                at += step.if_true if compared else step.if_false


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_filter_lets_pass_what_it_lists_and_nothing_else(architecture: str) -> None:
    steps = seccomp.program(architecture, 77)
    assert len(steps) < 4096  # of which the kernel takes no more
    code, column = ARCHITECTURES[architecture], list(ARCHITECTURES).index(architecture)
    listed = {numbers[column] for numbers in seccomp._ALLOWED.values()}
    with_conditions = {
        numbers[column] for numbers in (seccomp._WITHOUT_EXECUTABLE_MEMORY | seccomp._TO_ITSELF).values()
    }
    for number in [*range(700), 0x40000000, 0x40000001, 0x4000003B, 0xFFFFFFFF]:
        expected = ALLOW if number in listed else ABSENT if number >= 424 else REFUSE
        if number not in with_conditions:
            assert verdict(steps, code, number) == expected, number
    for number in (numbers[column] for numbers in seccomp._WITHOUT_EXECUTABLE_MEMORY.values()):
        assert verdict(steps, code, number, 0, 4096, 3) == ALLOW
        assert verdict(steps, code, number, 0, 4096, 5) == REFUSE
        assert verdict(steps, code, number, 0, 4096, 1 << 32 | 7) == REFUSE
    for number in (numbers[column] for numbers in seccomp._TO_ITSELF.values()):
        assert verdict(steps, code, number, 77, 77, 6) == ALLOW
        assert verdict(steps, code, number, 78, 77, 6) == REFUSE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_filter_of_heic_lets_threads_start_and_nothing_else_than_the_other(architecture: str) -> None:
    code, column = ARCHITECTURES[architecture], list(ARCHITECTURES).index(architecture)
    steps, strict = (seccomp.program(architecture, 77, threads=threads) for threads in (True, False))
    (clone,) = (numbers[column] for numbers in seccomp._CLONE.values())
    of_threads = {numbers[column] for numbers in seccomp._WITH_THREADS.values()}
    for number in {*range(700)} - of_threads - {clone}:
        assert verdict(steps, code, number, 77, 77, 6) == verdict(strict, code, number, 77, 77, 6), number
    assert {verdict(steps, code, number) for number in of_threads} == {ALLOW}
    assert verdict(steps, code, clone, A_THREAD) == ALLOW
    assert verdict(strict, code, clone, A_THREAD) == REFUSE
    for bit in range(32):  # any flag less, and any more: a process, a namespace, another's files
        assert verdict(steps, code, clone, A_THREAD ^ 1 << bit) == REFUSE, bit
    assert verdict(steps, code, clone, SIGCHLD) == REFUSE  # fork
    assert verdict(steps, code, 435, A_THREAD) == ABSENT  # clone3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_filter_ends_a_process_that_calls_as_on_another_architecture(architecture: str) -> None:
    steps = seccomp.program(architecture, 77)
    for other in (0x40000003, 0x40000028, *ARCHITECTURES.values()):
        if other != ARCHITECTURES[architecture]:
            assert verdict(steps, other, 0) == KILL


@pytest.mark.parametrize(
    ("column", "header", "pattern"),
    [
        (0, "x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
        (1, "asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_the_numbers_are_those_of_the_kernel_s_headers(column: int, header: str, pattern: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    numbers = {name: int(number) for name, number in re.findall(pattern, path.read_text())}
    listed = seccomp._ALLOWED | seccomp._WITHOUT_EXECUTABLE_MEMORY | seccomp._TO_ITSELF
    listed |= seccomp._WITH_THREADS | seccomp._CLONE
    assert {name: pair[column] for name, pair in listed.items()} == {name: numbers[name] for name in listed}
    ours = calls._NUMBERS[list(ARCHITECTURES)[column]]
    assert ours[calls.SECCOMP] == numbers["seccomp"]
    assert ours[calls.PRCTL] == numbers["prctl"]
    assert ours[calls.CAPSET] == numbers["capset"]
    assert ours[calls.LANDLOCK_CREATE_RULESET] == numbers["landlock_create_ruleset"]
    assert ours[calls.LANDLOCK_RESTRICT_SELF] == numbers["landlock_restrict_self"]
