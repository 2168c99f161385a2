"""Listings and bytes take one way: the endpoint, proxy, addressing and signature that the user asked for."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from pipeline.errors import InputError, StorageError
from pipeline.storage.endpoints import ONLY_OBSTORE_READS, address_of
from pipeline.storage.opening import open_store
from pipeline.storage.s3_address import S3Address
from pipeline.storage.s3_clients import Clients
from pipeline.storage.store import StorageOptions, Store
from pipeline.storage.uri import without_user
from tests.faulty_s3 import FaultyS3

OPTIONS = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=5, check_seconds=5)
HASTY = StorageOptions(connect_seconds=1, read_seconds=1, retry_seconds=0.2, check_seconds=0.2)
KEYS = "aws_access_key_id = key\naws_secret_access_key = s\n"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        proxy.dropped_headers = {"host"}  # the server of the tests would route by it
        yield proxy


def ask_both_clients(store: Store) -> None:
    store.put("k", b"1")
    assert store.get("k") == b"1"
    assert [info.key for info in store.list()] == ["k"]
    store.delete("k")


@pytest.mark.parametrize("given", ["uri", "environment", "profile"])
@pytest.mark.parametrize(
    "host",
    [
        "bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com",
        "s3-fips.us-east-1.amazonaws.com",
        "s3.dualstack.us-east-1.amazonaws.com",
    ],
)
def test_an_endpoint_of_aws_is_kept_for_every_request_though_the_bucket_is_elsewhere(
    proxy: FaultyS3, host: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = f"photos.{uuid.uuid4().hex[:20]}"  # with a dot, so that its name stands in the path
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    uri = f"s3://{bucket}"
    if given == "uri":
        uri += f"?endpoint_url=http://{host}"
    elif given == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    else:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        (tmp_path / "config").write_text(f"[profile private]\n{KEYS}endpoint_url = http://{host}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        uri += "?profile=private"
    ask_both_clients(open_store(uri, OPTIONS))
    assert set(proxy.hosts) == {host}


PORT = "{port}"
"""Stands for that of the endpoint."""


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "PROXY"},
        {"http_proxy": "PROXY", "no_proxy": "*"},
        {"http_proxy": "PROXY", "no_proxy": f"127.0.0.1:{PORT}"},
        {"http_proxy": "PROXY", "no_proxy": "127.0.0.1"},
        {"http_proxy": "PROXY", "no_proxy": "127.0.0.0/8"},
        {"http_proxy": "PROXY", "no_proxy": ".example.org"},
        {"all_proxy": "PROXY"},
        {"https_proxy": "PROXY"},
        {"http_proxy": ""},
        {"http_proxy": "", "all_proxy": "PROXY"},
    ],
    ids=str,
)
def test_listing_and_bytes_go_through_the_same_proxy_or_none(
    proxy: FaultyS3, s3_endpoint: str, bucket: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        value = value.replace("PROXY", proxy.endpoint).replace(PORT, str(urlsplit(s3_endpoint).port))
        monkeypatch.setenv(name, value)
    ask_both_clients(open_store(f"s3://{bucket}?endpoint_url={s3_endpoint}", OPTIONS))
    methods = {method for method, _ in proxy.requests}
    assert methods in (set(), {"GET", "PUT", "DELETE"})
    if methods:
        assert len([path for _, path in proxy.requests if "list-type" in path]) == 1
    # botocore, which decides, knows host:port and suffixes, and neither ranges of addresses nor a proxy for everything.
    through = variables.get("http_proxy") == "PROXY" and variables.get("no_proxy") in (
        None,
        "127.0.0.0/8",
        ".example.org",
    )
    assert bool(methods) == through


@pytest.mark.parametrize("spelled", ["HTTP://", "Http://"])
def test_the_scheme_of_an_endpoint_may_be_in_capitals(
    proxy: FaultyS3, bucket: str, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = proxy.endpoint.replace("http://", spelled)
    ask_both_clients(open_store(f"s3://{bucket}?endpoint_url={endpoint}", OPTIONS))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    ask_both_clients(open_store(f"s3://{bucket}", OPTIONS))


@pytest.mark.parametrize("given", ["uri", "profile"])
def test_a_public_bucket_is_read_without_signature(
    proxy: FaultyS3, bucket: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = boto3.client("s3")
    client.put_bucket_acl(Bucket=bucket, ACL="public-read")
    for key in ("d/", "k"):
        client.put_object(Bucket=bucket, Key=key, Body=b"1", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile open]\ns3 =\n  unsigned = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    option = "unsigned=true" if given == "uri" else "profile=open"
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}&{option}", OPTIONS)
    store.check_readable()
    assert [store.get(info.key) for info in store.list()] == [b"1", b"1"]
    assert not any("authorization" in {name.lower() for name in headers} for headers in proxy.headers)


@pytest.mark.parametrize("given", ["uri", "profile"])
def test_a_requester_who_pays_says_so_with_every_request(
    proxy: FaultyS3, bucket: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[profile payer]\n{KEYS}s3 =\n  request_payer = requester\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    option = "request_payer=requester" if given == "uri" else "profile=payer"
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}&{option}", OPTIONS)
    store.check_readable()
    store.check_writable()
    store.put("d/", b"1")
    assert store.get("d/") == b"1"
    store.head("d/")
    store.delete("d/")
    ask_both_clients(store)
    for headers in proxy.headers:
        assert {name.lower(): value for name, value in headers.items()}["x-amz-request-payer"] == "requester"


def test_variables_of_obstores_own_change_nothing(
    proxy: FaultyS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"AWS_CHECKSUM_ALGORITHM": "SHA256", "AWS_SERVER_SIDE_ENCRYPTION": "AES256", "AWS_CONDITIONAL_PUT": "x:y"}
    for name in ONLY_OBSTORE_READS:
        monkeypatch.setenv(name, values.get(name, "true"))
    ask_both_clients(open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", OPTIONS))
    names = [{name.lower() for name in headers} for headers in proxy.headers]
    assert all("authorization" in each for each in names)
    assert not any(name in each for each in names for name in ("x-amz-request-payer", "x-amz-server-side-encryption"))
    assert os.environ["AWS_SKIP_SIGNATURE"] == "true"


@pytest.mark.parametrize(
    ("config", "endpoint", "bucket", "address"),
    [
        ("", None, "photos", "https://photos.s3.eu-west-1.amazonaws.com"),
        ("addressing_style = path", None, "photos", "https://s3.eu-west-1.amazonaws.com/photos"),
        ("addressing_style = virtual", "http://minio:9000", "photos", "http://photos.minio:9000"),
        ("addressing_style = path", "http://minio:9000/base", "photos", "http://minio:9000/base/photos"),
        ("use_accelerate_endpoint = true", None, "photos", "https://photos.s3-accelerate.amazonaws.com"),
        ("use_dualstack_endpoint = true", None, "photos", "https://photos.s3.dualstack.eu-west-1.amazonaws.com"),
        ("", None, ACCESS_POINT, "https://photos-123456789012.s3-accesspoint.eu-west-1.amazonaws.com"),
    ],
)
def test_the_address_of_a_bucket_is_what_boto3_makes_of_the_profile(
    config: str, endpoint: str | None, bucket: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    (tmp_path / "config").write_text(f"[profile x]\nregion = eu-west-1\ns3 =\n  {config or 'payload = x'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    session = boto3.Session(profile_name="x")
    client = session.client("s3", endpoint_url=endpoint, config=Config(signature_version=UNSIGNED))
    assert address_of(client, bucket) == address


def test_the_addressing_that_a_profile_wants_holds_for_listing_and_bytes(
    proxy: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(f"[profile virtual]\n{KEYS}s3 =\n  addressing_style = virtual\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("http_proxy", proxy.endpoint)
    store = open_store("s3://photos?endpoint_url=http://s3.example.org&profile=virtual", HASTY)
    for call in (lambda: store.get("k"), lambda: list(store.list()), lambda: store.put("k", b"1")):
        with contextlib.suppress(StorageError):  # the server of the tests looks for the bucket in the path
            call()
    assert set(proxy.hosts) == {"photos.s3.example.org"}


def test_the_number_of_attempts_in_a_profile_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile stubborn]\nretry_mode = adaptive\nmax_attempts = 50\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    clients = Clients(S3Address.parse("s3://photos?profile=stubborn"), OPTIONS)
    assert clients.attempts == 50
    assert clients.boto().meta.config.retries == {"mode": "adaptive", "total_max_attempts": 1}


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        (f"s3://{ACCESS_POINT}", ACCESS_POINT, ""),
        (f"s3://{ACCESS_POINT}/cam/1", ACCESS_POINT, "cam/1/"),
        (f"s3://{ACCESS_POINT}/cam/?region=eu-west-1", ACCESS_POINT, "cam/"),
    ],
)
def test_an_access_point_is_named_by_its_arn(uri: str, bucket: str, prefix: str) -> None:
    address = S3Address.parse(uri)
    assert (address.bucket, address.prefix) == (bucket, prefix)
    assert S3Address.parse(address.uri) == address


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://arn:aws:s3::123456789012:accesspoint:mfzwi23gnjvgw.mrap/x", "access points of several regions"),
        ("s3://photos?unsigned=perhaps", "unsigned is true or false"),
        ("s3://photos?request_payer=owner", "can only be requester"),
        ("s3://photos?endpoint_url=http://[::1", "endpoint_url must look like"),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused_with_a_sentence(uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_store(uri)


def test_a_password_in_an_endpoint_is_never_printed(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hush@127.0.0.1:1")
    store = open_store(f"s3://{bucket}", HASTY)
    for call in (lambda: store.get("k"), lambda: list(store.list()), store.check_readable, store.check_writable):
        with pytest.raises(StorageError, match=r"127\.0\.0\.1:1") as caught:
            call()
        assert "hush" not in str(caught.value)
        assert "user" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:hush@host:9000/a?b#c", "https://host:9000/a?b#c"),
        ("https://host/a@b", "https://host/a@b"),
        ("http://a@b@host", "http://host"),
        ("http://user:hush@[::1", "http://..."),
        ("S3", "S3"),
    ],
)
def test_urls_are_shown_without_user_and_password(url: str, shown: str) -> None:
    assert without_user(url) == shown
