"""The events of a retraining, and how those of its parts become them."""

from collections.abc import Mapping

from fcn_core.training.loop import History
from pipeline.actors.observer import Observer
from pipeline.data.report import DataReport
from pipeline.numbers import score
from pipeline.outputs.runs import Progress
from pipeline.retraining.contest import Contest
from pipeline.training.observer import TrainObserver
from pipeline.training.progress import TrainProgress
from pipeline.training.report import TrainReport


class RetrainObserver:
    """Receives the events of a running retraining. Override what is of interest; called from the calling thread."""

    def note(self, text: str) -> None:
        """Something a person should know: what "auto" chose, what is resumed, what a worker died of."""

    def progress(self, share: float | None, text: str) -> None:
        """How far the present step is, 0..1 or unknown, and what it is doing. Called several times per second."""

    def checked(self, report: DataReport) -> None:
        """The data was looked through, with or without problems."""

    def trained(self, report: TrainReport, histories: Mapping[str, History]) -> None:
        """Training is over; its curves by stage, in the order they were trained."""

    def judged(self, contest: Contest) -> None:
        """Both models were scored and compared. Comes again if the champion changes before a promotion."""

    def lost_output(self) -> str | None:
        """Since when, and why, these reports reach nobody, for the records of the parts; None where it does."""
        return None


class TrainingPart(TrainObserver):
    """Listens to the training."""

    def __init__(self, whole: RetrainObserver) -> None:
        self._whole = whole

    def phase(self, name: str) -> None:
        self._whole.progress(None, name)

    def note(self, text: str) -> None:
        self._whole.note(text)

    def lost_output(self) -> str | None:
        return self._whole.lost_output()

    def progress(self, progress: TrainProgress) -> None:
        stage = f"{progress.stage} ({progress.stage_number} of {progress.stages}), " if progress.stages > 1 else ""
        text = f"{stage}step {progress.step} of {progress.steps}"
        if progress.loss is not None:
            text += f", loss {progress.loss:.3f}, {progress.images_per_second or 0:.1f} images/s"
        if progress.val_mean_iou is not None:
            text += f", val mean IoU {score(progress.val_mean_iou)} (best {score(progress.best_mean_iou or 0)})"
        done = progress.stage_number - 1 + progress.step / progress.steps
        self._whole.progress(done / progress.stages, text)


class ActorsPart(Observer):
    """Listens to an evaluation or a labelling; `doing` says to a person which."""

    def __init__(self, whole: RetrainObserver, doing: str) -> None:
        self._whole = whole
        self._doing = doing

    def phase(self, name: str) -> None:
        self._whole.progress(None, f"{self._doing}: {name}")

    def note(self, text: str) -> None:
        self._whole.note(text)

    def lost_output(self) -> str | None:
        return self._whole.lost_output()

    def progress(self, progress: Progress) -> None:
        share = progress.done / progress.images
        self._whole.progress(share, f"{self._doing}: {progress.done} of {progress.images} images")
