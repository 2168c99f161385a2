"""An S3 server of one's own, for as long as it is needed: moto's, in a process beside this one, its data in memory.

It answers those alone who have the key pair that was made for it.

The server ends when the pipe to its standard input closes, so it cannot outlive whoever started it, even if killed.
"""

import importlib.util
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from flows.demo.signed import only_signed
from pipeline.errors import InputError, PipelineError

SERVER_KEY, SERVER_SECRET = "FCN_S3_KEY_ID", "FCN_S3_SECRET"
"""In the server's environment: the key pair that it takes."""


@contextmanager
def local_s3() -> Iterator[str]:
    """Start a server and point this process and its children at it (AWS_*); gives the endpoint's URL.

    Raises InputError when moto is not installed, PipelineError when the server does not start. Afterwards the
    environment is as it was before.
    """
    if importlib.util.find_spec("moto") is None:
        raise InputError("the local S3 server needs moto: pip install 'fcn-pipeline[demo]'")
    key_id, secret = new_key_pair()
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.demo.s3"],
        env={**os.environ, SERVER_KEY: key_id, SERVER_SECRET: secret},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the demo, which then still needs its storage to end well
    ) as server:
        assert server.stdin
        assert server.stdout
        try:
            endpoint = server.stdout.readline().strip()
            if not endpoint:
                raise PipelineError("the local S3 server did not start; its last words are above")
            with _environment(pointing_to(endpoint, key_id, secret)):
                yield endpoint
        finally:
            server.stdin.close()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()


def new_key_pair() -> tuple[str, str]:
    """An access key's id and secret, for one server."""
    return f"fcn{secrets.token_hex(8)}", secrets.token_hex(20)


def pointing_to(endpoint: str, key_id: str, secret: str) -> dict[str, str | None]:
    """Changes to the environment: the endpoint, its credentials, and nothing of the user's own account."""
    own = {name: None for name in os.environ if name.startswith("AWS_")}
    # A company's proxy cannot reach this machine's loopback.
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY", os.environ.get("no_proxy")), "127.0.0.1,localhost")))
    return own | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """The environment with `changes` (None removes), put back afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    _apply(changes)
    try:
        yield
    finally:
        _apply(before)


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _serve(port: int) -> None:
    """Serve on `port`, a free one for 0, tell which on standard output, and end with standard input."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request
    application = only_signed(
        DomainDispatcherApplication(create_backend_app), os.environ[SERVER_KEY], os.environ[SERVER_SECRET]
    )
    server = make_server("127.0.0.1", port, application, True, request_handler=MotoRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
