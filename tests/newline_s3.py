"""A proxy before moto's server for the one kind of key that it cannot route: those with a line feed.

It stores them with a vertical tab instead, the next character, so that the order of keys stays as it is. Real services
need none of this.
"""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


class NewlineS3:
    """Passes requests on with %0A spelled %0B in paths, and answers to listings the other way round."""

    def __init__(self, endpoint: str) -> None:
        target = urlsplit(endpoint)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = http.client.HTTPConnection(target.hostname or "", target.port or 80, timeout=30)
                upstream.request(self.command, self.path.replace("%0A", "%0B"), body, dict(self.headers.items()))
                answer = upstream.getresponse()
                content = answer.read()
                length = answer.headers.get("Content-Length", str(len(content)))
                upstream.close()
                if "list-type=2" in self.path:
                    content = content.replace(b"%0B", b"%0A")
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
