"""A source whose images are handed out as far as a test allows: so a run has a middle, however fast the machine is."""

import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3

from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3
from tests.samples import jpeg


class Gate:
    """Images 0000.jpg, 0001.jpg, ... of a bucket; whoever asks for one that is not yet allowed waits until it is."""

    def __init__(self, photos: str, source: str) -> None:
        """`photos`: the images' URI as it is. `source`: the same behind the gate."""
        self.photos, self.source = photos, source
        self._allowed = 0
        self._changed = threading.Condition()

    def allow(self, images: int) -> None:
        """Let the first so many images through from now on."""
        with self._changed:
            self._allowed = images
            self._changed.notify_all()

    def wait(self, method: str, path: str) -> None:
        asked = re.search(r"/photos/(\d+)\.jpg", path)
        if method == "GET" and asked:
            with self._changed:
                self._changed.wait_for(lambda: int(asked[1]) < self._allowed)


@contextmanager
def gated_images(s3_endpoint: str, count: int, size: tuple[int, int] = (48, 32)) -> Iterator[Gate]:
    """`count` JPEGs of `size` (width, height), none of them allowed yet."""
    bucket = f"gate-{uuid.uuid4().hex[:20]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    photos = open_store(f"s3://{bucket}/photos")
    for index in range(count):
        photos.put(f"{index:04d}.jpg", jpeg(*size, seed=index))
    with FaultyS3(s3_endpoint) as proxy:
        gate = Gate(photos.uri, f"{photos.uri}?endpoint_url={proxy.endpoint}")
        proxy.before = gate.wait
        try:
            yield gate
        finally:
            gate.allow(count)
