"""Where the workers of a job stand, as a pool or a lone worker reports it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PoolProgress:
    """Where the pool stands: `images_in_flight` are finished in shards that are not committed yet."""

    ready: int
    wanted: int
    shards_in_flight: int
    images_in_flight: int
    restarts: int
    retries: int
