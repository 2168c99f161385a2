"""The registry's champions as MLflow shows them: a registered model, a version of it, the alias `champion`."""

import logging
from typing import Any

from pipeline.logfmt import key_values
from pipeline.mlflow_link import MODEL_FOLDER, MODEL_TAG, connect, experiment_id, is_named, trouble
from pipeline.models.references import CHAMPION

log = logging.getLogger(__name__)

_REMOTE = ("s3://", "gs://", "az://")


def mirror_champion(name: str, version: str, uri: str, reason: str, number: int) -> None:
    """Have MLflow's alias `champion` of `name` be the version at `uri`. Does nothing where no MLflow is named.

    Never raises: a promotion has happened whatever MLflow says, and the next one brings MLflow up to date.
    """
    if not is_named():
        return
    try:
        client = connect()
        _register(client, name)
        ours = _version(client, name, version) or _new_version(client, name, version, uri)
        for key, value in {"promotion": str(number), "reason": reason}.items():
            client.set_model_version_tag(name, ours, f"fcn.{key}", value)
        client.set_registered_model_alias(name, CHAMPION, ours)
    except Exception as error:
        log.warning("%s", key_values(not_mirrored=f"{name}@{version}", reason=trouble(error)))


def _register(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(client: Any, name: str, version: str) -> str | None:
    """MLflow's number of one of our versions. Names have no character that a filter would need quoted."""
    found = client.search_model_versions(f"name='{name}' and tags.`{MODEL_TAG}`='{version}'", max_results=1)
    return str(found[0].version) if found else None


def _new_version(client: Any, name: str, version: str, uri: str) -> str:
    """The bundle that a training has logged, if one has; else the registry's own, or, where that is a folder of one
    machine, which MLflow refuses, what it is called.
    """
    found = client.search_runs([experiment_id(client)], f"tags.`{MODEL_TAG}` = '{version}'", max_results=1)
    if found:
        run_id, source = found[0].info.run_id, f"runs:/{found[0].info.run_id}/{MODEL_FOLDER}"
    else:
        run_id, source = None, uri if uri.startswith(_REMOTE) else f"registry://{name}/{version}"
    tags = {MODEL_TAG: version, "fcn.uri": uri}
    return str(client.create_model_version(name, source, run_id, tags=tags, await_creation_for=0).version)
