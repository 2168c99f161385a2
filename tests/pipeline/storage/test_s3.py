"""S3 as a store, against a real endpoint, directly and through a proxy that misbehaves."""

import hashlib
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path

import boto3
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import (
    AccessDenied,
    InputError,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
)
from pipeline.storage.opening import open_store
from pipeline.storage.s3 import S3Store
from pipeline.storage.store import ObjectInfo, StorageOptions, Store
from tests.faulty_s3 import FAULTS, FaultyS3

# The server of the tests cannot store line ends in a key; the others below are as nasty as S3 allows.
CHARACTERS = st.one_of(st.sampled_from("//..%+?#&= \\~*'\"<>\t\x7f"), st.characters(exclude_categories=("Cs", "Cc")))
KEYS = st.text(CHARACTERS, min_size=1, max_size=20).filter(lambda key: len(key.encode()) < 200)
HASTY = StorageOptions(connect_seconds=1, read_seconds=0.5, retry_seconds=5, check_seconds=1)
IMPATIENT = StorageOptions(connect_seconds=0.3, read_seconds=0.3, retry_seconds=0.2, check_seconds=0.3)
ONE_CALL_EACH: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("k"),
    "get_odd": lambda store: store.get("d/"),
    "range": lambda store: store.get_range("k", 0, 1),
    "range_odd": lambda store: store.get_range("d/", 0, 1),
    "head": lambda store: store.head("k"),
    "put": lambda store: store.put("new", b"1"),
    "put_odd": lambda store: store.put("new/", b"1"),
    "delete": lambda store: store.delete("k"),
    "list": lambda store: list(store.list()),
}

needs_moto = pytest.mark.skipif(
    "FCN_TEST_S3_ENDPOINT" in os.environ,
    reason="needs what the built-in test server allows: any credentials, unsigned headers, KMS, versioned buckets",
)


@pytest.fixture
def store(bucket: str) -> Store:
    return open_store(f"s3://{bucket}/some/prefix")


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def shaky(proxy: FaultyS3, bucket: str) -> Store:
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", HASTY)
    store.put("k", b"x" * 1000)
    store.put("d/", b"y" * 1000)
    proxy.requests.clear()
    return store


def keys(store: Store, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, st.binary(max_size=20), min_size=1, max_size=6), st.integers(0, 10**9))
def test_any_keys_come_back_in_order_with_their_bytes(bucket: str, objects: dict[str, bytes], run: int) -> None:
    store = open_store(f"s3://{bucket}/{run}", HASTY)
    assume(not keys(store))
    for key, data in objects.items():
        store.put(key, data)
    listed = list(store.list())
    assert [info.key for info in listed] == sorted(objects, key=str.encode)
    for info in listed:
        assert store.get(info.key, size=info.size, etag=info.etag) == objects[info.key]
        found = store.head(info.key)
        assert (found.key, found.etag, found.size) == (info.key, info.etag, info.size)
        with pytest.raises(ObjectExists):
            store.create(info.key, b"")
        store.delete(info.key)
    assert keys(store) == []


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(KEYS, max_size=25, unique=True), st.integers(1, 5), st.integers(0, 10**9))
def test_listing_by_many_requests_is_listing_by_one(
    bucket: str, monkeypatch: pytest.MonkeyPatch, names: list[str], page: int, run: int
) -> None:
    client, root = boto3.client("s3"), f"{run}/"
    store = open_store(f"s3://{bucket}/{run}", HASTY)
    assume(not keys(store))
    for name in [*names, "a//b", "./x", "../x", "dir/", "name#1", "😀", "é" * 500]:
        client.put_object(Bucket=bucket, Key=root + name, Body=b"x")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=root)
    one_by_one = [
        ObjectInfo(found["Key"].removeprefix(root), found["ETag"].strip('"'), found["Size"], found["LastModified"])
        for answer in pages
        for found in answer["Contents"]
    ]
    monkeypatch.setattr("pipeline.storage.s3.PAGE_KEYS", page)
    assert list(store.list()) == one_by_one


@pytest.mark.parametrize("key", ["a//b", "/a", "a/", "./a", "a/../b", "..", "a\tb", "\x7f", "a%2Fb", "a+b", "ä/ö"])
def test_keys_that_obstore_cannot_spell_work_like_others(store: Store, key: str) -> None:
    store.create(key, b"1")
    assert keys(store) == [key]
    assert store.get(key, etag=hashlib.md5(b"1").hexdigest()) == b"1"
    with pytest.raises(ObjectExists):
        store.create(key, b"2")
    store.put(key, b"3")
    assert store.get(key) == b"3"


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 1025, "\ud800"])
def test_keys_that_s3_cannot_have_are_refused(store: Store, key: str) -> None:
    for call in (store.get, store.head, store.delete, lambda key: store.put(key, b"")):
        with pytest.raises(StorageError):
            call(key)


def test_a_listing_is_relative_complete_and_dated(store: Store, bucket: str) -> None:
    client = boto3.client("s3")
    with ThreadPoolExecutor(8) as threads:  # more than one page
        list(threads.map(lambda n: store.put(f"{n:04}", b"x"), range(1010)))
    client.put_object(Bucket=bucket, Key="some/prefix/", Body=b"")  # a console's folder marker
    client.put_object(Bucket=bucket, Key="some/prefixed", Body=b"")
    listed = list(store.list())
    assert [info.key for info in listed] == [f"{n:04}" for n in range(1010)]
    assert {info.etag for info in listed} == {hashlib.md5(b"x").hexdigest()}
    assert all(info.last_modified.tzinfo is UTC for info in listed)
    assert keys(store, "010") == [f"{n:04}" for n in range(100, 110)]
    assert next(store.list()).key == "0000"


def test_an_object_that_changed_since_it_was_listed_is_not_served(store: Store) -> None:
    for key in ("k", "k/"):
        store.put(key, b"one")
        listed = store.head(key)
        store.put(key, b"two")
        with pytest.raises(ObjectChanged, match="has changed since it was listed"):
            store.get(key, etag=listed.etag)
        store.put(key, b"longer")
        with pytest.raises(ObjectChanged, match="another length"):
            store.get(key, size=listed.size)
        assert store.get(key) == b"longer"


@pytest.mark.parametrize("key", ["k", "k/"])
def test_what_is_not_there_is_missing(store: Store, key: str) -> None:
    with pytest.raises(ObjectMissing, match=f"some/prefix/{key} does not exist"):
        store.get(key)
    with pytest.raises(ObjectMissing):
        store.head(key)
    store.delete(key)


def test_an_object_over_what_it_may_have_is_not_read(store: Store) -> None:
    store.put("k", b"123456")
    with pytest.raises(ObjectTooLarge, match=r"k has 6 bytes, over the 5 that it may have"):
        store.get("k", most_bytes=5)
    assert store.get("k", most_bytes=6) == b"123456"


def test_a_large_object_goes_up_in_parts_and_comes_back_whole(store: Store) -> None:
    data = os.urandom(1000) * 12_000
    store.put("model", data)
    info = store.head("model")
    assert store.get("model", size=info.size, etag=info.etag) == data


def test_a_listing_goes_on_with_the_very_next_key(s3_endpoint: str, bucket: str) -> None:
    """Keys that begin with the last one of a page are next to it."""
    store = open_store(f"s3://{bucket}/deep")
    assert isinstance(store, S3Store)
    keys = ["a", "a!", "a/b", "a0", "b"]
    for key in keys:
        store.put(key, b"")
    for index, key in enumerate(keys):
        assert [info.key for info in store._page("", key).objects] == keys[index + 1 :]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_broken_answer_is_asked_for_again(proxy: FaultyS3, shaky: Store, fault: str) -> None:
    for name, call in ONE_CALL_EACH.items():
        proxy.faults = [fault]
        call(shaky)
        assert not proxy.faults, name
    shaky.put("k", b"x" * 1000)
    proxy.faults = [fault, fault]
    assert shaky.get("k") == b"x" * 1000


@pytest.mark.parametrize("fault", FAULTS)
def test_create_takes_effect_once_whatever_breaks(proxy: FaultyS3, shaky: Store, fault: str) -> None:
    """After a lost answer the true winner may hear "exists"; it reads back what it wrote itself."""
    for key in ("new", "new/"):
        proxy.faults = [fault]
        try:
            shaky.create(key, b"mine")
        except ObjectExists:
            assert fault in ("lost_reply", "late_500")
        assert shaky.get(key) == b"mine"
        with pytest.raises(ObjectExists):
            shaky.create(key, b"theirs")
        assert shaky.get(key) == b"mine"


@pytest.mark.parametrize("code", ["ConditionalRequestConflict", "OperationAborted"])
def test_a_conflict_with_another_request_is_no_object_that_exists(proxy: FaultyS3, shaky: Store, code: str) -> None:
    """S3 asks to try again: two actors with one shard, or a deletion of the same key at the same moment."""
    for key in ("new", "new/"):
        proxy.faults = [f"409 {code}"] * 2
        shaky.create(key, b"mine")
        assert proxy.faults == []
        assert shaky.get(key) == b"mine"


@pytest.mark.parametrize("fault", ["corrupt", "cut"])
def test_damage_on_the_way_is_never_returned(proxy: FaultyS3, bucket: str, fault: str) -> None:
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", IMPATIENT)
    for key in ("k", "k/"):
        store.put(key, b"x" * 1000)
        proxy.matches = lambda method, path: method == "GET"
        proxy.faults = [fault] * 100
        with pytest.raises(StorageUnavailable):
            store.get(key)
        proxy.faults = []


@needs_moto
def test_an_etag_of_a_kms_object_is_not_taken_for_an_md5(proxy: FaultyS3, bucket: str) -> None:
    """Such etags look like MD5s. Here the bytes differ from the etag because the proxy changes one."""
    boto3.client("s3").put_object(Bucket=bucket, Key="k", Body=b"xx", ServerSideEncryption="aws:kms")
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", HASTY)
    proxy.matches = lambda method, path: method == "GET"
    proxy.faults = ["corrupt"]
    assert store.get("k") == b"xy"


def test_a_server_that_stays_down_is_given_up_on(proxy: FaultyS3, bucket: str) -> None:
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", IMPATIENT)
    proxy.faults = ["unavailable"] * 1000
    with pytest.raises(StorageUnavailable, match="SlowDown"):
        store.get("k")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("403 InvalidAccessKeyId", AccessDenied, "does not accept the credentials"),
        ("403 SignatureDoesNotMatch", AccessDenied, "does not accept the credentials"),
        ("400 ExpiredToken", AccessDenied, "check or renew"),
        ("403 AccessDenied", AccessDenied, "not allowed"),
        ("403 RequestTimeTooSkewed", AccessDenied, "clock"),
        ("404 NoSuchBucket", StorageError, "no such bucket"),
        ("400 InvalidRequest", StorageError, "refused the request"),
    ],
)
def test_a_refusal_is_one_sentence_of_the_right_kind(
    proxy: FaultyS3, shaky: Store, fault: str, kind: type[StorageError], words: str
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: shaky.get("k"),
        lambda: shaky.get("d/"),
        lambda: shaky.put("k", b""),
        lambda: shaky.create("k2", b""),
        lambda: keys(shaky),
        shaky.check_readable,
        shaky.check_writable,
    ]
    for call in calls:
        # Keys that a service does not accept are renewed once, and asked with again.
        renewed = fault in ("400 ExpiredToken", "403 RequestTimeTooSkewed")
        proxy.faults = [fault, fault] if renewed else [fault]
        with pytest.raises(kind, match=words) as caught:
            call()
        assert proxy.faults == []
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(shaky.uri.split("?")[0])
        assert "secret" not in message
        # A traceback prints what an error was raised from, and clients quote the server's answer.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_preflight_names_a_missing_bucket_and_a_dead_endpoint(s3_endpoint: str) -> None:
    for check in ("check_readable", "check_writable"):
        with pytest.raises(StorageError, match=r"s3://no-such-bucket-here.*create it or correct the URI"):
            getattr(open_store("s3://no-such-bucket-here/x", HASTY), check)()
        dead = open_store("s3://bucket?endpoint_url=http://127.0.0.1:1", HASTY)
        with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1:1 cannot be reached"):
            getattr(dead, check)()
    with pytest.raises(StorageUnavailable, match="cannot be reached"):
        open_store("s3://bucket?endpoint_url=http://127.0.0.1:1", IMPATIENT).get("k")


def test_preflight_names_an_unknown_profile_and_missing_credentials(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AccessDenied, match="nobody"):
        open_store(f"s3://{bucket}?profile=nobody", HASTY).check_readable()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    bare = open_store(f"s3://{bucket}", HASTY)
    for call in (bare.check_readable, bare.check_writable, lambda: bare.get("k")):
        with pytest.raises(AccessDenied, match="credentials"):
            call()


@needs_moto
def test_preflight_passes_and_leaves_nothing_behind(store: Store, bucket: str) -> None:
    client = boto3.client("s3")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    store.check_readable()
    store.check_writable()
    answer = client.list_object_versions(Bucket=bucket)
    assert not answer.get("Versions")
    assert not answer.get("DeleteMarkers")


@needs_moto
def test_preflight_refuses_a_service_without_create_only_writes(proxy: FaultyS3, bucket: str) -> None:
    proxy.dropped_headers = {"if-none-match"}
    with pytest.raises(StorageError, match="ignores If-None-Match"):
        open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", HASTY).check_writable()
    assert keys(open_store(f"s3://{bucket}")) == []


@needs_moto
def test_the_uri_chooses_profile_and_endpoint_over_the_environment(
    proxy: FaultyS3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"[profile other]\naws_access_key_id = otherkey\naws_secret_access_key = other\n"
        f"endpoint_url = {proxy.endpoint}\nregion = eu-central-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    open_store(f"s3://{bucket}").put("k", b"1")
    assert proxy.requests == []
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert open_store(f"s3://{bucket}?profile=other", HASTY).get("k") == b"1"
    assert len(proxy.requests) == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    direct = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}&region=eu-west-1", HASTY)
    assert direct.get("k") == b"1"
    assert keys(direct) == ["k"]
    assert all(path.startswith(f"/{bucket}") for _, path in proxy.requests)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/x",
        "s3://bucket/x?aws_secret_access_key=hush",
        "s3://bucket/x?token=hush",
        "s3://bucket/x?endpoint_url=http://user:hush@host",
        "s3://bucket/x?endpoint_url=host:9000",
        "s3://bucket/x?endpoint=http://host",
        "s3:///x",
    ],
)
def test_a_uri_with_a_secret_or_an_unknown_option_is_refused(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        open_store(uri)
    assert "hush" not in str(caught.value)
    assert "secret@" not in str(caught.value)


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from(["", "?endpoint_url=https://host:9000", "?profile=a%20b&region=eu-west-1"]),
)
def test_a_store_opens_again_by_its_uri(prefix: str, options: str) -> None:
    try:
        store = open_store(f"s3://bucket/{prefix}{options}")
    except InputError:
        assume(False)
    again = open_store(store.uri)
    assert again.uri == store.uri
    assert repr(again) == repr(store)
    assert again.at("x/y").uri == store.at("x/y").uri


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket/a//", "s3://bucket/a//"),
        ("s3://bucket//", "s3://bucket//"),
        ("s3://bucket/what?", "s3://bucket/what?"),
    ],
)
def test_one_trailing_slash_means_nothing(uri: str, canonical: str) -> None:
    assert open_store(uri).uri == canonical
    assert open_store(canonical).uri == canonical


def test_a_store_inside_a_store_keeps_its_service(proxy: FaultyS3, shaky: Store) -> None:
    inner = shaky.at("masks")
    inner.put("k", b"1")
    assert shaky.get("masks/k") == b"1"
    assert proxy.endpoint in inner.uri
    with pytest.raises(StorageError):
        shaky.at("..")


def test_a_pickled_store_carries_no_credentials(store: Store) -> None:
    store.put("k", b"1")
    sent = pickle.dumps(store)
    assert pickle.loads(sent).get("k") == b"1"
    for secret in (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]):
        assert secret.encode() not in sent
        assert secret not in repr(store)


def test_many_threads_share_a_store(bucket: str) -> None:
    store = open_store(f"s3://{bucket}", StorageOptions())
    wrong: list[str] = []

    def work(name: int) -> None:
        for n in range(10):
            key = f"{name}/{n}" + "/" * (n % 2)
            store.put(key, key.encode())
            if store.get(key) != key.encode():
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(keys(store)) == 80
