"""Progress of a run counts the images of shards, whatever their sizes and whoever committed them."""

from pipeline.actors.meter import Meter
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.actors.pool_progress import PoolProgress
from pipeline.outputs.runs import Counts


def outcome(shard: int, images: int, failed: int = 0) -> ShardOutcome:
    return ShardOutcome(shard, images, images - failed, {"truncated": failed} if failed else {}, (), 0)


def pool(in_flight: int = 0) -> PoolProgress:
    return PoolProgress(1, 1, 1, in_flight, 0, 0)


def test_a_resumed_run_whose_last_shard_is_small_is_done_at_its_end_and_never_goes_back() -> None:
    # 121 images in shards of 40, 40, 40 and 1; the one of 1 was committed before.
    meter = Meter("r", 121, 4, Observer())
    meter.start(Counts(images=1, ok=1), 1)
    done = [meter.update(pool()).done]
    for shard in range(3):
        done += [meter.update(pool(in_flight)).done for in_flight in (10, 30, 39)]
        meter.shard_done(outcome(shard, 40))
        done.append(meter.update(pool()).done)
    assert done == sorted(done)
    assert (done[0], done[-1]) == (1, 121)
    assert meter.update(pool()).eta_seconds in (0.0, None)


def test_errors_of_earlier_attempts_are_still_errors() -> None:
    meter = Meter("r", 80, 8, Observer())
    meter.start(Counts(images=50, ok=49, errors={"damaged": 1}), 5)
    meter.shard_done(outcome(5, 10, failed=2))
    progress = meter.update(pool())
    assert progress.counts == Counts(images=60, ok=57, errors={"damaged": 1, "truncated": 2})
    assert (progress.done, progress.shards_done) == (60, 6)
    assert meter.here == Counts(images=10, ok=8, errors={"truncated": 2}), "what --abort-error-rate looks at"
