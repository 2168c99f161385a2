"""A job as a RayJob of Kubernetes: KubeRay makes a Ray cluster for it, runs it, and takes the cluster away.

The resource is built as data from the site's own template, which has images, sizes and the service account that the
pods get their storage credentials by.
"""

import contextlib
import copy
import json
import shlex
from collections.abc import Callable
from typing import Any

import yaml

from pipeline.actors.ray_words import clean
from pipeline.errors import InputError
from pipeline.jobs.launch import OnKubeRay
from pipeline.launch.launcher import LauncherUnavailable, LaunchStatus, command, launch_id, next_attempt
from pipeline.launch.work import Work
from pipeline.storage.opening import read_object
from pipeline.yaml_text import read_yaml

GROUP, VERSION, PLURAL = "ray.io", "v1", "rayjobs"
WORK_LABEL = "fcn-pipeline/work"

REQUEST_SECONDS = (5.0, 15.0)
"""How long a request may take to connect, and to return something. The client itself would wait without end."""

_ENDED = {"Complete", "Failed", "ValidationFailed"}
"""What a RayJob stays in, by KubeRay's own code: the operator looks at none of the last again."""

_AWAY = {410, 429}
"""Besides 5xx, what passes: a list that has expired, and an API server that has too much to do."""


def rayjob(work: Work, name: str, template: dict[str, Any], keep_seconds: int) -> dict[str, Any]:
    """The RayJob that runs `work`: the template with name, label, command and lifetime filled in."""
    resource = copy.deepcopy(template)
    metadata = resource.setdefault("metadata", {})
    metadata["name"] = name
    metadata.setdefault("labels", {})[WORK_LABEL] = work.name
    for other in ("namespace", "generateName"):  # the options say where, and `name` what it is called
        metadata.pop(other, None)
    resource["spec"] |= {
        "entrypoint": shlex.join(command(work, name)),
        "jobId": name,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": keep_seconds,
        # What resumes a job is the storage; a second try by the operator would have the same id and an old outcome.
        "backoffLimit": 0,
    }
    return resource


def read_template(uri: str) -> dict[str, Any]:
    """The RayJob in a YAML file. Raises InputError for anything else."""
    try:
        template = read_yaml(read_object(uri))
    except yaml.YAMLError as error:
        raise InputError(f"{uri} is no YAML ({' '.join(str(error).split())}); it should hold a RayJob") from error
    if not isinstance(template, dict) or template.get("kind") != "RayJob":
        found = template.get("kind") if isinstance(template, dict) else type(template).__name__
        raise InputError(f"{uri} holds {found!r}; the template should be one RayJob ({GROUP}/{VERSION})")
    if "rayClusterSpec" not in (template.get("spec") or {}):
        raise InputError(f"{uri}: spec.rayClusterSpec is missing; it says which images and how many pods")
    return template


class KubeRayLauncher:
    """See `Launcher`."""

    def __init__(self, options: OnKubeRay, api: Any = None) -> None:
        """`api` is a kubernetes CustomObjectsApi; default: of the kubeconfig, or of the pod this runs in."""
        self._options = options
        self._template = read_template(options.template)
        self._api = api or _connect()

    def find(self, work: Work) -> str | None:
        return _running(self._list(work))

    def submit(self, work: Work) -> str:
        items = self._list(work)
        running = _running(items)
        if running is not None:
            return running  # somebody was quicker
        name = launch_id(work, next_attempt(work, [item["metadata"]["name"] for item in items]))
        resource = rayjob(work, name, self._template, self._options.keep_seconds)
        with contextlib.suppress(_Conflict):  # two have seen none and submit at once, under the same name
            self._ask(self._api.create_namespaced_custom_object, resource)
        return name

    def status(self, launch_id: str) -> LaunchStatus:
        try:
            item = self._ask(self._api.get_namespaced_custom_object, launch_id)
        except _Unknown:
            return LaunchStatus("ended", "the RayJob is gone")
        status = item.get("status", {})
        state = status.get("jobDeploymentStatus") or "Initializing"
        reason = clean(" ".join(filter(None, (state, status.get("reason"), status.get("message")))), most=2000)
        if state in _ENDED:
            return LaunchStatus("ended", reason)
        return LaunchStatus("running" if state == "Running" else "waiting", reason)

    def where(self, launch_id: str) -> str:
        namespace = self._options.namespace
        return (
            f"RayJob {launch_id} in namespace {namespace}. How it stands: "
            f"`kubectl -n {namespace} describe rayjob {launch_id}`. Should nobody follow it any more, it goes on; "
            f"`kubectl -n {namespace} delete rayjob {launch_id}` stops it, resumably."
        )

    def stop(self, launch_id: str) -> None:
        """Delete the RayJob, and with it its cluster. The driver gets SIGTERM and the pods' grace period."""
        with contextlib.suppress(_Unknown):  # it has ended, and its time to be looked at too
            self._ask(self._api.delete_namespaced_custom_object, launch_id)

    def _list(self, work: Work) -> list[dict[str, Any]]:
        found = self._ask(self._api.list_namespaced_custom_object, label_selector=f"{WORK_LABEL}={work.name}")
        return list(found["items"])

    def _ask(self, method: Callable[..., Any], *words: Any, **options: Any) -> dict[str, Any]:
        """What a method of the API returns for RayJobs of the namespace."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        place = (GROUP, VERSION, self._options.namespace, PLURAL)
        try:
            answer = method(*place, *words, **options, _request_timeout=REQUEST_SECONDS)
        except ApiException as error:
            raise self._explain(error.status or 0, error.reason, error.body) from error
        except (HTTPError, ValueError) as error:  # no response, or one that is cut off
            raise LauncherUnavailable(f"Kubernetes does not answer: {clean(str(error), most=300)}") from error
        if not isinstance(answer, dict):
            raise LauncherUnavailable(
                f"what answers as Kubernetes returned no RayJobs but {clean(str(answer), most=100)!r}; "
                "is there a proxy in between, or another server at this address?"
            )
        return answer

    def _explain(self, status: int, reason: str, body: Any) -> Exception:
        said = _said(body)
        if status == 404 and said.get("details", {}).get("kind") == PLURAL:
            return _Unknown("the RayJob is gone")
        if status == 409 and said.get("reason") == "AlreadyExists":
            return _Conflict("the RayJob is there already")
        if status == 404 and not said:
            return InputError(
                "this Kubernetes cluster has no RayJobs (404); install the KubeRay operator, or let KUBECONFIG name "
                "another cluster"
            )
        message = clean(str(said.get("message") or body or ""), most=300)
        if status == 0 or status >= 500 or status in _AWAY:
            return LauncherUnavailable(f"Kubernetes failed ({status} {reason}): {message}")
        return InputError(f"Kubernetes refused ({status} {reason}) in namespace {self._options.namespace}: {message}")


def _said(body: Any) -> dict[str, Any]:
    """The API's own `Status` in the body of a refusal; empty where something else has answered."""
    try:
        found = json.loads(body)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def _running(items: list[dict[str, Any]]) -> str | None:
    names = [
        item["metadata"]["name"]
        for item in items
        if item.get("status", {}).get("jobDeploymentStatus") not in _ENDED
        and "deletionTimestamp" not in item["metadata"]
    ]
    return max(names, default=None)


class _Unknown(InputError):
    """There is no such RayJob."""


class _Conflict(InputError):
    """There is such a RayJob already."""


def _connect() -> Any:
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise InputError("RayJobs need the package kubernetes; pip install 'fcn-pipeline[kubernetes]'") from error
    # `load_config` prints that it looks for a pod's account, and takes a list of files in KUBECONFIG for none.
    try:
        config.load_kube_config()
    except config.ConfigException as error:
        try:
            config.load_incluster_config()
        except config.ConfigException:
            raise InputError(f"no Kubernetes cluster is configured ({error}); set KUBECONFIG") from error
    configuration = client.Configuration.get_default_copy()
    configuration.retries = False  # who follows a launch asks again, and for how long is its own affair
    return client.CustomObjectsApi(client.ApiClient(configuration))
