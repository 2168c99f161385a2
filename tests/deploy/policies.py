"""What IAM would say: the policies of deploy/iam, and an S3 server that keeps to them.

Only as much of IAM as those policies use; what is not understood here is an error, never a yes.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

FOLDER = Path(__file__).parents[2] / "deploy" / "iam"

# Of moto's server, which is one application: its parts serve all services.
_MOTO = DomainDispatcherApplication(create_backend_app)

_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no policy allows this</Message></Error>"


@dataclass(frozen=True)
class Call:
    """One request, in IAM's words. `resource` is the bucket's or object's ARN; `context` holds condition keys."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Permission:
    """One action of one statement of one policy."""

    policy: str
    statement: str
    action: str
    resources: tuple[str, ...]
    present: tuple[str, ...]
    """Condition keys that the request must carry."""

    def allows(self, call: Call) -> bool:
        keys = {key for key, _ in call.context}
        return (
            call.action == self.action
            and any(_matches(resource, call.resource) for resource in self.resources)
            and keys.issuperset(self.present)
        )


def permissions(name: str, places: dict[str, str]) -> list[Permission]:
    """What deploy/iam/<name>.json allows, with `places` (SOURCE_BUCKET, ...) put in."""
    text = (FOLDER / f"{name}.json").read_text()
    for placeholder, value in places.items():
        text = text.replace(placeholder, value)
    left = re.findall(r"[A-Z]+_(?:BUCKET|PREFIX)", text)
    assert not left, f"{name}.json has placeholders without a value: {left}"
    document = json.loads(text)
    assert document.keys() == {"Version", "Statement"}
    assert document["Version"] == "2012-10-17"
    return [found for statement in document["Statement"] for found in _of_statement(name, statement)]


def _of_statement(name: str, statement: dict[str, Any]) -> Iterable[Permission]:
    assert statement.keys() - {"Condition"} == {"Sid", "Effect", "Action", "Resource"}
    assert statement["Effect"] == "Allow"
    present = []
    for operator, wanted in statement.get("Condition", {}).items():
        assert operator == "Null"
        for key, value in wanted.items():
            assert value == "false"
            present.append(key)
    for action in _list(statement["Action"]):
        assert re.fullmatch(r"s3:[A-Za-z]+", action), f"{action}: name every action"
        yield Permission(name, statement["Sid"], action, tuple(_list(statement["Resource"])), tuple(present))


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _matches(pattern: str, text: str) -> bool:
    parts = re.split(r"([*?])", pattern)
    return bool(re.fullmatch("".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts), text, re.S))


def call_of(environ: dict[str, Any]) -> Call:
    """What IAM makes of a path-style S3 request. Raises AssertionError for one that it does not know yet."""
    raw = environ["RAW_URI"].partition("?")[0]
    bucket, _, key = unquote(raw).removeprefix("/").partition("/")
    method, query = environ["REQUEST_METHOD"], parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    if not key:
        assert method == "HEAD" or (method == "GET" and query.get("list-type") == ["2"]), f"{method} {raw} {query}"
        return Call("s3:ListBucket", f"arn:aws:s3:::{bucket}")
    context = ()
    if method in ("GET", "HEAD"):
        action = "s3:GetObject"
    elif method == "DELETE" and "uploadId" in query:
        action = "s3:AbortMultipartUpload"
    elif method == "DELETE":
        action = "s3:DeleteObjectVersion" if "versionId" in query else "s3:DeleteObject"
    else:
        assert method == "PUT" or (method == "POST" and query.keys() & {"uploads", "uploadId"}), (
            f"{method} {raw} {query}"
        )
        action = "s3:PutObject"
        if "HTTP_IF_NONE_MATCH" in environ:
            context = (("s3:if-none-match", environ["HTTP_IF_NONE_MATCH"]),)
    return Call(action, f"arn:aws:s3:::{bucket}/{key}", context)


class _Silent(WSGIRequestHandler):
    """Logs no requests."""

    def log(self, type: str, message: str, *args: object) -> None: ...


class GuardedS3:
    """An S3 server that does what `permissions` allow and answers 403 to the rest. `calls` are all that came.

    As S3 does, it tells that an object is missing only to those who may list its bucket. It shares its objects with
    all other servers of moto in this process.
    """

    def __init__(self, allowed: list[Permission]) -> None:
        self.allowed = allowed
        self.calls: list[Call] = []
        self.denied: list[Call] = []
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def may(self, call: Call) -> bool:
        return any(permission.allows(call) for permission in self.allowed)

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = call_of(environ)
        self.calls.append(call)
        if not self.may(call):
            self.denied.append(call)
            return _refuse(environ, start_response)
        told: list[Any] = []
        body = list(_MOTO(environ, lambda *answer: told.append(answer)))
        bucket = call.resource.partition("/")[0]
        if told[0][0].startswith("404") and not self.may(Call("s3:ListBucket", bucket)):
            return _refuse(environ, start_response)
        start_response(*told[0])
        return body


def _refuse(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    # What stays unread of a body would be taken for the next request.
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_DENIED)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [_DENIED]
