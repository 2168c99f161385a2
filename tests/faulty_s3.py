"""A proxy before an S3 endpoint that misbehaves on order, for storage code to meet real broken lines."""

import http.client
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

WAYS = {
    "unavailable": "503, the request not passed on",
    "reset": "the connection reset, the request not passed on",
    "lost_reply": "the request passed on, the connection reset instead of the answer",
    "cut": "half of the answer's body, then the connection closed",
    "corrupt": "one byte of the answer's body changed",
    "silence": "no answer for longer than the client waits",
    "stall": "the answer comes late",
    "late_500": "the request passed on, 500 instead of the answer",
    "empty": "200 with an empty body, the request not passed on",
    "page": "200 with the HTML page of some middlebox, the request not passed on",
    "error_200": "200 with an XML error in its body, the request not passed on",
    "403 AccessDenied": "and the like: that status with that error code, the request not passed on",
}
"""Each way in which a request goes wrong when it stands in `FaultyS3.faults`, or a weather brings it."""

FAULTS = ("unavailable", "reset", "lost_reply", "cut", "corrupt", "silence", "late_500")
"""Those that any call gets over, a write as well."""

PAGE = b"<html><body><h1>Sign in to the network</h1></body></html>"

# Stands in the body of errors, as request headers do in some of the real ones; must not be repeated.
TOLD = "x-amz-security-token:very-secret-token"


_INSTEAD = {
    "empty": b"",
    "page": PAGE,
    "error_200": f"<Error><Code>InternalError</Code><Message>{TOLD}</Message></Error>".encode(),
}


@dataclass(frozen=True)
class Weather:
    """Faults by chance: each request has one of `kinds` with probability `rate`, as the seed has it."""

    seed: int
    rate: float = 0.1
    kinds: tuple[str, ...] = (
        *("500 InternalError", "503 SlowDown", "reset", "lost_reply", "late_500"),
        *("cut", "silence", "stall"),
    )


def _none(method: str, path: str) -> bool:
    return False


class FaultyS3:
    """Passes requests on; each that `matches` first takes the next fault from `faults`, in order, or what the
    weather brings.

    With a `certificate` (PEM: key and chain) it speaks TLS. `suffered` counts the faults by kind. `hold` keeps requests
    back until `release`: whoever waits for them is in the middle of its work for as long as a test wants. `before` is
    called first with the method and path of each request, in its own thread: where it waits, the client waits.

    It is a proxy in the other sense, too: with HTTP_PROXY set to it, it passes requests for any host on. `hosts` are
    those that were asked for, `headers` what came with each request. `rewrite` may change an answer's headers and body.
    `judge` may make a fault of a request by its headers; while `away` is set, each is reset as in a restart.
    `asked` counts requests; unless it `remembers` them, for hours, the lists stay empty.
    """

    def __init__(
        self,
        endpoint: str,
        silence_seconds: float = 5.0,
        *,
        weather: Weather | None = None,
        stall_seconds: float = 1.0,
        certificate: str | None = None,
    ) -> None:
        self.faults: list[str] = []
        self.suffered: Counter[str] = Counter()
        self._weather, self._chance = weather, random.Random(weather.seed if weather else 0)
        self._scheme = "https" if certificate else "http"
        self.matches: Callable[[str, str], bool] = lambda method, path: True
        self.before: Callable[[str, str], object] = lambda method, path: None
        self.dropped_headers: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.asked = 0
        self.remembers = True
        self.hosts: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.judge: Callable[[dict[str, str]], str | None] = lambda headers: None
        self.away = False
        self.rewrite: Callable[[str, dict[str, str], bytes], tuple[dict[str, str], bytes]] | None = None
        self._lock = threading.Lock()
        self._quiet = threading.Event()
        self._held: Callable[[str, str], bool] = _none
        self._released = threading.Event()
        proxy, target = self, urlsplit(endpoint)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                host = self.headers.get("Host", "")
                if not self.path.startswith("/"):  # as a proxy is asked
                    asked = urlsplit(self.path)
                    host, self.path = asked.netloc, asked._replace(scheme="", netloc="").geturl()
                proxy._note(host, dict(self.headers.items()))
                if proxy._held(self.command, self.path):
                    proxy._released.wait()
                proxy.before(self.command, self.path)
                fault = proxy._next(self.command, self.path, dict(self.headers.items()))
                if fault == "unavailable":
                    fault = "503 SlowDown"
                if fault and fault[0].isdigit():
                    status, code = fault.split()
                    told = f"<Error><Code>{code}</Code><Message>{TOLD}</Message></Error>".encode()
                    if self.command == "POST":  # STS, which has another form
                        told = b"<ErrorResponse>" + told + b"</ErrorResponse>"
                    self._answer(int(status), {}, b"" if self.command == "HEAD" else told)
                    return
                if fault in _INSTEAD:
                    self._answer(200, {"Content-Type": "text/html"}, _INSTEAD[fault])
                    return
                if fault == "silence":
                    proxy._quiet.wait(silence_seconds)
                    self._reset()
                    return
                if fault == "reset":
                    self._reset()
                    return
                if fault == "stall":
                    time.sleep(stall_seconds)
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
                if fault == "late_500":
                    told = b"<Error><Code>InternalError</Code><Message>We met an error.</Message></Error>"
                    self._answer(500, {}, b"" if self.command == "HEAD" else told)
                    return
                if fault == "corrupt" and content:
                    content = content[:-1] + bytes([content[-1] ^ 1])
                cut = fault == "cut"
                headers = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date")
                }
                if proxy.rewrite:
                    headers, content = proxy.rewrite(f"{self.command} {self.path}", headers, content)
                    length = length if self.command == "HEAD" else str(len(content))
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
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.set()
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def hold(self, matches: Callable[[str, str], bool]) -> None:
        """Pass no request on that `matches` (method, path), from now until `release`."""
        self._released = threading.Event()
        self._held = matches

    def release(self) -> None:
        self._held = _none
        self._released.set()

    def _note(self, host: str, headers: dict[str, str]) -> None:
        with self._lock:
            if self.remembers:
                self.hosts.append(host)
                self.headers.append(headers)

    def _next(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        with self._lock:
            if self.remembers:
                self.requests.append((method, path))
            self.asked += 1
            fault = "reset" if self.away else self.judge(headers)
            if fault:
                pass
            elif self.faults and self.matches(method, path):
                fault = self.faults.pop(0)
            elif self._weather and self.matches(method, path) and self._chance.random() < self._weather.rate:
                fault = self._chance.choice(self._weather.kinds)
            if fault:
                self.suffered[fault] += 1
            return fault
