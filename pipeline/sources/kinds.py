"""Which kinds of containers there are, by the ends of their keys."""

from pipeline.sources.kind import ContainerKind
from pipeline.sources.parquet import ParquetKind
from pipeline.sources.tar import TarKind

KINDS: tuple[ContainerKind, ...] = (TarKind(), ParquetKind())

SUFFIXES = tuple(kind.suffix for kind in KINDS)


def kind_of(key: str) -> ContainerKind | None:
    """The kind of the container that a key names, by its ending in any case; None for what is no container."""
    lower = key.lower()
    return next((kind for kind in KINDS if lower.endswith(kind.suffix)), None)
