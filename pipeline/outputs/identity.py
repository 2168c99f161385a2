"""What makes two pieces of work the same, and the names that follow from it.

The identity of a piece of work is (key, etag, model_id, params_id). A mask's name is a function of it, so a mask is
never overwritten by another model, by other settings, or by a newer photo under the same key.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

Identity = tuple[str, str]
"""Key and etag of an image."""

MAX_SEGMENT_BYTES = 200
"""Longest path segment in a mask's name: local file systems stop at 255 bytes, and the writer's suffix needs room."""

MAX_NAME_BYTES = 900
"""Longest mask name: S3 stops at 1,024 bytes, OUTPUT's own prefix included."""


def digest(value: object, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def params_id(params: Mapping[str, object]) -> str:
    """Digest of the settings that can change a mask: engine, precision, tiling, threads, batching."""
    return digest(dict(params))


@dataclass(frozen=True, slots=True)
class Recipe:
    """How masks are made: which model, with which settings."""

    model_id: str
    params_id: str

    @property
    def name(self) -> str:
        """Eight hex digits that stand for both, as the folder under OUTPUT/masks."""
        return digest([self.model_id, self.params_id], 8)

    def mask_key(self, key: str, etag: str, generation: int = 0) -> str:
        """Where under OUTPUT the mask of the image `key` with `etag` lives, for a run of that generation.

        Different (key, etag) give different names. Segments that no store would keep apart or inside OUTPUT (`..`,
        empty, control characters) are percent-encoded; names too long for a store are cut and told apart by a hash.
        """
        return self.mask_keys(key, etag, generation)[0]

    def mask_keys(self, key: str, etag: str, generation: int = 0) -> tuple[str, str]:
        """`mask_key`, and where the mask lives in a store that refuses that name."""
        usual, short = (f"masks/{self.name}/{of_generation(name, generation)}" for name in mask_names(key, etag))
        return usual, short


def mask_names(key: str, etag: str) -> tuple[str, str]:
    """A mask's name in the folder of its recipe, whichever that is, in a run of generation 0; and a short one.

    The short one is all hash, for stores that refuse the usual one: too long below OUTPUT, or the name of a folder.
    """
    name = f"{safe_path(key)}.{digest(etag, 8)}.png"
    usual = _shorten(name, MAX_NAME_BYTES - len("masks/01234567/"))
    return usual, f"~{hashlib.sha256(name.encode()).hexdigest()[:32]}.{digest(etag, 8)}.png"


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


def _shorten(name: str, limit: int) -> str:
    """`name` with what is too long replaced by its beginning and a hash; the suffixes stay."""
    segments = [_cut(segment) if len(segment.encode()) > MAX_SEGMENT_BYTES else segment for segment in name.split("/")]
    short = "/".join(segments)
    return short if len(short.encode()) <= limit else _cut(name)


def _cut(segment: str) -> str:
    suffix = segment[-13:] if segment.endswith(".png") else ""  # ".<etag8>.png", all ASCII
    return abridged(segment, MAX_SEGMENT_BYTES - 13, suffix)


def abridged(name: str, limit: int, suffix: str) -> str:
    """One path segment of at most `limit` bytes that stands for `name`, its beginning and a hash, and then `suffix`."""
    raw = name.encode()
    mark = "~" + hashlib.sha256(raw).hexdigest()[:32]
    return raw[: limit - len(mark)].decode(errors="ignore").replace("/", "_") + mark + suffix
