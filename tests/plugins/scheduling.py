"""Which tests one of xdist's workers takes together: those of a file, and those that share what is slow to start."""

from xdist.scheduler import LoadFileScheduling

APART = "tests/flows/test_deployments.py"
"""Has a site of its own beside the Prefect server, and enough to do for one worker."""


class Scheduling(LoadFileScheduling):
    """`--dist loadfile`, but the flows' files are one: every worker that got some would start a Prefect server."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/flows" if file.startswith("tests/flows/test_") and file != APART else file
