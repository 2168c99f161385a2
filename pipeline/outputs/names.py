"""Names of files under OUTPUT that every store takes, however odd the key that they are made from."""

import hashlib

MAX_NAME_BYTES = 900
"""Longest name below OUTPUT: S3 stops at 1,024 bytes, OUTPUT's own prefix included."""


def of_generation(name: str, generation: int) -> str:
    """The name that a file has in a run of that generation: `a.png`, `a-1.png`, `a-2.png`, ...

    Generations are explained in `pipeline.outputs.generation`.
    """
    if not generation:
        return name
    stem, dot, extension = name.rpartition(".")
    return f"{stem}-{generation}{dot}{extension}"


def safe_path(key: str) -> str:
    """`key` as a relative path that every store keeps apart from others and inside its folder."""
    return "/".join(_safe_segment(segment) for segment in key.split("/"))


def _safe_segment(segment: str) -> str:
    if segment in ("", ".", ".."):
        return "%" + (segment.encode().hex() or "00")
    # %00 stands for an empty segment, so NUL, which no store takes in a key, needs another name.
    return "".join(
        "%z" if char == "\0" else f"%{ord(char):02x}" if ord(char) < 32 or ord(char) == 127 or char in "%\\" else char
        for char in segment
    )


def abridged(name: str, limit: int, suffix: str) -> str:
    """One path segment of at most `limit` bytes that stands for `name`, its beginning and a hash, and then `suffix`."""
    raw = name.encode()
    mark = "~" + hashlib.sha256(raw).hexdigest()[:32]
    return raw[: limit - len(mark)].decode(errors="ignore").replace("/", "_") + mark + suffix
