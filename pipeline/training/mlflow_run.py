"""A training as a run in MLflow: parameters when it begins, curves while it goes on, the bundle when it is finished.

The one thing to know: what is logged comes from the run's own files, as far as it was not logged before. So a training
that is resumed, on whatever machine, goes on in its run, and what an MLflow that was away has missed comes later.
"""

import hashlib
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fcn_core import ModelBundle
from pipeline.mlflow_link import MODEL_FOLDER, MODEL_TAG, connect, experiment_id, is_named, trouble
from pipeline.report.rerun import without_secrets
from pipeline.training.observer import BegunTraining, Both, TrainObserver
from pipeline.training.progress import TrainProgress
from pipeline.training.records import TrainRecord
from pipeline.training.tensorboard import scalars

LOG_SECONDS = 15.0
"""How often it is looked for new points."""

AWAY_SECONDS = 300.0
"""How long an MLflow that has failed is left alone."""

WAIT_SECONDS = 60.0
"""How long the end of a training waits for points that are under way."""

RUN_TAG, LOGGED_TAG = "fcn.run", "fcn.logged"
"""Which training a run is of; up to which step the curves of each stage are logged."""

_LEFT_OUT = {"nccl", "ray_address", "takeover", "network_interface"}
"""Options that say nothing of what is trained, and may hold what is not for everybody."""

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}

_METRICS_AT_ONCE, _PARAMS_AT_ONCE, _LONGEST_VALUE = 500, 90, 5000


def followed(observer: TrainObserver) -> TrainObserver:
    """`observer`, and MLflow where one is named."""
    return Both(observer, MlflowRun(observer.note)) if is_named() else observer


class MlflowRun(TrainObserver):
    """Logs to MLflow, in a thread of its own while training goes on. `warn` gets one line when MLflow first fails."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warned = False
        self._trouble: str | None = None
        self._training: BegunTraining | None = None
        self._thread: threading.Thread | None = None
        self._due = 0.0
        self._client: Any = None
        self._run_id = ""
        self._logged: dict[str, int] = {}

    def begun(self, training: BegunTraining) -> None:
        self._training = training

    def progress(self, progress: TrainProgress) -> None:
        self._tell()
        if time.monotonic() < self._due or (self._thread is not None and self._thread.is_alive()):
            return
        self._due = time.monotonic() + LOG_SECONDS
        self._thread = threading.Thread(target=self._try, args=(self._log_curves,), name="mlflow", daemon=True)
        self._thread.start()

    def ended(self, record: TrainRecord, model: Callable[[], ModelBundle]) -> None:
        if self._thread is not None:
            self._thread.join(WAIT_SECONDS)
            if self._thread.is_alive():
                self._trouble = self._trouble or "MLflow takes too long"
                self._tell()
                return
        # Whoever has stopped a training waits for its end; the bundle of a finished one is worth another try.
        if self._trouble is None or record.state == "finished":
            self._try(lambda: self._close(record, model))
        self._tell()

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
            self._trouble = None
        except Exception as error:  # whatever it is, it is no reason to end a training
            self._due = time.monotonic() + AWAY_SECONDS
            self._trouble = trouble(error)

    def _tell(self) -> None:
        """Here, not in the thread: observers are called from the training's own."""
        if self._trouble is not None and not self._warned:
            self._warned = True
            self._warn(f"not logged to MLflow: {self._trouble}; training goes on, and what is missing is logged later")

    def _open(self) -> BegunTraining:
        """Find the training's run, or make it, with its parameters."""
        assert self._training is not None
        if self._run_id:
            return self._training
        training, client = self._training, connect()
        experiment = experiment_id(client)
        mark = hashlib.sha256(f"{training.uri}\n{training.run.created.isoformat()}".encode()).hexdigest()[:32]
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{mark}'", max_results=1)
        if found:
            run = found[0]
            self._logged = json.loads(run.data.tags.get(LOGGED_TAG, "{}"))
        else:
            tags = {
                RUN_TAG: mark,
                "fcn.uri": without_secrets(training.uri),
                "fcn.version": training.run.version,
                "fcn.start_model_id": training.run.start_model_id,
            }
            run = client.create_run(experiment, run_name=training.job.name, tags=tags)
        self._client, self._run_id = client, run.info.run_id
        self._log_parameters(training, set(run.data.params))
        return training

    def _log_parameters(self, training: BegunTraining, there: set[str]) -> None:
        """Those that are not there: MLflow refuses to change one, and a training may be resumed on other workers."""
        from mlflow.entities import Param

        values = dict(_flat(training.job.model_dump(mode="json", exclude=_LEFT_OUT)))
        for stage in training.run.plan.stages:
            prefix = "train" if len(training.run.plan.stages) == 1 else f"train.{stage.arch}"
            values |= dict(_flat(stage.config.model_dump(mode="json"), prefix))
        parameters = [Param(name, value) for name, value in values.items() if name not in there]
        for first in range(0, len(parameters), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=parameters[first : first + _PARAMS_AT_ONCE])

    def _log_curves(self) -> None:
        from mlflow.entities import Metric

        training = self._open()
        stages, classes = training.run.plan.stages, training.run.plan.labels.names
        for stage, curves in training.curves().items():
            prefix = "" if len(stages) == 1 else f"{stage}/"
            logged = self._logged.get(stage, -1)
            points = sorted(point for point in scalars(curves.history, classes, curves.measured) if point[0] > logged)
            moment = int(time.time() * 1000)
            metrics = [Metric(f"{prefix}{_metric_name(tag)}", value, moment, step) for step, tag, value in points]
            for first in range(0, len(metrics), _METRICS_AT_ONCE):
                self._client.log_batch(self._run_id, metrics=metrics[first : first + _METRICS_AT_ONCE])
            if points:
                self._logged[stage] = points[-1][0]
                self._client.set_tag(self._run_id, LOGGED_TAG, json.dumps(self._logged))

    def _close(self, record: TrainRecord, model: Callable[[], ModelBundle]) -> None:
        self._log_curves()
        client, run_id = self._client, self._run_id
        tags = client.get_run(run_id).data.tags
        if record.state == "finished" and record.model_id is not None and tags.get(MODEL_TAG) != record.model_id:
            with tempfile.TemporaryDirectory(prefix="fcn-mlflow-") as folder:
                for name, content in model().to_files().items():
                    (Path(folder) / name).write_bytes(content)
                client.log_artifacts(run_id, folder, MODEL_FOLDER)
            client.set_tag(run_id, MODEL_TAG, record.model_id)
        if record.reason:
            client.set_tag(run_id, "fcn.reason", without_secrets(record.reason)[:_LONGEST_VALUE])
        client.set_terminated(run_id, _STATUS.get(record.state, "FAILED"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Options by dotted names, as text; what nobody has set is left out."""
    for name, value in values.items():
        full = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            yield from _flat(value, full)
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield _allowed(full), without_secrets(text)[:_LONGEST_VALUE]


def _metric_name(tag: str) -> str:
    """A curve's name, as MLflow takes it: that of a class may have any character."""
    kind, _, name = tag.partition("/")
    return f"{kind}/{_allowed(name)}"


def _allowed(name: str) -> str:
    """Names that are changed get a mark of what they were, so that no two become one."""
    allowed = re.sub(r"[^\w. -]|(?<=\.)\.", "_", name)[:150]
    return allowed if allowed == name else f"{allowed}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
