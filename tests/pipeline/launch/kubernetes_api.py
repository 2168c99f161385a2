"""An API server that keeps RayJobs in memory and speaks as Kubernetes 1.34 does: its paths, `Status` bodies, RBAC.

Bodies of refusals are those that a server sends, word for word but for the names in them.
"""

import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import ApiClient, Configuration, CustomObjectsApi

NAMESPACE = "labels"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:fcn-prefect-worker"
PATH = re.compile(rf"/apis/ray\.io/v1/namespaces/{NAMESPACE}/rayjobs(?:/([^/?]+))?$")
FINALIZER = "ray.io/rayjob-finalizer"

Answer = tuple[int, dict[str, Any] | str]


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    """A refusal, as the API words it."""
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "details": details, "code": code,
    }  # fmt: skip
    return code, body


def about(name: str) -> dict[str, str]:
    return {"name": name, "group": "ray.io", "kind": "rayjobs"}


def forbidden(verb: str) -> Answer:
    message = (
        f'rayjobs.ray.io is forbidden: User "{ACCOUNT}" cannot {verb} resource "rayjobs" in API group "ray.io" in the '
        f'namespace "{NAMESPACE}"'
    )
    return status(403, "Forbidden", message, group="ray.io", kind="rayjobs")


class KubernetesApi:
    """RayJobs of one namespace. `failing` answers instead while it is set; `allowed` are the verbs of the account."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.failing: Answer | None = None
        self.allowed: set[str] | None = None
        self.asked: list[str] = []
        """The verb of every request, as RBAC calls it."""
        self.authorizations: list[str | None] = []
        self.silent = threading.Event()
        """Requests are taken and not answered while it is set."""
        self.cut_off = False
        """Responses break off in the middle."""
        self.finalizers: list[str] = []
        """What the operator puts on a job: a deletion waits until `finish_deletion`."""
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def client(self) -> CustomObjectsApi:
        configuration = Configuration(host=self.url)
        configuration.retries = False
        return CustomObjectsApi(ApiClient(configuration))

    def close(self) -> None:
        self.silent.clear()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, verb: str, name: str | None, selector: str | None, body: dict[str, Any] | None) -> Answer:
        self.asked.append(verb)
        if self.failing is not None:
            return self.failing
        if self.allowed is not None and verb not in self.allowed:
            return forbidden(verb)
        if verb == "list":
            return self._list(selector)
        if verb == "create":
            assert body is not None
            return self._create(body)
        if name not in self.jobs:
            assert name is not None
            return status(404, "NotFound", f'rayjobs.ray.io "{name}" not found', **about(name))
        return (200, self.jobs[name]) if verb == "get" else self._delete(name)

    def _list(self, selector: str | None) -> Answer:
        label, _, value = (selector or "").partition("=")
        found = [job for job in self.jobs.values() if job["metadata"]["labels"].get(label) == value]
        metadata = {"continue": "", "resourceVersion": "4711"}
        return 200, {"apiVersion": "ray.io/v1", "kind": "RayJobList", "metadata": metadata, "items": found}

    def _create(self, job: dict[str, Any]) -> Answer:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return status(409, "AlreadyExists", f'rayjobs.ray.io "{name}" already exists', **about(name))
        job["metadata"] |= {"namespace": NAMESPACE, "uid": "0b1c8f6e", "resourceVersion": "4712", "generation": 1}
        self.jobs[name] = job
        return 201, job

    def _delete(self, name: str) -> Answer:
        if not self.finalizers:
            del self.jobs[name]
            return 200, {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about(name),
            }  # fmt: skip
        self.jobs[name]["metadata"] |= {
            "deletionTimestamp": "2026-11-30T04:00:00Z", "deletionGracePeriodSeconds": 0, "finalizers": self.finalizers,
        }  # fmt: skip
        return 200, self.jobs[name]

    def stands(self, name: str, state: str, reason: str = "", message: str = "") -> None:
        """The operator's doing: how a job stands."""
        self.jobs[name]["status"] = {"jobDeploymentStatus": state, "reason": reason, "message": message}

    def finish_deletion(self) -> None:
        """The operator's doing: it has stopped the jobs that are to go."""
        self.jobs = {name: job for name, job in self.jobs.items() if "deletionTimestamp" not in job["metadata"]}


def _handler(api: KubernetesApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("get" if self._name() else "list")

        def do_POST(self) -> None:
            self._answer("create", json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def do_DELETE(self) -> None:
            self._answer("delete" if self._name() else "deletecollection")

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _name(self) -> str | None:
            found = PATH.fullmatch(urlsplit(self.path).path)
            assert found, self.path
            return found[1]

        def _answer(self, verb: str, body: dict[str, Any] | None = None) -> None:
            query = parse_qs(urlsplit(self.path).query)
            assert "watch" not in query
            api.authorizations.append(self.headers.get("Authorization"))
            while api.silent.is_set():
                time.sleep(0.01)
            code, found = api.answer(verb, self._name(), query.get("labelSelector", [None])[0], body)
            data = found.encode() if isinstance(found, str) else json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if api.cut_off:
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            else:
                with contextlib.suppress(ConnectionError):  # who waited in vain is gone
                    self.wfile.write(data)

    return Handler
