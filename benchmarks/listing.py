"""How long does listing a bucket take, by one request after the other and by many at once?

    python benchmarks/listing.py --keys 200000 --delay 0.03

A server of its own process answers ListObjectsV2 from a list in memory, `--delay` seconds after it was asked, as a
distant S3 would. Three names of objects: a flat folder of numbers, hashes, and folders of cameras and days. Measured:
boto3's paginator, our pages one after the other, and `Store.list`, which asks for many at once. CPU is of the client.
"""

import argparse
import multiprocessing
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from unittest import mock
from urllib.parse import parse_qs, quote, urlsplit

import boto3

from pipeline.storage import parallel_listing
from pipeline.storage.opening import open_store

LAYOUTS: dict[str, Callable[[int], str]] = {
    "numbers": lambda n: f"img_{n:08d}.jpg",
    "hashes": lambda n: f"{n * 2654435761 % 2**32:08x}.jpg",
    "cameras and days": lambda n: f"cam{n % 20:02d}/2026/{n // 20 % 12 + 1:02d}/{n // 240 % 28 + 1:02d}/{n:08d}.jpg",
}
_ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2026-01-05T11:01:05.000Z</LastModified>"
    "<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>60000</Size>"
    "<StorageClass>STANDARD</StorageClass></Contents>"
)


def serve(pipe: Connection, count: int, delay: float) -> None:
    """Buckets named 0, 1, ... with the keys of LAYOUTS, until the process is ended. Sends the port."""
    buckets = [sorted(map(layout, range(count))) for layout in LAYOUTS.values()]
    entries = [[_ENTRY.format(key) for key in keys] for keys in buckets]  # made before: the server's time is not asked

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            time.sleep(delay)
            place = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(place.query).items()}
            number = int(place.path.strip("/").removeprefix("bucket-"))
            keys = buckets[number]
            start = bisect_right(keys, asked.get("continuation-token") or asked.get("start-after", ""))
            page = keys[start : start + 1000]
            more = start + 1000 < len(keys)
            token = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if more else ""
            body = (
                '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount><MaxKeys>1000</MaxKeys>"
                f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries[number][start : start + 1000])}"
                "</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


def by_paginator(bucket: str) -> Iterator[object]:
    for page in boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from page["Contents"]


def by_store(bucket: str, at_once: int) -> Iterator[object]:
    with mock.patch.object(parallel_listing, "REQUESTS_AT_ONCE", at_once):
        yield from open_store(f"s3://{bucket}").list()


def measure(listing: Iterator[object], count: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    start, cpu = time.perf_counter(), time.process_time()
    found = sum(1 for _ in listing)
    assert found == count, (found, count)
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds before each answer")
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, options.keys, options.delay), daemon=True
    )
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{here.recv()}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    print(f"{options.keys:,} keys, {options.delay * 1000:.0f} ms an answer\n")
    print(f"{'names':18} {'how':28} {'seconds':>8} {'CPU s':>7} {'keys/s':>9}")
    for number, layout in enumerate(LAYOUTS):
        bucket = f"bucket-{number}"
        ways = {
            "boto3's paginator": by_paginator(bucket),
            "one request after the other": by_store(bucket, 1),
            f"{parallel_listing.REQUESTS_AT_ONCE} at once": by_store(bucket, parallel_listing.REQUESTS_AT_ONCE),
        }
        for way, listing in ways.items():
            seconds, cpu = measure(listing, options.keys)
            print(f"{layout:18} {way:28} {seconds:8.2f} {cpu:7.2f} {options.keys / seconds:9,.0f}", flush=True)
    server.terminate()


if __name__ == "__main__":
    main()
