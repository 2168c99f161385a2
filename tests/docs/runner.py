"""Runs the snippets of many pages in one process, on one private Ray: `python -m tests.docs.runner PLAN RESULTS`.

PLAN is JSON: a list of pages, each with a folder to work in and steps in order. A step that fails is written down, and
the next goes on.
"""

import contextlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from pipeline.actors import cluster
from pipeline.cli.app import run as fcn


def run_step(step: dict[str, Any]) -> str | None:
    """What went wrong; None when nothing did."""
    printed = io.StringIO()
    before = dict(os.environ)
    os.environ.update(step.get("variables", {}))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if step["kind"] == "python":
                exec(compile(step["text"], step["where"], "exec"), {"__name__": "__main__"})
                return None
            code = fcn(step["words"])
    except BaseException:
        return f"{printed.getvalue()[-2000:]}\n{traceback.format_exc()}"
    finally:
        os.environ.clear()
        os.environ.update(before)
    return None if code == step["code"] else f"exit code {code}, not {step['code']}\n{printed.getvalue()[-2000:]}"


def main() -> None:
    plan, results = Path(sys.argv[1]), Path(sys.argv[2])
    found = []
    home = Path.cwd()
    with cluster.connect():
        for page in json.loads(plan.read_text()):
            os.chdir(page["folder"])
            for step in page["steps"]:
                started = time.monotonic()
                os.environ.update(step.get("exports", {}))
                wrong = run_step(step)
                seconds = round(time.monotonic() - started, 1)
                found.append({"page": page["page"], "where": step["where"], "wrong": wrong, "seconds": seconds})
                results.write_text(json.dumps(found, indent=1))
            os.chdir(home)
    results.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
