"""What becomes of a shard, for the driver; and what an error row says of an image that failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import (
    AccessDenied,
    ImageError,
    LinkRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)
from pipeline.outputs.results import Tally

KILLED = "Working on this image alone killed the process three times, outside the decoder; the Ray logs may say why."

MAX_EXAMPLES = 3
"""Error rows quoted in a shard's outcome; all of them are in its results file."""


@dataclass(frozen=True)
class ErrorExample:
    """One image that failed, to show a person."""

    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class ShardOutcome:
    """What the driver hears of a committed shard."""

    shard: int
    images: int
    ok: int
    errors: Mapping[str, int]
    examples: tuple[ErrorExample, ...]
    pixels: int
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    read_bytes: int = 0
    written_bytes: int = 0
    attempt: int = 1
    seconds: float = 0.0
    image_lines: tuple[dict[str, str], ...] | None = None
    """What a log says of each image, where it is asked to."""

    def for_log(self) -> dict[str, object]:
        """What a log line says of it; stage seconds are sums over threads."""
        reasons = ",".join(f"{reason}:{count}" for reason, count in sorted(self.errors.items()))
        return {
            "shard": self.shard,
            "attempt": self.attempt,
            "images": self.images,
            "ok": self.ok,
            "errors": self.images - self.ok,
            "reasons": reasons or None,
            "seconds": self.seconds,
            **{f"{stage}_s": seconds for stage, seconds in self.stage_seconds.items()},
        }


_STORAGE_REASONS = {
    ObjectArchived: "archived",
    ObjectChanged: "changed",
    ObjectMissing: "missing",
    AccessDenied: "access_denied",
    LinkRefused: "link_refused",
}


def error_reason(error: ImageError | StorageError) -> tuple[str, str]:
    """What an error row says: a stable code to group by, and the sentence for a person."""
    if isinstance(error, ImageError):
        return error.reason, error.message
    reason = next((reason for kind, reason in _STORAGE_REASONS.items() if isinstance(error, kind)), "storage")
    return reason, str(error)
