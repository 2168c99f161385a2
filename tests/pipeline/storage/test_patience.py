"""Whatever asks storage waits for it as reads do: listings, page by page, and keys that must be renewed."""

from collections.abc import Callable, Iterator

import boto3
import pytest

from pipeline.errors import AccessDenied, ObjectChanged, StorageError, StorageUnavailable
from pipeline.storage import patience, s3
from pipeline.storage.opening import open_store
from pipeline.storage.patience import ask_patiently
from pipeline.storage.store import StorageOptions, Store
from tests.faulty_s3 import FaultyS3

PATIENT = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=60, check_seconds=60)
KEYS = [f"{number:03d}" for number in range(60)]
STALE_KEYS = ("400 ExpiredToken", "400 InvalidToken", "403 RequestTimeTooSkewed")


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyS3, bucket: str) -> Store:
    client = boto3.client("s3")
    for key in KEYS:
        client.put_object(Bucket=bucket, Key=key, Body=b"x" * 100)
    return open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", PATIENT)


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list()]


def test_a_listing_gets_over_more_resets_than_a_client_retries_and_goes_on_from_its_last_page(
    proxy: FaultyS3, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client's threads share 35 retries in all."""
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    monkeypatch.setattr(patience, "_LONGEST_PAUSE", 0.2)
    listing = store.list()
    found = [next(listing).key for _ in range(4)]
    proxy.faults = ["reset"] * 50
    found += [info.key for info in listing]
    assert found == KEYS
    assert proxy.suffered["reset"] == 50
    from_the_start = [path for _, path in proxy.requests if "start-after" not in path]
    assert len(from_the_start) == 1


@pytest.mark.parametrize("way", ["empty", "page", "error_200", "cut", "unavailable", "503 SlowDown", "silence"])
def test_a_page_that_comes_as_something_else_once_does_not_end_a_listing(
    proxy: FaultyS3, store: Store, way: str
) -> None:
    store = open_store(store.uri, StorageOptions(connect_seconds=2, read_seconds=1, retry_seconds=60))
    proxy.faults = [way]
    assert keys(store) == KEYS
    assert proxy.faults == []


def test_a_listing_of_a_service_that_stays_away_ends_with_a_sentence(proxy: FaultyS3, store: Store) -> None:
    hasty = open_store(store.uri, StorageOptions(connect_seconds=1, read_seconds=1, retry_seconds=0.3))
    proxy.faults = ["page"] * 1000
    with pytest.raises(StorageUnavailable, match="broke off the connection or its answer"):
        keys(hasty)


@pytest.mark.parametrize("way", STALE_KEYS)
@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get("001"),
        lambda store: store.put("new", b"1"),
        lambda store: store.create("new", b"1"),
        lambda store: store.delete("001"),
        lambda store: keys(store),
        lambda store: store.check_readable(),
        lambda store: store.check_writable(),
    ],
    ids=["get", "put", "create", "delete", "list", "preflight", "preflight of an output"],
)
def test_keys_that_are_not_accepted_once_are_renewed_and_asked_with_again(
    proxy: FaultyS3, store: Store, way: str, call: Callable[[Store], object]
) -> None:
    proxy.faults = [way]
    call(store)
    assert proxy.faults == []


def test_head_whose_answers_have_no_code_renews_keys_by_the_status(proxy: FaultyS3, store: Store) -> None:
    proxy.faults = ["400 ExpiredToken"]
    assert store.head("001").size == 100
    assert proxy.faults == []


def test_keys_that_are_never_accepted_are_renewed_once_and_then_said(proxy: FaultyS3, store: Store) -> None:
    proxy.faults = ["400 ExpiredToken"] * 100
    with pytest.raises(AccessDenied, match=r"does not accept the credentials \(ExpiredToken\)"):
        store.get("001")
    assert proxy.suffered["400 ExpiredToken"] == 2


def refused(times: int, kind: type[StorageError]) -> Callable[[], int]:
    """A call that raises so often, and then returns how often it was made."""
    calls = 0

    def ask() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise kind("no")
        return calls

    return ask


def explain(error: Exception) -> StorageError:
    assert isinstance(error, StorageError)
    return error


def test_more_tries_than_time_allows_are_made_where_the_profile_wants_them() -> None:
    assert ask_patiently(refused(3, StorageUnavailable), explain, seconds=0, attempts=4) == 4
    with pytest.raises(StorageUnavailable):
        ask_patiently(refused(3, StorageUnavailable), explain, seconds=0, attempts=3)


def test_what_waiting_cannot_mend_is_not_waited_for() -> None:
    with pytest.raises(ObjectChanged):
        ask_patiently(refused(1, ObjectChanged), explain, seconds=60)
