"""What a training run keeps, under OUTPUT/<name>: its plan, checkpoints, best models, curves, and how it stands.

    job.json                                 the job as asked for and resolved; create-only
    start/                                   the model that training began with
    images/                                  digests of the images that are trained on, named by the split's content;
                                             which classes each holds, for balanced sampling
    checkpoints/step-00000400/               state.safetensors, then state.json, which commits it; the newest two stay,
                                             and of a finished run as many as it was asked to keep
    best/step-00000350/                      the model that was best then; those that kept checkpoints know of
    model/                                   the best model of the finished run
    history.json, progress.json, run.json    the curves; live numbers; how the run ended
    measured.json, report.html, validation/  speed and memory by step; a page of all this; pictures of validation images
    tensorboard/, examples/                  the curves for TensorBoard; which names each worker saw, if asked for

The one thing to know: a checkpoint is written once (create-only by its step) and what is wrong with it shows when it
is read. So whoever writes here beside the rightful driver, such as the workers of a driver that died, does no harm:
steps of one run are alike, and the first to commit one wins.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fcn_core import ModelBundle
from fcn_core.data.class_pixels import ClassPresence
from fcn_core.errors import BundleError, CheckpointError
from fcn_core.models.description import MODEL_FILE, WEIGHTS_FILE, parse_description
from fcn_core.trained_on import TrainedOn
from fcn_core.training.checkpoint import STATE_FILE, TENSORS_FILE, from_files, to_files
from fcn_core.training.loop import History
from pipeline.errors import InputError, ObjectExists, ObjectMissing, PipelineError, StorageError
from pipeline.storage.store import Store, create_own
from pipeline.training.progress import TrainProgress, WorkerOutcome
from pipeline.training.records import Checkpoint, Measured, MeasuredSteps, TrainRecord, TrainRun

log = logging.getLogger(__name__)

CHECKPOINTS_KEPT = 2

M = TypeVar("M", bound=BaseModel)

SHEETS_KEPT = 20
PAGE = "report.html"

_SHEET = re.compile(r"validation/step-(\d{8})\.png")
_STEP = re.compile(r"step-(\d{8})/")


class TrainStore:
    """One run's files, or one stage's of a run in stages. `store` is rooted at OUTPUT/<name>."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known_whole: dict[int, list[str]] = {}

    def stage(self, arch: str) -> "TrainStore":
        """The files of one stage of this run."""
        return TrainStore(self.store.at(f"stages/{arch}"))

    # The plan, and what each stage starts from

    def create_run(self, run: TrainRun) -> bool:
        """Write the plan, once. False where another is there."""
        return create_own(self.store, "job.json", run.model_dump_json(indent=1).encode())

    def load_run(self) -> TrainRun | None:
        return self._get_model("job.json", TrainRun)

    def save_start(self, bundle: ModelBundle) -> None:
        """Keep the model that training begins with. Readers see it whole or not at all: model.json comes last."""
        self._save_bundle("start/", bundle)

    def has_start(self) -> bool:
        """Whether the start model is there whole."""
        return any(info.key == f"start/{MODEL_FILE}" for info in self.store.list("start/"))

    def load_start(self) -> ModelBundle:
        return self._load_bundle("start/")

    def save_images(self, content: str, images: TrainedOn) -> None:
        """Keep which images a split of this content has."""
        self.store.put(_images_key(content), images.images.to_bytes(8, "big") + images.digests)

    def load_images(self, content: str | None) -> TrainedOn | None:
        """Which images a split of this content has, if that was kept."""
        if content is None:
            return None
        try:
            data = self.store.get(_images_key(content))
        except ObjectMissing:
            return None
        return TrainedOn(int.from_bytes(data[:8], "big"), data[8:])

    def save_presence(self, presence: ClassPresence) -> None:
        """Keep which classes each image of the training split holds."""
        self.store.put(_presence_key(presence.digest()), presence.bits)

    def load_presence(self, digest: str, classes: int) -> ClassPresence | None:
        """The same with this digest, if it is there whole."""
        try:
            found = ClassPresence(classes, self.store.get(_presence_key(digest)))
        except ObjectMissing:
            return None
        return found if found.digest() == digest else None

    # Checkpoints

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Commit a checkpoint, unless a whole one of this step is there, and drop those that are too old."""
        files = to_files(
            {
                "loop": checkpoint.loop,
                "times": dict(checkpoint.times),
                "measured": {step: found.model_dump() for step, found in checkpoint.measured.items()},
                "examples": list(checkpoint.examples),
            }
        )
        step = checkpoint.step
        folder = _folder("checkpoints", step)
        listed = self._listed_checkpoints()
        if step in listed and not self._is_whole(step, listed[step]):
            self.store.delete(folder + STATE_FILE)  # else nobody could commit this step any more
            del listed[step]
        if step not in listed:
            # Tensors without a commit are what a writer that died left; if it lives, the digest in its commit tells.
            self.store.put(folder + TENSORS_FILE, files[TENSORS_FILE])
            with contextlib.suppress(ObjectExists):
                self.store.create(folder + STATE_FILE, files[STATE_FILE])
                self._known_whole[step] = self._listed_checkpoints().get(step, [])
        self._drop_checkpoints_but(CHECKPOINTS_KEPT, beyond=step)

    def drop_checkpoints(self, keep: int) -> None:
        """Drop all checkpoints but the newest `keep` that are whole."""
        self._drop_checkpoints_but(keep, beyond=None)

    def _drop_checkpoints_but(self, keep: int, beyond: int | None) -> None:
        """Keep the newest `keep` whole checkpoints, and damaged ones after step `beyond`: whoever comes there writes
        them anew."""
        listed = self._listed_checkpoints()
        kept: list[int] = []
        for step in sorted(listed, reverse=True):
            if len(kept) < keep and self._is_whole(step, listed[step]):
                kept.append(step)
            elif len(kept) == keep or beyond is None or step <= beyond:
                self._drop("checkpoints", step, (STATE_FILE, TENSORS_FILE))

    def _is_whole(self, step: int, etags: list[str]) -> bool:
        """Whether a checkpoint whose files have these etags is whole. Files are read once, unless they change."""
        if etags and self._known_whole.get(step) == etags:
            return True
        try:
            self.load_checkpoint(step)
        except (CheckpointError, ObjectMissing) as error:
            log.warning("checkpoint_passed_over step=%d reason=%s", step, error)
            return False
        self._known_whole[step] = etags
        return True

    def checkpoint_steps(self) -> list[int]:
        """The steps of the checkpoints that are whole, ascending."""
        listed = self._listed_checkpoints()
        return [step for step in sorted(listed) if self._is_whole(step, listed[step])]

    def newest_step(self) -> int | None:
        """The step of the newest checkpoint that is whole, or None."""
        listed = self._listed_checkpoints()
        return next((step for step in sorted(listed, reverse=True) if self._is_whole(step, listed[step])), None)

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None. Damaged ones are passed over, and logged."""
        listed = self._listed_checkpoints()
        for step in sorted(listed, reverse=True):
            try:
                found = self.load_checkpoint(step)
            except (CheckpointError, ObjectMissing) as error:
                log.warning("checkpoint_passed_over step=%d reason=%s", step, error)
                continue
            self._known_whole[step] = listed[step]
            return found
        return None

    def _listed_checkpoints(self) -> dict[int, list[str]]:
        """The etags of both files of each checkpoint that is committed, by step."""
        return {
            step: etags for step, etags in self._etags("checkpoints", (STATE_FILE, TENSORS_FILE)).items() if etags[0]
        }

    def load_checkpoint(self, step: int) -> Checkpoint:
        """Raises CheckpointError when it is damaged, ObjectMissing when it is not there."""
        folder = _folder("checkpoints", step)
        files = {name: self.store.get(folder + name) for name in (STATE_FILE, TENSORS_FILE)}
        state = from_files(files, f"{self.store.uri}/{folder.rstrip('/')}")
        return Checkpoint(
            step=step,
            loop=state["loop"],
            times=state["times"],
            measured=state.get("measured", {}),  # versions before 0.2 kept none
            examples=tuple(state["examples"]),
        )

    # Models

    def save_best(self, step: int, bundle: ModelBundle) -> None:
        self._save_bundle(_folder("best", step), bundle)

    def drop_bests_but(self, steps: Iterable[int]) -> None:
        """Drop the best models of all steps but these and later ones."""
        kept = set(steps)
        for step in self._steps("best", MODEL_FILE):
            if kept and step < max(kept) and step not in kept:
                self._drop("best", step, (MODEL_FILE, WEIGHTS_FILE))

    def best_steps(self) -> list[int]:
        """The steps whose models are kept, ascending."""
        return self._steps("best", MODEL_FILE)

    def load_best(self, step: int) -> ModelBundle:
        return self._load_bundle(_folder("best", step))

    def save_model(self, bundle: ModelBundle) -> None:
        """Put the finished model where people look for it."""
        self._save_bundle("model/", bundle)

    def has_model(self) -> bool:
        """Whether the finished model is there whole."""
        return any(info.key == f"model/{MODEL_FILE}" for info in self.store.list("model/"))

    def load_model(self) -> ModelBundle:
        return self._load_bundle("model/")

    # Curves and records

    def save_history(self, history: History) -> None:
        self._put_model("history.json", history)

    def save_events(self, events: bytes) -> None:
        self.store.put("tensorboard/events.out.tfevents.fcn", events)

    def save_measured(self, measured: Mapping[str, Measured]) -> None:
        self._put_model("measured.json", MeasuredSteps(steps=dict(measured)))

    def load_measured(self) -> Mapping[str, Measured]:
        found = self._get_model("measured.json", MeasuredSteps)
        return found.steps if found else {}

    def save_sheet(self, step: int, png: bytes) -> None:
        """Keep a picture of validation images, the newest SHEETS_KEPT of them. Where storage fails it is missed, and
        logged; a training does not end for it."""
        with _logged("picture"):
            self.store.put(_sheet_key(step), png)
            for old in self._sheets()[:-SHEETS_KEPT]:
                self.store.delete(_sheet_key(old))

    def newest_sheet(self) -> tuple[int, bytes] | None:
        """The newest picture of validation images and the step that it is of."""
        steps = self._sheets()
        return (steps[-1], self.store.get(_sheet_key(steps[-1]))) if steps else None

    def _sheets(self) -> list[int]:
        matches = (_SHEET.fullmatch(info.key) for info in self.store.list("validation/"))
        return sorted(int(match[1]) for match in matches if match)

    def has_page(self) -> bool:
        """Whether there is a page of the training."""
        return any(info.key == PAGE for info in self.store.list(PAGE))

    def save_page(self, html: str) -> None:
        """Keep the page of the training, or log that it could not be kept."""
        with _logged("page"):
            self.store.put(PAGE, html.encode())

    def load_history(self) -> History:
        return self._get_model("history.json", History) or History()

    def save_done(self, outcome: WorkerOutcome) -> None:
        """Note that a stage has been trained to its end."""
        self._put_model("done.json", outcome)

    def load_done(self) -> WorkerOutcome | None:
        return self._get_model("done.json", WorkerOutcome)

    def save_record(self, record: TrainRecord) -> None:
        self._put_model("run.json", record)

    def load_record(self) -> TrainRecord | None:
        return self._get_model("run.json", TrainRecord)

    def load_progress(self) -> TrainProgress | None:
        return self._get_model("progress.json", TrainProgress)

    def _put_model(self, key: str, value: BaseModel) -> None:
        self.store.put(key, value.model_dump_json(indent=1).encode())

    def _get_model(self, key: str, kind: type[M]) -> M | None:
        try:
            return kind.model_validate_json(self.store.get(key))
        except ObjectMissing:
            return None
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise InputError(f"{self.store.uri}: {key} is not one that this version reads ({reason})") from error

    def _save_bundle(self, folder: str, bundle: ModelBundle) -> None:
        for name, content in bundle.to_files().items():  # model.json comes last
            self.store.put(folder + name, content)

    def _load_bundle(self, folder: str) -> ModelBundle:
        place = f"{self.store.uri}/{folder.rstrip('/')}"
        try:
            files = {MODEL_FILE: self.store.get(folder + MODEL_FILE)}
            description = parse_description(files[MODEL_FILE], place)
            for name in (*description.other_files, *description.notes_files):
                files[name] = self.store.get(folder + name)
            return ModelBundle.from_files(files, place)
        except (BundleError, ObjectMissing) as error:
            raise PipelineError(
                f"the run's own model {place} is gone or damaged ({error}); train under another name"
            ) from error

    def _steps(self, kind: str, last_file: str) -> list[int]:
        return sorted(step for step, etags in self._etags(kind, (last_file,)).items() if etags[0])

    def _etags(self, kind: str, names: tuple[str, ...]) -> dict[int, list[str]]:
        """The etags of these files, "" for those that are not there, by the step that they are of."""
        prefix = f"{kind}/"
        found: dict[int, list[str]] = {}
        for info in self.store.list(prefix):
            match = _STEP.match(info.key, len(prefix))
            if match and (name := info.key[match.end() :]) in names:
                found.setdefault(int(match[1]), [""] * len(names))[names.index(name)] = info.etag
        return found

    def _drop(self, kind: str, step: int, files: tuple[str, ...]) -> None:
        # What could not be dropped takes room, nothing else.
        with contextlib.suppress(StorageError):
            for name in files:
                self.store.delete(_folder(kind, step) + name)
        if self.store.location.scheme == "file":  # where a folder outlives what was in it
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(self.store.uri, _folder(kind, step)))


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """Logs that something could not be kept, where that is all that storage's trouble means."""
    try:
        yield
    except StorageError as error:
        log.warning("not_kept what=%s reason=%s", what, error)


def _sheet_key(step: int) -> str:
    return f"validation/step-{step:08d}.png"


def _presence_key(digest: str) -> str:
    return f"images/classes-{digest}.bin"


def _images_key(content: str) -> str:
    return f"images/{content}.bin"


def _folder(kind: str, step: int) -> str:
    return f"{kind}/step-{step:08d}/"
