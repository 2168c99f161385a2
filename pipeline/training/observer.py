"""Who listens while a training runs: a terminal, a log, or nobody."""

from pipeline.training.progress import TrainProgress


class TrainObserver:
    """Receives the events of a running training job. Override what is of interest; called from the calling thread."""

    def phase(self, name: str) -> None:
        """The job enters a phase, named for a person."""

    def note(self, text: str) -> None:
        """Something a person should know: what "auto" chose, what is resumed, what died."""

    def progress(self, progress: TrainProgress) -> None:
        """How far training is, about every half second."""

    def lost_output(self) -> str | None:
        """Since when, and why, these reports reach nobody, for the run's record; None where nothing is lost."""
        return None
