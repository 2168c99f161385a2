"""Who receives the reports of a job while it runs."""

from pipeline.actors.outcome import ShardOutcome
from pipeline.outputs.runs import Progress


class Observer:
    """Receives the events of a running job. Override what is of interest; called from the calling thread."""

    def phase(self, name: str) -> None:
        """The job enters a phase, named for a person: "checking inputs", "listing", ..."""

    def note(self, text: str) -> None:
        """Something a person should know: what "auto" chose, what is resumed."""

    def progress(self, progress: Progress) -> None:
        """Called several times per second while shards run."""

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        """A shard was committed; `done` of the run's `images` are in committed shards now."""

    def lost_output(self) -> str | None:
        """Since when, and why, these reports reach nobody, for the run's record; None where nothing is lost."""
        return None
