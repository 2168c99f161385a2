"""A graph compiled and run once in a process of its own, before this one hands it to OpenVINO.

The one thing to know: `check_graph` says what a graph may consist of, but not that OpenVINO comes to terms with how it
is put together. Where it crashes, or takes more memory or time than such a network can need, that happens here, and is
one sentence. It is protection against a crash, not a sandbox.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fcn_core.errors import BundleError

CPU_SECONDS = 300
"""Of processor time. Our largest network takes ten."""
WALL_SECONDS = 900.0
MEMORY_BYTES = 4 << 30
"""How much may be mapped beyond OpenVINO's own code, and some copies of the constants."""

FAULTY = 3
"""Exit code of a trial that says what is wrong with the graph."""

_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR", "TZ")
_SOURCE = str(Path(__file__).resolve().parents[2])
_LONGEST_ANSWER = 400
_REMEDY = "use the float model, or make the int8 one anew with fcn model quantize"


@dataclass(frozen=True)
class Expected:
    """What the float network makes of an image of size (H, W): the shape of its scores [1, C, h, w], and how many
    elements the largest map inside has."""

    size: tuple[int, int]
    scores: tuple[int, int, int, int]
    largest_map: int


def try_graph(xml: bytes, values: bytes, expected: Expected, precision: str, threads: int) -> None:
    """Compile a checked graph and predict one image, in a process of its own and within limits.

    xml: as `check_graph` returns it. Raises BundleError with what became of it, unless it went well.
    """
    process = _run(xml, values, {"expected": asdict(expected), "precision": precision, "threads": threads})
    if process.returncode != 0:
        raise BundleError(f"the int8 graph is of no use: {fault(process)}; {_REMEDY}")


def _run(xml: bytes, values: bytes, task: dict[str, object]) -> "subprocess.CompletedProcess[bytes]":
    files = [in_memory("graph", xml), in_memory("values", values)]
    try:
        return run_limited("fcn_core.inference.graph_trial_main", files, task)
    finally:
        for file in files:
            os.close(file)


def run_limited(
    module: str, files: Sequence[int], task: Mapping[str, object], longest: int = _LONGEST_ANSWER
) -> "subprocess.CompletedProcess[bytes]":
    """Run a module as a process that has these open files, and a task as JSON; it limits itself (`limit` there).

    What comes back are its exit code and the first `longest` bytes of its standard output. The files stay open.
    """
    said = in_memory("said", b"")
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # The same packages as here, wherever they came from (Ray puts a job's code on the path at run time).
    environment["PYTHONPATH"] = os.pathsep.join([_SOURCE, *(path for path in sys.path if path)])
    text = json.dumps({**task, "files": list(files), "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES})
    # -P: the working directory is not to be imported from.
    command = [sys.executable, "-P", "-m", module, text]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(files),
            env=environment,
        )
        try:
            code = process.wait(WALL_SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGXCPU
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(command, code, os.pread(said, longest, 0))
    finally:
        os.close(said)


def in_memory(name: str, content: bytes) -> int:
    """An open file of that content that is in no folder. The caller closes it."""
    file = os.memfd_create(f"fcn-graph-{name}")
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(file, view[done:], done)
    return file


def fault(process: "subprocess.CompletedProcess[bytes]", runtime: str = "OpenVINO") -> str:
    """What became of a limited process, as the end of a sentence. runtime: what it gave the graph to."""
    code = process.returncode
    said = "".join(letter for letter in process.stdout.decode(errors="replace") if letter.isprintable()).strip()
    if code == FAULTY:
        return said or f"{runtime} refuses it"
    if code == -signal.SIGXCPU:
        return f"{runtime} took more than {CPU_SECONDS} s to compile it"
    if code == -signal.SIGKILL:
        return "compiling it was killed, perhaps for lack of memory"
    if code < 0:
        return f"{runtime} crashed on it ({signal.Signals(-code).name})"
    return f"the process that was to compile it ended with code {code}"
