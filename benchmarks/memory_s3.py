"""An S3 endpoint that costs next to nothing, for benchmarks of what talks to it: objects in memory, no checks.

Knows GET (also of one range), HEAD, PUT (also If-None-Match: *), DELETE and ListObjectsV2 without delimiters, in path
style. Any credentials will do. GET of /.requests gives the number of requests so far. Prints its address, then serves
until its stdin closes:

    python benchmarks/memory_s3.py
"""

import asyncio
import bisect
import hashlib
import re
import sys
from collections.abc import Iterator
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

WHEN = "2026-01-01T00:00:00.000Z"
MODIFIED = formatdate(1767225600, usegmt=True)


_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Objects:
    """Everything stored, by /bucket/key, and the same names in order for listings."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[bytes, str]] = {}
        self._sorted: list[str] | None = []
        self.requests = 0

    def put(self, name: str, body: bytes) -> str:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if name not in self.found:
            self._sorted = None
        self.found[name] = body, etag
        return etag

    def delete(self, name: str) -> None:
        if self.found.pop(name, None):
            self._sorted = None

    def names(self, prefix: str, after: str) -> Iterator[str]:
        """Names that start with `prefix` and lie above `after`, in order."""
        if self._sorted is None:
            self._sorted = sorted(self.found, key=str.encode)
        start = bisect.bisect_right(self._sorted, max(after, prefix).encode(), key=str.encode)
        if not after and prefix in self.found:
            start -= 1
        for name in self._sorted[start:]:
            if not name.startswith(prefix):
                return
            yield name


class Connection(asyncio.Protocol):
    """One client's connection: requests one after another."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Answer a request if all of it has come."""
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return False
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            del self._received[: end + 4]
            method, target, _ = first.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._head = method, target, headers
            if headers.get("expect") == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, target, headers = self._head
        length = int(headers.get("content-length", 0))
        if len(self._received) < length:
            return False
        body = bytes(self._received[:length])
        del self._received[:length]
        self._head = None
        self._answer(method, target, headers, body)
        return True

    def _answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        name = unquote(parts.path)
        if name == "/.requests":
            self._send(200, {}, str(self._objects.requests).encode())
            return
        self._objects.requests += 1
        found = self._objects.found.get(name)
        is_bucket = name.count("/") < 2 or (name.endswith("/") and name.count("/") == 2)
        if is_bucket:
            query = parse_qs(parts.query, keep_blank_values=True)
            self._send(200, {}, self._list(name.strip("/"), query) if method == "GET" else b"")
        elif method in ("GET", "HEAD") and found is None:
            self._send(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
        elif method in ("GET", "HEAD") and found is not None:
            named = {"ETag": f'"{found[1]}"', "Last-Modified": MODIFIED}
            span = _RANGE.fullmatch(headers.get("range", ""))
            if method == "GET" and span:
                whole, start, end = found[0], int(span[1]), int(span[2])
                named["Content-Range"] = f"bytes {start}-{min(end, len(whole) - 1)}/{len(whole)}"
                self._send(206, named, whole[start : end + 1])
            else:
                self._send(200, named, found[0], with_body=method == "GET")
        elif method == "PUT" and found is not None and "if-none-match" in headers:
            self._send(412, {}, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif method == "PUT":
            self._send(200, {"ETag": f'"{self._objects.put(name, body)}"'}, b"")
        elif method == "DELETE":
            self._objects.delete(name)
            self._send(204, {}, b"")
        else:
            self._send(501, {}, b"")

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        root = f"/{bucket}/"
        most = int(query.get("max-keys", ["1000"])[0])
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        names = self._objects.names(root + query.get("prefix", [""])[0], root + after if after else "")
        contents, last, truncated = [], "", False
        for name in names:
            if len(contents) == most:
                truncated = True
                break
            body, etag = self._objects.found[name]
            last = escape(name.removeprefix(root))
            contents.append(
                f"<Contents><Key>{last}</Key><LastModified>{WHEN}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
                f"<Size>{len(body)}</Size></Contents>"
            )
        token = f"<NextContinuationToken>{last}</NextContinuationToken>" if truncated else ""
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><KeyCount>{len(contents)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{token}{''.join(contents)}</ListBucketResult>"
        ).encode()

    def _send(self, status: int, headers: dict[str, str], body: bytes, *, with_body: bool = True) -> None:
        lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode() + (body if with_body else b""))


async def serve() -> None:
    loop = asyncio.get_running_loop()
    objects = Objects()
    server = await loop.create_server(lambda: Connection(objects), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
