"""Which options of `fcn segment` stand together on its help page, what a newcomer needs first."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from pydantic import create_model

from pipeline.jobs.segment import SegmentOptions

GROUPS = {
    "Source and output": (
        "source", "output", "include", "exclude", "key_list", "image_column", "follow_links", "limit", "masks",
        "features",
    ),
    "Model": (
        "model", "registry", "max_side", "precision", "engine", "snap", "window", "void_below", "flip", "scales",
        "deterministic",
    ),
    "Speed and placement": (
        "device", "actors", "cpus_per_actor", "gpus_per_actor", "codec_workers", "batch_size", "shard_size",
        "ray_address", "placement_timeout",
    ),
    "Limits": ("max_pixels", "image_timeout", "image_memory", "max_error_rate", "abort_error_rate"),
    "Run control": (
        "config", "dry_run", "prices", "json", "where", "retry_errors", "repair", "fresh", "takeover", "no_report",
        "allow_empty", "log_format", "log_images",
    ),
}  # fmt: skip
"""Groups in the order of the page, and the options in each."""

_GROUPS = {title: Group(title, sort_key=order) for order, title in enumerate(GROUPS)}

SOURCE_AND_OUTPUT = Parameter(group=_GROUPS["Source and output"])
RUN_CONTROL = Parameter(group=_GROUPS["Run control"])


def _grouped() -> type[SegmentOptions]:
    fields: dict[str, Any] = {}
    for title, names in GROUPS.items():
        for name in names:
            if name in SegmentOptions.model_fields:
                field = SegmentOptions.model_fields[name]
                parts: Any = (field.annotation, *field.metadata, Parameter(group=_GROUPS[title]))
                fields[name] = (Annotated[parts], field)
    return create_model("SegmentOptions", __base__=SegmentOptions, **fields)


if TYPE_CHECKING:
    GroupedSegmentOptions = SegmentOptions
else:
    GroupedSegmentOptions = _grouped()
