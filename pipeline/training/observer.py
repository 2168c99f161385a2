"""Who listens while a training runs: a terminal, a log, MLflow, or nobody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.training.progress import TrainProgress

if TYPE_CHECKING:
    from fcn_core import ModelBundle
    from pipeline.jobs.train import TrainJob
    from pipeline.training.curves import Curves
    from pipeline.training.records import TrainRecord, TrainRun


@dataclass(frozen=True)
class BegunTraining:
    """A training with its plan. `curves`: reads them as of the newest checkpoint, by stage, those that have begun."""

    job: "TrainJob"
    run: "TrainRun"
    uri: str
    curves: "Callable[[], Mapping[str, Curves]]"


class TrainObserver:
    """Receives the events of a running training job. Override what is of interest; called from the calling thread."""

    def phase(self, name: str) -> None:
        """The job enters a phase, named for a person."""

    def note(self, text: str) -> None:
        """Something a person should know: what "auto" chose, what is resumed, what died."""

    def begun(self, training: BegunTraining) -> None:
        """There is a plan, a new one or that of a run that is taken up again. Once per call of `train`."""

    def progress(self, progress: TrainProgress) -> None:
        """How far training is, about every half second."""

    def ended(self, record: "TrainRecord", model: "Callable[[], ModelBundle]") -> None:
        """The training has ended, or had before: finished, interrupted or failed. `model` loads that of a finished."""

    def lost_output(self) -> str | None:
        """Since when, and why, these reports reach nobody, for the run's record; None where nothing is lost."""
        return None


class Both(TrainObserver):
    """Two observers as one; whether output is lost, the first says."""

    def __init__(self, first: TrainObserver, second: TrainObserver) -> None:
        self._first, self._second = first, second

    def phase(self, name: str) -> None:
        self._first.phase(name)
        self._second.phase(name)

    def note(self, text: str) -> None:
        self._first.note(text)
        self._second.note(text)

    def begun(self, training: BegunTraining) -> None:
        self._first.begun(training)
        self._second.begun(training)

    def progress(self, progress: TrainProgress) -> None:
        self._first.progress(progress)
        self._second.progress(progress)

    def ended(self, record: "TrainRecord", model: "Callable[[], ModelBundle]") -> None:
        self._first.ended(record, model)
        self._second.ended(record, model)

    def lost_output(self) -> str | None:
        return self._first.lost_output()
