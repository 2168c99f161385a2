"""Prefect's server for this machine alone: `python -m deploy.local.prefect_server PORT`, as `prefect server start`.

It answers requests to 127.0.0.1 and localhost and no others. A web page can have a name of its own point at this
machine, so that the browser takes Prefect for the page's own server; its requests still bear that name.
"""

import sys

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

HOSTS = ("127.0.0.1", "localhost")


def main(port: int) -> None:
    # Reads the environment when it is imported.
    from prefect.server.api.server import create_app

    app = TrustedHostMiddleware(create_app(final=True), allowed_hosts=HOSTS, www_redirect=False)
    uvicorn.run(app, host=HOSTS[0], port=port, log_level="info")


if __name__ == "__main__":
    main(int(sys.argv[1]))
