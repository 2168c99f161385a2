"""In what parts a large file goes to object storage."""

from pathlib import Path

PART_BYTES = 8 << 20
"""Of most uploads; services take 5 MiB at least."""

_MOST_PARTS = 9_000
"""S3 takes 10,000."""


def parts_of(path: Path) -> int:
    """Bytes of each part of a file's upload."""
    return max(PART_BYTES, -(-path.stat().st_size // _MOST_PARTS))
