"""Google Cloud Storage's XML interface for the tests, by moto, whose S3 differs from it in three places.

The one thing to know: what is tested with it is our client, obstore's own GCSStore with its requests, retries and
errors. It is no proof of how Google's service behaves beyond its documentation.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def as_gcs(s3: Application) -> Application:
    """An S3 server's application that takes the requests of a client of Google's."""

    def application(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # A write that is to make an object and not replace one: by generation there, by etag here.
        if environment.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environment["HTTP_IF_NONE_MATCH"] = "*"
        environment["HTTP_AUTHORIZATION"] = _SIGNED
        for name in ("RAW_URI", "REQUEST_URI"):  # whose paths have %2F, which moto takes for a part of a name
            path, question, query = str(environment.get(name, "")).partition("?")
            environment[name] = quote(unquote(path)) + question + query
        return s3(environment, start_response)

    return application


@contextmanager
def gcs_service() -> Iterator[str]:
    """The service's URL, while it runs in a thread of this process."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    application = as_gcs(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, name="gcs", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def environment(url: str) -> Mapping[str, str]:
    """What lets obstore find the service, here and in processes that are started."""
    account = {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
    return {"GOOGLE_BASE_URL": url, "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
