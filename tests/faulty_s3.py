"""A proxy before an S3 endpoint that misbehaves on order, for storage code to meet real broken lines."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

FAULTS = (
    "unavailable",  # 503, the request not passed on
    "reset",  # the connection reset, the request not passed on
    "lost_reply",  # the request passed on, the connection reset instead of the answer
    "cut",  # half of the answer's body, then the connection closed
    "corrupt",  # one byte of the answer's body changed
    "silence",  # no answer for longer than the client waits
)
# Also "403 AccessDenied" and the like: that status with that error code, the request not passed on.

# Stands in the body of such answers, as request headers do in some of the real ones; must not be repeated.
TOLD = "x-amz-security-token:very-secret-token"


class FaultyS3:
    """Passes requests on; each that `matches` first takes the next fault from `faults`, in order."""

    def __init__(self, endpoint: str, silence_seconds: float = 5.0) -> None:
        self.faults: list[str] = []
        self.matches: Callable[[str, str], bool] = lambda method, path: True
        self.dropped_headers: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        proxy, target = self, urlsplit(endpoint)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                fault = proxy._next(self.command, self.path)
                if fault == "unavailable":
                    fault = "503 SlowDown"
                if fault and fault[0].isdigit():
                    status, code = fault.split()
                    told = f"<Error><Code>{code}</Code><Message>{TOLD}</Message></Error>".encode()
                    self._answer(int(status), {}, b"" if self.command == "HEAD" else told)
                    return
                if fault == "silence":
                    proxy._quiet.wait(silence_seconds)
                    self._reset()
                    return
                if fault == "reset":
                    self._reset()
                    return
                upstream = http.client.HTTPConnection(target.hostname or "", target.port or 80, timeout=30)
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in proxy.dropped_headers
                }
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                length = answer.headers.get("Content-Length", str(len(content)))
                upstream.close()
                if fault == "lost_reply":
                    self._reset()
                    return
                if fault == "corrupt" and content:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                cut = fault == "cut"
                headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date")
                }
                self._answer(answer.status, headers, content[: len(content) // 2] if cut else content, length)
                if cut:
                    self._reset()

            def _answer(self, status: int, headers: dict[str, str], body: bytes, length: str | None = None) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _reset(self) -> None:
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RD)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients of a proxy like this one hang up

            def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
                # Without the polite goodbye: after SO_LINGER 0, closing is what sends the reset.
                assert isinstance(request, socket.socket)
                request.close()

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, method: str, path: str) -> str | None:
        with self._lock:
            self.requests.append((method, path))
            return self.faults.pop(0) if self.faults and self.matches(method, path) else None
