"""Ctrl-C and a closed terminal end a command as soon as can be, however often and whatever it is at."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.isolation import child_path
from tests.processes import environment_without_ray, heed_hangups
from tests.samples import fill

PATIENCE = 120.0

AT_WORK = """
import ctypes, os, signal, sys, time
from pipeline.cli import interrupts
interrupts.QUIT_SECONDS = 1.0
with interrupts.quiet_interrupts(), interrupts.stop_signals() as stop:
    print("at work", flush=True)
    {body}
    print("stopped", flush=True)
sys.exit(130)
"""
WAITS = "stop.wait(100)"
CLEANS_UP = "stop.wait(100); time.sleep(2)"
HANGS = "mutex = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None).pthread_mutex_lock; lock(mutex); lock(mutex)"
"""Stands in C for ever, as a library that waits for storage does."""
HOLDS = "stop._cond.acquire(); signal.raise_signal(signal.SIGTERM); stop._cond.release(); assert stop.wait(100)"
FORKS = (
    "os.register_at_fork(after_in_parent=lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)]);"
    " os.fork() or os._exit(0); time.sleep(100)"
)
"""The second Ctrl-C comes in the midst of starting a process, where Python takes no exception."""


def start(code: str, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> "subprocess.Popen[str]":
    ours = environment_without_ray()
    return subprocess.Popen(
        [*prefix, sys.executable, "-P", "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=ours | {"PYTHONPATH": child_path()} | environment, start_new_session=True,
        preexec_fn=heed_hangups,
    )  # fmt: skip


def pressed(program: "subprocess.Popen[str]", signals: list[int]) -> tuple[int, str]:
    """Send signals within half a second; returns the exit code and all that was said."""
    try:
        for count, number in enumerate(signals):
            if count:
                time.sleep(0.5 / len(signals))
            program.send_signal(number)
        out, err = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
    return program.returncode, out + err


INT, HUP, TERM = signal.SIGINT, signal.SIGHUP, signal.SIGTERM


@pytest.mark.parametrize(
    ("body", "signals", "said"),
    [
        (WAITS, [INT], "press Ctrl-C again"),
        (WAITS, [TERM], "SIGTERM: stopping"),
        (WAITS, [HUP], "SIGHUP: stopping"),
        (CLEANS_UP, [HUP, HUP, HUP], "SIGHUP: stopping"),  # of the kernel and of the shell
        (HANGS, [INT, INT], "quit at once"),
        (HANGS, [HUP, INT], "quit at once"),
        (HANGS, [INT, INT, INT], "quit at once"),
    ],
)
def test_ctrl_c_and_sighup_end_what_stops_and_what_hangs(body: str, signals: list[int], said: str) -> None:
    program = start(AT_WORK.format(body=body))
    assert program.stdout
    assert program.stdout.readline() == "at work\n"
    code, text = pressed(program, signals)
    assert (code, "Traceback" in text) == (130, False), text
    assert said in text or body == HANGS, "a handler in Python has no turn while the main thread hangs"
    assert ("stopped" in text) == (body != HANGS)


def test_a_signal_while_the_main_thread_has_the_lock_of_the_event_is_heard() -> None:
    """The handler took the lock that the thread it interrupts may have: for ever, once in some ten whole runs."""
    program = start(AT_WORK.format(body=HOLDS))
    code, text = pressed(program, [])
    assert code == 130, text
    assert "SIGTERM: stopping" in text
    assert "stopped" in text


def test_a_signal_that_comes_with_the_first_handler_stops_the_job() -> None:
    comes = """
set_handler = signal.signal

def set_and_raise(number, handler):
    previous = set_handler(number, handler)
    if number == signal.SIGTERM:
        signal.signal = set_handler
        signal.raise_signal(number)
    return previous

signal.signal = set_and_raise
with interrupts.stop_signals() as again:
    print("heard", again.wait(100))
"""
    program = start("import signal\nfrom pipeline.cli import interrupts" + comes)
    _, text = pressed(program, [])
    assert "SIGTERM: stopping" in text
    assert "heard True" in text


def test_ctrl_c_in_the_midst_of_a_fork_is_no_traceback() -> None:
    program = start(AT_WORK.format(body=FORKS))
    code, text = pressed(program, [])
    assert (code, "Traceback" in text) == (130, False), text
    assert "quit at once" in text


def test_nohup_is_respected() -> None:
    program = start(AT_WORK.format(body="stop.wait(1.5)"), prefix=("nohup",))
    assert program.stdout
    assert program.stdout.readline() == "at work\n"
    _, text = pressed(program, [HUP])
    assert "stopping" not in text
    assert "stopped" in text


AT_ONCE = """
import signal
set_handler = signal.signal

def set_and_tell(*arguments):
    signal.signal = set_handler
    set_handler(*arguments)
    print("up", flush=True)

signal.signal = set_and_tell  # Python's own handler is there until the first line of main
from pipeline.cli.entry import main
main()
"""


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_at_once_is_quiet(presses: int) -> None:
    program = start(AT_ONCE, "doctor")
    assert program.stdout
    assert program.stdout.readline() == "up\n"
    code, text = pressed(program, [INT] * presses)
    assert (code, "Traceback" in text) == (130, False), text


def left_behind(mark: str) -> Iterator[str]:
    """The commands of processes that inherited `mark` in their environment."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"FCN_TEST_MARK={mark}".encode() in environment.split(b"\0"):
                yield command.replace(b"\0", b" ").decode(errors="replace")


@pytest.mark.parametrize(
    "presses", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_ctrl_c_while_ray_starts_leaves_nothing_behind(presses: int, tmp_path: Path, model_dir: Path) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    fill(source, 1)
    program = start(
        "from pipeline.cli.entry import main; main()",
        *("segment", str(source), str(output), "--model", str(model_dir), "--device", "cpu", "--engine", "torch"),
        *("--actors", "1", "--cpus-per-actor", "1", "--no-report", "--ray-address", "local"),
        FCN_TEST_MARK=str(tmp_path),
    )
    assert program.stderr
    for line in program.stderr:
        if "starting Ray" in line:
            break
    code, text = pressed(program, [INT] * presses)
    assert (code, "Traceback" in text) == (130, False), text
    deadline = time.monotonic() + PATIENCE
    while (left := list(left_behind(str(tmp_path)))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
