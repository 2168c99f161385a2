"""Answers that are not what they seem: pages of middleboxes, archived objects, etags of a service's own."""

import hashlib
import logging
import re
from collections.abc import Iterator

import boto3
import pytest

from pipeline.actors.outcome import error_reason
from pipeline.errors import (
    AccessDenied,
    ObjectArchived,
    ObjectChanged,
    StorageError,
    StorageUnavailable,
)
from pipeline.outputs.results import TRANSIENT_ERRORS
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions, Store
from tests.faulty_s3 import FaultyS3

PATIENT = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=60, check_seconds=60)
HASTY = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=0.5, check_seconds=0.5)
BOTH_CLIENTS = ["k", "d/"]
"""obstore reads the first, boto3 the second."""


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyS3, bucket: str) -> Store:
    for key in BOTH_CLIENTS:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x" * 1000)
    return open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", PATIENT)


@pytest.mark.parametrize("key", BOTH_CLIENTS)
@pytest.mark.parametrize("way", ["page", "error_200", "empty"])
def test_an_answer_of_another_length_is_asked_for_again_before_an_object_counts_as_changed(
    proxy: FaultyS3, store: Store, key: str, way: str
) -> None:
    listed = store.head(key)
    proxy.faults = [way] * 2
    assert store.get(key, size=listed.size, etag=listed.etag) == b"x" * 1000
    proxy.faults = [way]
    assert store.get_range(key, 10, 20) == b"x" * 20
    assert proxy.faults == []


def test_an_object_that_stays_another_length_has_changed(proxy: FaultyS3, store: Store) -> None:
    listed = store.head("k")
    hasty = open_store(store.uri, HASTY)
    proxy.faults = ["page"] * 1000
    with pytest.raises(ObjectChanged, match="another length than it was listed with"):
        hasty.get("k", size=listed.size, etag=listed.etag)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_has_a_reason_of_its_own_that_is_final(bucket: str, storage_class: str) -> None:
    store = open_store(f"s3://{bucket}", PATIENT)
    for key in BOTH_CLIENTS:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"x", StorageClass=storage_class)
        with pytest.raises(
            ObjectArchived, match=r"archive storage class .* restore it, then run with --retry-errors"
        ) as it:
            store.get(key)
        reason, message = error_reason(it.value)
        assert reason == "archived"
        assert "credentials" not in message
    assert "archived" not in TRANSIENT_ERRORS


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("403 InvalidObjectState", "archive storage class"),
        ("400 KMS.DisabledException", "the key that encrypts the object cannot be used"),
        ("400 KMS.NotFoundException", "the key that encrypts the object cannot be used"),
        ("403 SecondLevelDomainForbidden", "addressing_style = virtual"),
        ("400 InvalidRegionName", "no such region .* .region= or AWS_DEFAULT_REGION"),
        ("400 AuthorizationHeaderMalformed", "another region than the one asked; give .region= or AWS_DEFAULT_REGION"),
    ],
)
def test_a_refusal_that_is_no_matter_of_permission_does_not_blame_the_credentials(
    proxy: FaultyS3, store: Store, way: str, words: str
) -> None:
    for key in BOTH_CLIENTS:
        proxy.faults = [way]
        with pytest.raises(StorageError, match=words) as caught:
            store.get(key)
        assert not isinstance(caught.value, AccessDenied)
        assert "check the credentials" not in str(caught.value)


def other_etag(etag: str) -> str:
    return hashlib.sha256(etag.encode()).hexdigest()[:32]


def with_other_etags(request: str, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """What a gateway answers whose etags only look like MD5s."""
    if "ETag" in headers:
        headers = headers | {"ETag": f'"{other_etag(headers["ETag"])}"'}
    return headers, body


def with_listed_etags(request: str, headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """What one answers whose listings have etags of their own."""
    return headers, re.sub(rb"(<ETag>&quot;|<ETag>\")[0-9a-f]{32}", rb"\g<1>" + b"0" * 32, body)


@pytest.mark.parametrize("key", BOTH_CLIENTS)
def test_three_equal_bodies_are_the_object_where_etags_are_no_md5s_and_that_is_said_once(
    proxy: FaultyS3, store: Store, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pipeline")
    proxy.rewrite = with_other_etags
    assert store.get(key) == b"x" * 1000
    assert store.get("d/") == b"x" * 1000
    assert sum("look like MD5s and are none" in record.getMessage() for record in caplog.records) == 1


def test_once_a_service_is_known_to_have_other_etags_its_objects_are_read_once(
    proxy: FaultyS3, store: Store, bucket: str
) -> None:
    proxy.rewrite = with_other_etags
    for number in range(4):
        boto3.client("s3").put_object(Bucket=bucket, Key=f"n{number}", Body=b"%d" % number)
        proxy.requests.clear()
        assert store.get(f"n{number}") == b"%d" % number
    assert proxy.requests == [("GET", f"/{bucket}/n3")]


def test_damage_is_not_taken_for_an_etag_of_the_services_own(proxy: FaultyS3, store: Store) -> None:
    """Where one etag was an MD5, one that does not fit is damage, however often it comes."""
    assert store.get("k") == b"x" * 1000
    proxy.matches = lambda method, path: method == "GET"
    proxy.faults = ["corrupt"] * 1000
    with pytest.raises(StorageUnavailable, match="arrived damaged 3 times"):
        store.get("d/")


def test_a_service_that_lists_other_etags_than_its_objects_have_is_named_with_a_way_on(
    proxy: FaultyS3, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pipeline")
    proxy.rewrite = with_listed_etags
    listed = {info.key: info for info in store.list()}
    assert listed["k"].etag == "0" * 32
    for key in BOTH_CLIENTS:
        with pytest.raises(
            ObjectChanged, match=r"has another etag than .* lists for it; give the keys with --key-list"
        ):
            store.get(key, size=listed[key].size, etag=listed[key].etag)
    assert sum("listed ones differ" in record.getMessage() for record in caplog.records) == 1


def test_an_object_has_changed_also_for_whoever_may_not_list(proxy: FaultyS3, store: Store) -> None:
    proxy.matches = lambda method, path: "list-type" in path
    proxy.faults = ["403 AccessDenied"] * 10
    for key in BOTH_CLIENTS:
        with pytest.raises(ObjectChanged, match="has changed since it was listed"):
            store.get(key, etag="another")
