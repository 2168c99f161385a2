"""Keys that break tools: each is planned and labelled or named, and none leads out of OUTPUT."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import read_current
from pipeline.outputs.plan import read_manifest, read_shards
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.newline_s3 import NewlineS3
from tests.samples import jpeg

BUCKET_KEYS = {
    "a//b",
    "a/b",
    "./x",
    "../x",
    "x",
    "../../../../etc/passwd",
    "/absolute",
    "//",
    "..",
    ".",
    "dir/",
    "dir",
    "dir/x",
    "new\nline.jpg",
    "carriage\rreturn",
    "tab\tand\x7fdelete",
    "😀.jpg",
    "name#1",
    "name?2",
    "a+b c%2F.jpg",
    "back\\slash",
    "<script>.jpg",
    "k" * 1024,
    "é" * 512,
    "/".join("d" * 9 for _ in range(100)),
    "masks/results/run_id=1/shard-1.parquet.jpg",
}
FILE_NAMES = {
    b"caf\xe9.jpg",
    b"caf\\xe9 spelled.jpg",
    "café.jpg".encode(),
    b"name#1",
    b"name?2",
    b"new\nline.jpg",
    b"tab\t.jpg",
    "😀.jpg".encode(),
    b"back\\slash.jpg",
    b"%2e%2e",
    b"-rf",
    b" ",
    b"...",
    b"\xff\xfe/\x80.jpg",
    b"n" * 255,
    b"/".join(b"d" * 200 for _ in range(12)),
}


@pytest.fixture
def endpoint(s3_endpoint: str) -> Iterator[str]:
    if "FCN_TEST_S3_ENDPOINT" in os.environ:
        yield s3_endpoint
        return
    with NewlineS3(s3_endpoint) as proxy:
        yield proxy.endpoint


def job(source: str, output: str, model: Path) -> SegmentJob:
    return SegmentJob(
        source=source, output=output, model=str(model), include=("*",), device="cpu", actors=1, cpus_per_actor=1,
        codec_workers=1, engine="torch", no_report=True,
    )  # fmt: skip


def check(output: Store, run_id: str, keys: set[str]) -> None:
    """All of `keys` are planned once and have one row with a mask, each mask under its own name."""
    manifest = read_manifest(output, run_id)
    assert manifest is not None
    planned = [entry.key for shard in read_shards(output, run_id, manifest) for entry in shard.entries]
    assert sorted(planned) == sorted(keys)
    rows = {row["key"]: row for row in read_current(output).to_pylist()}
    assert rows.keys() == keys
    assert {key: row["message"] for key, row in rows.items() if row["status"] != "ok"} == {}
    masks = [row["mask_key"] for row in rows.values()]
    assert len(set(masks)) == len(keys)
    assert {info.key for info in output.list("masks/")} == set(masks)
    assert list(verify(output, Verified())) == []


def test_every_key_of_a_bucket_is_labelled_inside_a_folder(
    endpoint: str, bucket: str, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    source = open_store(f"s3://{bucket}?endpoint_url={endpoint}")
    for seed, key in enumerate(sorted(BUCKET_KEYS)):
        source.put(key, jpeg(32, 24, seed))
    output = open_store(str(tmp_path / "out" / "labels"))
    report = segment(job(source.uri, output.uri, model_dir))
    check(output, report.runs[0].run_id, BUCKET_KEYS)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"labels"}
    assert {info.key for info in source.list()} == BUCKET_KEYS


def test_every_file_of_a_folder_is_labelled_inside_a_bucket(
    bucket: str, tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    for seed, name in enumerate(sorted(FILE_NAMES)):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(jpeg(32, 24, seed))
    source = open_store(str(tmp_path))
    keys = {info.key for info in source.list()}
    assert len(keys) == len(FILE_NAMES)
    output = open_store(f"s3://{bucket}/labels")
    report = segment(job(source.uri, output.uri, model_dir))
    check(output, report.runs[0].run_id, keys)
    assert all(info.key.startswith("labels/") for info in open_store(f"s3://{bucket}").list())


def test_a_source_or_output_whose_own_name_is_not_utf8_is_refused_in_words(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, plain = os.fsencode(tmp_path) + b"/caf\xe9", tmp_path / "plain"
    os.mkdir(odd)
    plain.mkdir()
    for folder in (odd, os.fsencode(plain)):
        with open(folder + b"/a.jpg", "wb") as file:
            file.write(jpeg(32, 24))
    for source, output in ((os.fsdecode(odd), plain), (plain, os.fsdecode(odd))):
        assert "not UTF-8" in refused(capsys, "segment", source, output, "--model", model_dir)
    os.symlink(odd, tmp_path / "link")
    assert fcn(["runs", str(tmp_path / "link")]) == 0
