"""A target with a fault in it, to show that the fuzzer finds and keeps what it is there to find."""

from collections.abc import Iterable

MEMORY_MB = 512


def seeds() -> Iterable[bytes]:
    yield b"a" * 8


def check(data: bytes) -> None:
    if data.startswith(b"b"):
        raise KeyError("planted")
