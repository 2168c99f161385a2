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
        raise BundleError(f"the int8 graph is of no use: {_fault(process)}; {_REMEDY}")


def _run(xml: bytes, values: bytes, task: dict[str, object]) -> "subprocess.CompletedProcess[bytes]":
    files = [_in_memory("graph", xml), _in_memory("values", values), _in_memory("said", b"")]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # The same packages as here, wherever they came from (Ray puts a job's code on the path at run time).
    environment["PYTHONPATH"] = os.pathsep.join([_SOURCE, *(path for path in sys.path if path)])
    text = json.dumps({**task, "files": files[:2], "cpu_seconds": CPU_SECONDS, "memory_bytes": MEMORY_BYTES})
    # -P: the working directory is not to be imported from.
    command = [sys.executable, "-P", "-m", "fcn_core.inference.graph_trial_main", text]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=files[2],
            stderr=subprocess.DEVNULL,
            pass_fds=files,
            env=environment,
        )
        try:
            code = process.wait(WALL_SECONDS)
        except subprocess.TimeoutExpired:
            code = -signal.SIGXCPU
        finally:
            process.kill()
            process.wait()
        return subprocess.CompletedProcess(command, code, os.pread(files[2], _LONGEST_ANSWER, 0))
    finally:
        for file in files:
            os.close(file)


def _in_memory(name: str, content: bytes) -> int:
    file = os.memfd_create(f"fcn-graph-{name}")
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(file, view[done:], done)
    return file


def _fault(process: "subprocess.CompletedProcess[bytes]") -> str:
    code = process.returncode
    said = "".join(letter for letter in process.stdout.decode(errors="replace") if letter.isprintable()).strip()
    if code == FAULTY:
        return said or "OpenVINO refuses it"
    if code == -signal.SIGXCPU:
        return f"OpenVINO took more than {CPU_SECONDS} s to compile it"
    if code == -signal.SIGKILL:
        return "compiling it was killed, perhaps for lack of memory"
    if code < 0:
        return f"OpenVINO crashed on it ({signal.Signals(-code).name})"
    return f"the process that was to compile it ended with code {code}"
