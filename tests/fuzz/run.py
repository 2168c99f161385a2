"""Fuzz the readers of strangers' bytes for a while: `python -m tests.fuzz.run --seconds 60`.

The seconds are shared out among the targets. An input that makes one fail is saved, and the line that replays it
printed; the exit code is then 1.
"""

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TARGETS = (
    "tests.fuzz.decode",
    "tests.fuzz.caffemodel",
    "tests.fuzz.model_json",
    "tests.fuzz.weights_file",
    "tests.fuzz.int8_graph",
    "tests.fuzz.manifests",
    "tests.fuzz.key_lists",
)
SLOWEST_SECONDS = 20
"""An input that takes longer counts as a stall."""

LARGEST_BYTES = 4096
"""How long an input may be, unless a target says otherwise."""


def fuzz(module: str, seconds: int, keep: Path, seed: int) -> bool:
    """Run one target for so long; prints one line, or all about a failure. Returns whether it held."""
    keep.mkdir(parents=True, exist_ok=True)
    before = set(keep.iterdir())
    target = importlib.import_module(module)
    longest = getattr(target, "LARGEST_BYTES", LARGEST_BYTES)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(target.seeds()):
            (Path(corpus) / f"{number:03d}").write_bytes(data)
        done = subprocess.run(
            [
                # The kernel lets a process keep the peak memory of whoever forked it, which the fuzzer would take for
                # its target's own; so a shell, which has none to speak of, stands between.
                *("sh", "-c", '"$@"; exit $?', "sh"),
                *(sys.executable, "-m", "tests.fuzz.child", module),
                *(f"-max_total_time={seconds}", f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={target.MEMORY_MB}"),
                *(f"-max_len={longest}", f"-seed={seed}", f"-artifact_prefix={keep}/"),
                *("-print_final_stats=1", corpus),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    name = module.rpartition(".")[2]
    if done.returncode == 0:
        executions = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        print(
            f"{name}: {executions.group(1) if executions else 0} inputs in {seconds} s, all read or refused within"
            f" {target.MEMORY_MB} MB"
        )
        return True
    print(done.stdout[-4000:] + done.stderr[-4000:])
    print(f"{name}: failed with seed {seed}")
    for path in sorted(set(keep.iterdir()) - before):
        print(f"saved; again with: {sys.executable} -m tests.fuzz.child {module} {path}")
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGETS, help="modules; default: all targets")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="where failing inputs are saved")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    options = parser.parse_args(arguments)
    share = max(1, options.seconds // len(options.targets))
    held = [fuzz(module, share, options.keep, options.seed) for module in options.targets]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
