"""A target that takes more memory than it states, to show that this is found and kept, too."""

import time
from collections.abc import Iterable

MEMORY_MB = 256


def seeds() -> Iterable[bytes]:
    yield b"a" * 8


def check(data: bytes) -> None:
    held = bytearray(b"x") * (512 << 20)
    time.sleep(3)  # the fuzzer looks once a second
    assert held
