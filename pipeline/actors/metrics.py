"""What is counted for Prometheus: one table of all metrics, and how they are recorded through Ray.

The dashboard in deploy/grafana and the table in docs/metrics.md are checked against METRICS. Ray's exporter puts `ray_`
before a name and `_total` behind a counter's.

The one thing to know: what is counted is counted by the driver, when it hears of a committed shard. So an image counts
once, however often its shard was tried and whatever became of the actors, and the counts are those of the run's report.
Actors only say how busy they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.util import metrics as ray_metrics

JobKind = Literal["segment", "evaluate", "train"]


@dataclass(frozen=True)
class Metric:
    """One metric. `unit` is what its value counts; `values` are those of its last tag that are known beforehand.

    The tag `kind` is the kind of job (`job` is a label of Prometheus's own). No tag has values without end: no keys, no
    runs.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    description: str
    tags: tuple[str, ...] = ("kind",)
    values: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """Its name where Prometheus finds it; a histogram's has `_bucket`, `_sum` and `_count` behind it."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


STAGES = ("fetch", "decode", "predict", "encode", "put", "commit", "truth", "score")

REASONS = (
    "access_denied",
    "archived",
    "changed",
    "damaged",
    "damaged_container",
    "decoder_crashed",
    "empty_file",
    "extra_missing",
    "file_too_large",
    "killed_worker",
    "link_refused",
    "missing",
    "not_an_image",
    "out_of_memory",
    "prediction_failed",
    "storage",
    "timed_out",
    "too_many_pixels",
    "truncated",
    "unsupported_format",
    "unsupported_member",
)
"""The usual reasons of error rows, which are counted from zero; others are counted as they come."""

IMAGES = Metric(
    "fcn_images", "counter", "images", "images in committed shards: with a mask (ok), or with a reason why not (error)",
    ("kind", "status"), ("ok", "error"),
)  # fmt: skip
ERRORS = Metric("fcn_errors", "counter", "images", "error rows of committed shards", ("kind", "reason"), REASONS)
PIXELS = Metric("fcn_pixels", "counter", "pixels", "pixels of the images that were labelled or scored")
READ_BYTES = Metric("fcn_read_bytes", "counter", "bytes", "bytes of images read from storage")
WRITTEN_BYTES = Metric("fcn_written_bytes", "counter", "bytes", "bytes of masks written to storage")
STAGE_SECONDS = Metric(
    "fcn_stage_seconds", "counter", "seconds",
    "time spent in each stage, summed over the threads that work on it: usually more than one second per second",
    ("kind", "stage"), STAGES,
)  # fmt: skip
SHARDS = Metric("fcn_shards", "counter", "shards", "committed shards")
SHARD_SECONDS = Metric(
    "fcn_shard_seconds", "histogram", "seconds",
    "from handing a shard to an actor to hearing of its commit, two of them at a time",
    boundaries=(1, 2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 3600),
)  # fmt: skip
SHARD_RETRIES = Metric(
    "fcn_shard_retries", "counter", "shards",
    "shards tried again: storage failed, or the actor was lost, stood still or read nothing",
    ("kind", "reason"), ("storage", "actor_lost", "stands_still", "refused"),
)  # fmt: skip
ACTOR_RESTARTS = Metric("fcn_actor_restarts", "counter", "actors", "actors that were lost, or failed to start")

ACTORS_READY = Metric("fcn_actors_ready", "gauge", "actors", "actors that are up")
ACTORS_WANTED = Metric("fcn_actors_wanted", "gauge", "actors", "actors that there should be")
SHARDS_IN_FLIGHT = Metric("fcn_shards_in_flight", "gauge", "shards", "shards that actors work on, two each at most")
RUN_SHARDS = Metric("fcn_run_shards", "gauge", "shards", "shards of the present run")
RUN_SHARDS_DONE = Metric("fcn_run_shards_done", "gauge", "shards", "shards of the present run that are committed")
RUN_IMAGES = Metric("fcn_run_images", "gauge", "images", "images of the present run")
RUN_IMAGES_DONE = Metric(
    "fcn_run_images_done", "gauge", "images", "images of the present run that are done, in uncommitted shards too"
)
RUN_IMAGES_PER_SECOND = Metric(
    "fcn_run_images_per_second",
    "gauge",
    "images per second",
    "current speed of the present run: over the last minute, from the first actor on",
)
RUN_SECONDS_LEFT = Metric(
    "fcn_run_seconds_left", "gauge", "seconds", "time that the present run still takes at that speed"
)
DEVICE_BUSY = Metric(
    "fcn_device_busy_ratio", "gauge", "share", "share of the last minute in which an actor's model was at work, 0 to 1"
)

TRAIN_STEP = Metric("fcn_train_step", "gauge", "steps", "step of the present stage", ("arch",))
TRAIN_STEPS = Metric("fcn_train_steps", "gauge", "steps", "steps that the present stage has", ("arch",))
TRAIN_WORKERS = Metric("fcn_train_workers", "gauge", "workers", "training workers at work", ("arch",))
TRAIN_LOSS = Metric("fcn_train_loss", "gauge", "nats", "training loss, latest", ("arch",))
TRAIN_MEAN_IOU = Metric(
    "fcn_train_val_mean_iou", "gauge", "share", "mean IoU on the validation split, latest, 0 to 1", ("arch",)
)
TRAIN_IMAGES_PER_SECOND = Metric(
    "fcn_train_images_per_second", "gauge", "images per second", "speed of all workers together", ("arch",)
)
TRAIN_SECONDS_LEFT = Metric(
    "fcn_train_seconds_left", "gauge", "seconds", "time that the present stage still takes", ("arch",)
)
TRAIN_FAILURES = Metric("fcn_train_failures", "counter", "failures", "times that workers failed and began again", ())

METRICS = (
    IMAGES, ERRORS, PIXELS, READ_BYTES, WRITTEN_BYTES, STAGE_SECONDS, SHARDS, SHARD_SECONDS, SHARD_RETRIES,
    ACTOR_RESTARTS, ACTORS_READY, ACTORS_WANTED, SHARDS_IN_FLIGHT, RUN_SHARDS, RUN_SHARDS_DONE, RUN_IMAGES,
    RUN_IMAGES_DONE, RUN_IMAGES_PER_SECOND, RUN_SECONDS_LEFT, DEVICE_BUSY,
    TRAIN_STEP, TRAIN_STEPS, TRAIN_WORKERS, TRAIN_LOSS, TRAIN_MEAN_IOU, TRAIN_IMAGES_PER_SECOND, TRAIN_SECONDS_LEFT,
    TRAIN_FAILURES,
)  # fmt: skip

_KINDS: dict[str, Any] = {
    "counter": ray_metrics.Counter,
    "gauge": ray_metrics.Gauge,
    "histogram": ray_metrics.Histogram,
}


class Recorder:
    """Records what one process has to tell of one kind of job. Where Ray is not in use, nothing is recorded.

    A gauge is forgotten by Ray's exporter about 20 seconds after it was last set: set it again while it holds.
    """

    def __init__(self, kind: JobKind) -> None:
        self._kind = kind
        self._instruments: dict[str, Any] = {}

    def begin(self, counters: Iterable[Metric]) -> None:
        """Show counters as zero: what Prometheus sees for the first time at 50 has not grown, as it understands it."""
        for metric in counters:
            for value in metric.values or ("",):
                self._record(metric, 0.0, {metric.tags[-1]: value} if value else {})

    def add(self, metric: Metric, amount: float, **tags: str) -> None:
        """Let a counter grow; not by a negative amount."""
        if amount > 0:
            self._record(metric, amount, tags)

    def set(self, metric: Metric, value: float | None, **tags: str) -> None:
        """Set a gauge; None leaves it alone."""
        if value is not None:
            self._record(metric, value, tags)

    def observe(self, metric: Metric, value: float, **tags: str) -> None:
        """Count a value into a histogram."""
        self._record(metric, value, tags)

    def _record(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        if not ray.is_initialized():
            return
        instrument = self._instruments.get(metric.name)
        if instrument is None:
            # Not before Ray is in use: what is recorded into an instrument that is older is lost.
            bounds = {"boundaries": list(metric.boundaries)} if metric.boundaries else {}
            make = _KINDS[metric.kind]
            instrument = make(metric.name, description=metric.description, tag_keys=metric.tags, **bounds)
            self._instruments[metric.name] = instrument
        # Counter.inc, Gauge.set and Histogram.observe are checks around this; the first refuses a zero.
        kind = {"kind": self._kind} if "kind" in metric.tags else {}
        instrument._record(value, {**kind, **tags})
