"""The S3 server of a demo and of `make site` answers whoever has its key pair, and nobody else."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import ClientError

from flows.demo.s3 import local_s3
from pipeline.storage.opening import open_store


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with local_s3() as endpoint:
        boto3.Session().client("s3").create_bucket(Bucket="models")
        yield endpoint


def test_who_has_the_key_pair_reads_and_writes_any_key(server: str) -> None:
    store = open_store("s3://models/a b+c")
    for key in ("plain.txt", "sp ace/ü+&=?#.txt", "tilde~%25.txt"):
        store.put(key, b"content")
        assert store.get(key) == b"content"
    assert len(list(store.list())) == 3
    boto3.Session().client("s3").put_object(Bucket="models", Key="x y/ü~", Body=b"1", Metadata={"a": "b  c"})
    store.delete("plain.txt")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/models"), ("PUT", "/models/new"), ("POST", "/moto-api/reset")]
)
def test_who_has_none_is_refused(server: str, method: str, path: str) -> None:
    request = urllib.request.Request(server + path, method=method, data=b"x" if method != "GET" else None)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    assert refused.value.code == 403


@pytest.mark.parametrize("wrong", ["aws_access_key_id", "aws_secret_access_key"])
def test_another_key_pair_is_refused(server: str, wrong: str) -> None:
    pair = {name: os.environ[name.upper()] for name in ("aws_access_key_id", "aws_secret_access_key")}
    client = boto3.client("s3", **{**pair, wrong: "demo"})
    with pytest.raises(ClientError, match="AccessDenied"):
        client.list_buckets()


def test_a_signature_holds_for_one_request_to_this_host(server: str) -> None:
    """A page that has its name point at this machine sends another Host, and nobody can use a signature again."""
    sent = {}
    client = boto3.Session().client("s3")
    client.meta.events.register(
        "before-send.s3.ListBuckets", lambda request, **_: sent.update(headers=dict(request.headers))
    )
    client.list_buckets()
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in sent["headers"].items()}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert opener.open(urllib.request.Request(f"{server}/", headers=headers)).status == 200
    for path, changed in (
        ("/models", {}),
        ("/", {"Host": "rebound.example"}),
        ("/", {"X-Amz-Date": "20200101T000000Z"}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(urllib.request.Request(f"{server}{path}", headers={**headers, **changed}))
        assert refused.value.code == 403
