"""A server that cannot prove who it is gets nothing, and one whose certificate the user vouches for works."""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.errors import StorageError, StorageUnavailable, UntrustedCertificate
from pipeline.storage.opening import open_store
from pipeline.storage.store import StorageOptions, Store
from tests.faulty_s3 import FaultyS3

IMPATIENT = StorageOptions(connect_seconds=2, read_seconds=2, retry_seconds=0.5, check_seconds=2)


Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Authority:
    """`root`: the certificate of an authority that nobody knows; `server`: a key, and its certificate for 127.0.0.1."""

    root: Path
    server: Path


def signed(name: str, key: Key, issuer: str, issuer_key: Key) -> x509.Certificate:
    subject, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    now, here = datetime.now(UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder(
            by, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder, pem = tmp_path_factory.mktemp("tls"), serialization.Encoding.PEM
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    made = Authority(folder / "root.pem", folder / "server.pem")
    made.root.write_bytes(signed("nobody's root", root_key, "nobody's root", root_key).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made.server.write_bytes(private + signed("server", key, "nobody's root", root_key).public_bytes(pem))
    return made


@pytest.fixture
def server(s3_endpoint: str, authority: Authority) -> Iterator[FaultyS3]:
    with FaultyS3(s3_endpoint, certificate=str(authority.server)) as server:
        yield server


CALLS: dict[str, Callable[[Store], object]] = {
    "preflight": lambda store: store.check_readable(),
    "list": lambda store: list(store.list()),
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("new", b"1"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_certificate_is_refused(server: FaultyS3, bucket: str, call: str) -> None:
    store = open_store(f"s3://{bucket}?endpoint_url={server.endpoint}", IMPATIENT)
    with pytest.raises(StorageUnavailable, match="certificate that is not trusted"):
        CALLS[call](store)
    assert server.requests == [], "nothing was sent before the certificate was seen"


def test_an_unknown_certificate_is_not_waited_for(server: FaultyS3, bucket: str) -> None:
    patient = StorageOptions(connect_seconds=2, read_seconds=2, retry_seconds=3600, check_seconds=3600)
    store = open_store(f"s3://{bucket}?endpoint_url={server.endpoint}", patient)
    for call in CALLS.values():
        with pytest.raises(UntrustedCertificate):
            call(store)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_of_certificates_that_is_not_there_is_said_at_once(
    bucket: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "~/nowhere.pem")
    store = open_store(f"s3://{bucket}", StorageOptions(retry_seconds=3600, check_seconds=3600))
    for call in CALLS.values():
        with pytest.raises(StorageError, match=r"certificates at .*/nowhere.pem cannot be read .*No such file"):
            call(store)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("at_home", [False, True])
def test_an_authority_that_the_user_vouches_for_is_trusted(
    server: FaultyS3, bucket: str, authority: Authority, variable: str, at_home: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(authority.root.parent))
    monkeypatch.setenv(variable, "~/root.pem" if at_home else str(authority.root))
    store = open_store(f"s3://{bucket}?endpoint_url={server.endpoint}", IMPATIENT)
    store.check_readable()
    store.put("k", b"1")
    assert store.get("k") == b"1"
    assert [info.key for info in store.list()] == ["k"]
