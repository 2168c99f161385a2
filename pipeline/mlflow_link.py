"""MLflow, where MLFLOW_TRACKING_URI names a server: a copy of trainings and promotions for people to look at.

The one thing to know: the truth is in storage. Nothing is read from MLflow but what was logged there before, and
whatever goes wrong with it is one warning that ends nothing.
"""

import importlib.util
import os
import re
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import PipelineError

ADDRESS = "MLFLOW_TRACKING_URI"

EXPERIMENT = "fcn-pipeline"
"""The experiment, unless MLFLOW_EXPERIMENT_NAME says another."""

MODEL_TAG = "fcn.model_id"
"""Of runs and model versions: which model they are of."""

MODEL_FOLDER = "model"
"""Where the bundle is among a run's artifacts."""

_DEFAULTS = {
    # By itself MLflow tries for many minutes, while a training or a person waits.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "600",
    # Standard output has a command's own outcome, and standard error our lines.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # It would report its use to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

_USERINFO = re.compile(r"//[^/\s@]*@")


class NoTracking(PipelineError):
    """MLflow is named, and cannot be used."""


def is_named() -> bool:
    """Whether the environment names an MLflow."""
    return bool(os.environ.get(ADDRESS))


def connect() -> Any:
    """MLflow's client. Raises NoTracking where its package is not installed. What the user has set of MLflow stays."""
    if importlib.util.find_spec("mlflow") is None:
        raise NoTracking(f"{ADDRESS} is set and MLflow is not installed; pip install 'fcn-pipeline[mlflow]'")
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(os.environ[ADDRESS])


def experiment_id(client: Any) -> str:
    """The experiment's id; it is made where it is not there."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # by another at this moment, or the error of every call
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def trouble(error: Exception) -> str:
    """An error as one line for a person: where, and what. Without user name and password of the address."""
    if isinstance(error, NoTracking):
        return str(error)
    address = urlsplit(os.environ.get(ADDRESS, ""))
    where = address.netloc.rpartition("@")[2] or "MLflow"
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    said = _USERINFO.sub("//", first)
    for secret in (
        address.password,
        os.environ.get("MLFLOW_TRACKING_PASSWORD"),
        os.environ.get("MLFLOW_TRACKING_TOKEN"),
    ):
        if secret:
            said = said.replace(secret, "***")
    return f"MLflow at {where} fails: {said[:300]}"
