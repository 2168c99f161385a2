"""Fuzz targets: what reads bytes that strangers made, and the fuzzer that makes such bytes up.

A target is a module with `seeds() -> Iterable[bytes]`, sound inputs to start from, `check(data: bytes)`, which raises
when something but the documented errors comes out, and MEMORY_MB, which its process must never take more than.
`python -m tests.fuzz.run` runs them.
"""
