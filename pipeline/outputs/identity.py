"""What makes two pieces of work the same.

The identity of a piece of work is (key, etag, model_id, params_id). Names of masks follow from it (`mask_formats`), so
a mask is never overwritten by another model, by other settings, or by a newer image under the same key.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

Identity = tuple[str, str]
"""Key and etag of an image."""


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
