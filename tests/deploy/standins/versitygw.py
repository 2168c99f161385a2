"""In place of Versity's gateway: moto's S3, in memory, that keeps to the accounts and the policies of its buckets.

The site's own key may do everything; a key of /iam/users.json what the bucket's policy allows it. Signatures are not
checked.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from policies import _MOTO, Call, _list, _matches, _refuse, call_of
from werkzeug.serving import make_server

ROOT = os.environ["ROOT_ACCESS_KEY_ID"]
ACCOUNTS = json.loads((Path(os.environ["VGW_IAM_DIR"]) / "users.json").read_text())["accessAccounts"]
STATEMENTS: dict[str, list[dict[str, Any]]] = {}
"""What the policy of each bucket says."""


def may(key: str, call: Call) -> bool:
    bucket = call.resource.removeprefix("arn:aws:s3:::").partition("/")[0]
    return key in ACCOUNTS and any(
        statement["Effect"] == "Allow"
        and key in _list(statement["Principal"]["AWS"])
        and call.action in _list(statement["Action"])
        and any(_matches(resource, call.resource) for resource in _list(statement["Resource"]))
        for statement in STATEMENTS.get(bucket, ())
    )


def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == os.environ["VGW_HEALTH"]:
        start_response("200 OK", [("Content-Length", "0")])
        return []
    found = re.search(r"Credential=([^/,]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    key = found[1] if found else ""
    if key != ROOT:
        call = call_of(environ)
        if not may(key, call):
            print(f"refused {key} {call.action} {call.resource}", flush=True)
            return _refuse(environ, start_response)
    elif environ["REQUEST_METHOD"] == "PUT" and environ["QUERY_STRING"].startswith("policy"):
        policy = remembered(environ)
        STATEMENTS[environ["PATH_INFO"].strip("/")] = json.loads(policy)["Statement"]
    answer: Iterable[bytes] = _MOTO(environ, start_response)
    return answer


def remembered(environ: dict[str, Any]) -> bytes:
    """The body of a request, which may be read once more afterwards."""
    import io

    body: bytes = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


if __name__ == "__main__":
    port = int(os.environ["VGW_PORT"].removeprefix(":"))
    make_server("0.0.0.0", port, serve, threaded=True).serve_forever()
