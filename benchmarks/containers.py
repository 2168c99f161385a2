"""What do images cost that lie in tars or Parquet files, beside loose ones? Requests, counted at the server, and CPU.

The same JPEGs of about 60 kB as objects, in tars as img2dataset writes them (1,000 images each, with .json and .txt
beside them), and in Parquet files (1,000 rows each, one row group), on a loopback S3 server in a process of its own.
Each is listed and planned as a job would, and goes through one Segmenter with a null model; masks are packed. Requests
are those of listing, images, masks and commits; a run's own thirty or so (lease, records, plan) are not among them.

    python benchmarks/containers.py --images 4000
"""

import argparse
import io
import json
import os
import tarfile
import urllib.request
from collections.abc import Callable, Iterator

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from data_path import DIFFERENT, NullModel, codec_workers, cpu_seconds, photo, s3_server
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, preset, resolve_settings
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.identity import Recipe
from pipeline.outputs.plan import LARGEST_SHARD_CPU
from pipeline.outputs.shard import Shard
from pipeline.segmentation.choice import container_filter, entry_filter
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec
from pipeline.segmentation.sources import objects_of
from pipeline.sources.opening import open_source
from pipeline.storage.batches import to_batches, to_infos
from pipeline.storage.opening import open_store

IN_ONE = 1000
"""Images per container."""


Objects = Iterator[tuple[str, bytes]]


def loose(part: int, images: list[bytes]) -> Objects:
    for index, data in enumerate(images):
        yield f"{part:05d}/{index:09d}.jpg", data


def tar_of(part: int, images: list[bytes]) -> Objects:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for index, data in enumerate(images):
            about = json.dumps({"caption": "a street", "key": f"{index:09d}", "width": 500, "height": 375}).encode()
            for suffix, content in (("jpg", data), ("json", about), ("txt", b"a street")):
                member = tarfile.TarInfo(f"{index:09d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    yield f"{part:05d}.tar", sink.getvalue()


def parquet_of(part: int, images: list[bytes]) -> Objects:
    sink = io.BytesIO()
    names = [f"{index:09d}" for index in range(len(images))]
    pq.write_table(pa.table({"key": names, "caption": ["a street"] * len(images), "jpg": images}), sink)
    yield f"{part:05d}.parquet", sink.getvalue()


LAYOUTS: dict[str, Callable[[int, list[bytes]], Objects]] = {"objects": loose, "tars": tar_of, "Parquet": parquet_of}


def shards_of(uri: str) -> Iterator[Shard]:
    """The plan of a job over all of `uri`."""
    objects = objects_of(open_source(uri), opens=container_filter((), ()))
    wanted = entry_filter((), ())
    entries = [info for batch in to_batches(objects) for info in to_infos(batch.filter(pa.array(wanted(batch))))]
    for number, at in enumerate(range(0, len(entries), LARGEST_SHARD_CPU)):
        yield Shard(number, tuple(entries[at : at + LARGEST_SHARD_CPU]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    options = parser.parse_args()
    table = Table(title=f"{options.images} images, a null model, masks packed")
    for name in (
        "images in",
        "listing",
        "images, masks, commits",
        "requests per 1,000",
        "CPU ms per image",
        "images per core-second",
    ):
        table.add_column(name, justify="right")
    with s3_server() as (address, _):
        os.environ |= {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip

        def requests() -> int:
            with urllib.request.urlopen(f"{address}/.requests") as answer:
                return int(answer.read())

        pictures = [photo(seed) for seed in range(DIFFERENT)]
        bundle = ModelBundle.new(Architecture(num_classes=21, width=1 / 64, head_width=8), preset("voc"))
        # Not through a store of ours, which uploads large objects in parts: that the server does not know.
        client = boto3.client("s3")
        for name, layout in LAYOUTS.items():
            source, output = f"s3://bench/{name}", open_store(f"s3://bench/labels-{name}")
            for part, start in enumerate(range(0, options.images, IN_ONE)):
                indices = range(start, min(start + IN_ONE, options.images))
                for key, data in layout(part, [pictures[index % DIFFERENT] for index in indices]):
                    client.put_object(Bucket="bench", Key=f"{name}/{key}", Body=data)
            output.put("begun", b"")
            spec = SegmenterSpec(
                source=source, output=output.uri, run_id="run", recipe=Recipe(bundle.model_id, "null"),
                settings=resolve_settings(device="cpu", precision="float32", threads=1, batch_size=8),
                max_pixels=SegmentJob.model_fields["max_pixels"].default, codec_workers=1, image_timeout=60.0,
                image_memory=2 << 30, masks="tar", lease=1,
            )  # fmt: skip
            segmenter = Segmenter(spec, bundle.to_files(), NullModel)
            began, cpu = requests(), os.times().user + os.times().system
            shards = list(shards_of(source))
            listed = requests()
            workers = codec_workers()
            codecs = cpu_seconds(workers)
            outcomes = [segmenter.process(shard) for shard in shards]
            used = os.times().user + os.times().system - cpu + cpu_seconds(workers) - codecs
            ended = requests()
            segmenter.close()
            assert sum(outcome.ok for outcome in outcomes) == options.images, outcomes
            table.add_row(
                name, str(listed - began), str(ended - listed), f"{1000 * (ended - began) / options.images:.1f}",
                f"{1000 * used / options.images:.2f}", f"{options.images / used:.0f}",
            )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
