"""Credentials that end: renewed in good time, waited for where they cannot be, and named as what they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, StorageError, StorageUnavailable
from pipeline.storage import s3_credentials
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions
from tests.faulty_s3 import FaultyS3

PATIENT = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=60, check_seconds=60)
HASTY = StorageOptions(connect_seconds=2, read_seconds=5, retry_seconds=0.3, check_seconds=0.3)

KEYS = '{{"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": "%s"}}'
BROKER = (
    """#!/bin/sh
left=$(cat {folder}/away)
echo asked >> {folder}/asked
if [ "$left" -gt 0 ]; then echo $((left - 1)) > {folder}/away; echo hush-hush >&2; exit 1; fi
end=$(date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ)
printf '"""
    + KEYS
    + """' "$end"
"""
)


@dataclass(frozen=True)
class Broker:
    """The `credential_process` of the profile `worker`."""

    folder: Path

    def go_away(self, times: int) -> None:
        (self.folder / "away").write_text(str(times))

    @property
    def asked(self) -> int:
        return (self.folder / "asked").read_text().count("asked") if (self.folder / "asked").exists() else 0


def make_broker(folder: Path, seconds: int) -> Broker:
    """One whose keys live for so many `seconds`."""
    script = folder / "broker.sh"
    script.write_text(BROKER.format(folder=folder, seconds=seconds))
    script.chmod(0o755)
    broker = Broker(folder)
    broker.go_away(0)
    return broker


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> Path:
    path = tmp_path / "config"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setattr(s3_credentials, "_PAUSE", 0.05)
    return path


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint) as proxy:
        yield proxy


def test_a_broker_that_is_away_is_waited_for_as_s3_is(config: Path, bucket: str, tmp_path: Path) -> None:
    """Keys that live no longer than four seconds are never used for another request."""
    broker = make_broker(tmp_path, seconds=4)
    config.write_text(f"[profile worker]\ncredential_process = {tmp_path}/broker.sh\n")
    store = open_store(f"s3://{bucket}?profile=worker", PATIENT)
    store.put("k", b"1")
    for call in (lambda: store.get("k"), lambda: store.put("k", b"2"), lambda: list(store.list())):
        broker.go_away(2)
        call()
        assert (tmp_path / "away").read_text().strip() == "0"


def test_a_broker_that_stays_away_is_named_and_what_it_says_is_not_repeated(
    config: Path, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker = make_broker(tmp_path, seconds=4)
    config.write_text(f"[profile worker]\ncredential_process = {tmp_path}/broker.sh\n")
    store = open_store(f"s3://{bucket}?profile=worker", HASTY)
    store.put("k", b"1")
    broker.go_away(1000)
    words = "credentials of profile worker could not be renewed: the credential_process of the profile failed"
    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b"2"),
        lambda: list(store.list()),
        store.check_readable,
    ):
        with pytest.raises(StorageUnavailable, match=words) as caught:
            call()
        assert "hush" not in str(caught.value)
    assert "hush" not in caplog.text


def test_keys_that_are_valid_yet_are_used_while_the_broker_is_away(
    config: Path,
    bucket: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_credentials, "_LAST_SECONDS", 0)
    broker = make_broker(tmp_path, seconds=10)  # they are renewed from the first moment on
    config.write_text(f"[profile worker]\ncredential_process = {tmp_path}/broker.sh\n")
    store = open_store(f"s3://{bucket}?profile=worker", HASTY)
    store.put("k", b"1")
    broker.go_away(1000)
    assert store.get("k") == b"1"
    assert any("not renewed, the old ones still work" in record.getMessage() for record in caplog.records)


def test_keys_that_live_for_a_minute_are_not_asked_for_with_each_request(
    config: Path, bucket: str, tmp_path: Path
) -> None:
    broker = make_broker(tmp_path, seconds=65)
    config.write_text(f"[profile worker]\ncredential_process = {tmp_path}/broker.sh\n")
    store = open_store(f"s3://{bucket}?profile=worker", HASTY)
    store.put("k", b"1")
    for _ in range(20):
        store.get("k")
    assert broker.asked <= 2  # not for each request


def test_a_profile_that_is_not_there_is_one_sentence_for_every_call(config: Path, bucket: str) -> None:
    store = open_store(f"s3://{bucket}?profile=nobody", HASTY)
    for call in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: list(store.list()), store.check_readable):
        with pytest.raises(AccessDenied, match="nobody") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.fixture
def role(config: Path, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> FaultyS3:
    """STS, which a profile `role` asks; its requests are the only ones here that are posted."""
    config.write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/worker\ncredential_source = Environment\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", proxy.endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.matches = lambda method, path: method == "POST"
    return proxy


@pytest.mark.parametrize("way", ["reset", "503 ServiceUnavailable", "400 Throttling", "empty"])
def test_sts_that_is_away_is_waited_for_as_s3_is(role: FaultyS3, bucket: str, way: str) -> None:
    role.faults = [way] * 3
    open_store(f"s3://{bucket}?profile=role", PATIENT).put("k", b"1")
    assert role.faults == []


def test_what_sts_answers_is_said(role: FaultyS3, bucket: str) -> None:
    store = open_store(f"s3://{bucket}?profile=role", HASTY)
    role.faults = ["503 ServiceUnavailable"] * 100
    with pytest.raises(
        StorageUnavailable, match="of profile role could not be renewed: STS answers ServiceUnavailable"
    ):
        store.get("k")
    role.faults = ["403 AccessDenied"] * 100
    with pytest.raises(AccessDenied, match="of profile role could not be renewed: STS answers AccessDenied"):
        store.get("k")


SSO = """
sso_account_id = 123456789012
sso_role_name = worker
sso_region = us-east-1
sso_start_url = https://example.invalid/start
"""


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (SSO, r"the SSO session has ended; run `aws sso login --profile worker`"),
        (
            "role_arn = arn:aws:iam::123456789012:role/x\nsource_profile = nobody\n",
            r'source_profile "nobody" .* does not exist',
        ),
        (
            "role_arn = arn:aws:iam::123456789012:role/x\ncredential_source = Environment\n"
            "mfa_serial = arn:aws:iam::123456789012:mfa/me\n",
            "credentials of profile worker want an MFA code, which nobody can type here",
        ),
    ],
    ids=["sso", "source_profile", "mfa"],
)
def test_what_only_a_person_can_mend_is_said_at_once_with_the_remedy(
    config: Path, bucket: str, profile: str, words: str
) -> None:
    config.write_text("[profile worker]\n" + profile)
    store = open_store(f"s3://{bucket}?profile=worker", PATIENT)
    for call in (store.check_readable, lambda: store.get("k")):
        with pytest.raises(StorageError, match=words) as caught:
            call()
        assert isinstance(caught.value, AccessDenied)


def test_a_file_of_credentials_that_was_rewritten_is_read_again(
    config: Path, proxy: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    words = "[default]\naws_access_key_id = %s\naws_secret_access_key = s\naws_session_token = t\n"
    (tmp_path / "credentials").write_text(words % "OLDKEY")
    store = open_store(f"s3://{bucket}?endpoint_url={proxy.endpoint}", PATIENT)
    store.put("k", b"1")
    (tmp_path / "credentials").write_text(words % "NEWKEY")
    proxy.faults = ["400 ExpiredToken"]
    assert store.get("k") == b"1"
    assert "NEWKEY" in proxy.headers[-1]["authorization"]
