"""What a run asks of a server, counted there: an image is one GET and one PUT, or one GET where masks are packed."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.plan import LARGEST_SHARD_CPU, LARGEST_SHARD_GPU
from pipeline.report.make import pictures_shown
from pipeline.segmentation.estimate import count_requests, estimate
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.faulty_s3 import FaultyS3
from tests.in_process import segment_in_process
from tests.samples import jpeg

IMAGES = 80
SHARD_SIZE = 20
SHARDS = IMAGES // SHARD_SIZE
ONCE_A_RUN = 40
"""Requests that a run makes however many its images are: checks, lease, plan, records, the first pages of listings."""

_NOT_COUNTED = re.compile(r"/runs/[^/]+/progress\.json|\.heartbeat|list-type.*lease")
"""What depends on how long a run takes."""


@pytest.fixture(scope="module")
def bucket_of_photos(s3_endpoint: str) -> str:
    import boto3

    boto3.client("s3").create_bucket(Bucket="counted-photos")
    store = open_store("s3://counted-photos/photos")
    for index in range(IMAGES):
        store.put(f"{index:04d}.jpg", jpeg(48, 32, seed=index % 8))
    return "counted-photos"


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        yield proxy


def kind_of(method: str, path: str) -> str:
    """What a request is for: its method, and the folder under the output; "image" for the source's objects."""
    place, _, query = path.partition("?")
    if "list-type" in query:
        return "LIST"
    folder = re.match(r"/counted-photos/labels-\w+/([^/]+)/", place)
    return f"{method} {folder[1] if folder else 'image' if '/photos/' in place else 'other'}"


@pytest.mark.parametrize("masks", ["objects", "tar"])
def test_requests_are_one_or_two_an_image_and_a_few_a_shard(
    masks: str, bucket_of_photos: str, model_dir: Path, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(folder: str) -> str:
        return f"s3://{bucket_of_photos}/{folder}?endpoint_url={proxy.endpoint}"

    job = SegmentJob.model_validate(
        {
            "source": at("photos"),
            "output": at(f"labels-{masks}"),
            "model": str(model_dir),
            "device": "cpu",
            "masks": masks,
            "shard_size": SHARD_SIZE,
            "actors": 1,
            "cpus_per_actor": 1,
            "codec_workers": 1,
            "engine": "torch",
            "no_report": masks == "tar",
        }
    )
    segment_in_process(monkeypatch)
    foreseen = estimate(job)
    before = {info.key for info in open_store(f"s3://{bucket_of_photos}").list()}
    proxy.requests.clear()
    report = segment(job)
    assert report.counts.ok == IMAGES
    counted = Counter(kind_of(*request) for request in proxy.requests if not _NOT_COUNTED.search(request[1]))
    if masks == "objects":
        # Where a report is made, it costs what the dry run says of it.
        shown, pictures = pictures_shown(IMAGES, compared=False)
        assert counted["GET image"] == IMAGES + shown
        assert counted["GET masks"] == pictures - shown
        counted["GET image"] -= shown
        counted["GET masks"] -= pictures - shown
        assert counted.pop("PUT reports") == 1
        assert counted.pop("GET results") == SHARDS
        written = sum(
            info.size
            for info in open_store(f"s3://{bucket_of_photos}").list()
            if info.key not in before and info.key.split("/")[1] in ("masks", "results", "class_areas", "reports")
        )
        assert foreseen.written_bytes == pytest.approx(written, rel=0.2)
    assert counted["GET image"] == IMAGES
    assert counted["PUT masks"] == (IMAGES if masks == "objects" else 0)
    assert counted["PUT mask_tars"] == (SHARDS if masks == "tar" else 0)
    assert (counted["PUT results"], counted["PUT class_areas"]) == (SHARDS, SHARDS)
    assert counted["GET results"] == 0, "what a shard's rows add up to came with its commit"
    assert not [kind for kind in counted if kind.startswith("HEAD")]
    images, shards = (2, 2) if masks == "objects" else (1, 3)
    once = counted.total() - images * IMAGES - shards * SHARDS
    assert once <= ONCE_A_RUN, dict(counted)
    # What --dry-run foresaw of it:
    for kind in ("GET", "PUT"):
        real = sum(count for name, count in counted.items() if name.startswith(kind))
        bare = count_requests(job.model_copy(update={"no_report": True}), foreseen.selection, SHARDS, 0.0)
        assert abs(real - getattr(bare, kind.lower())) <= 6, counted
    # Such a run of a million images, in shards of the usual sizes, and with one LIST for a thousand of them:
    for size in (LARGEST_SHARD_CPU, LARGEST_SHARD_GPU):
        looks = 1  # per shard, before its commit, whether another driver took over
        a_thousand = 1000 * (images + (shards + looks) / size) + 1 + once / 1000
        assert a_thousand <= (2010 if masks == "objects" else 1010)
