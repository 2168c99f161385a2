"""How Prefect's form shows the options of a job: what every run needs first, the rest in groups with titles.

The one thing to know: only the form is grouped. A flow still takes a job as the command line and Python make it, and a
deployment's parameters may name an option by itself or within its group; either way it becomes the same job.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline.jobs.distil import DistilJob
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.retrain import RetrainJob
from pipeline.jobs.segment import SegmentJob

PARTS = ("train", "evaluation", "relabel", "teaching", "predicted", "student", "truth")
"""Options that are themselves a few options: each is a group already."""

NOT_SHOWN = ("ray_address",)
"""`launch` says where a job runs. Parameters may still name a Ray for a job that runs here."""


@dataclass(frozen=True)
class Group:
    """Options that the form shows together."""

    title: str
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called in a deployment's parameters."""
        return self.title.lower().replace(" ", "_")


GROUPS = (
    Group("Images", ("sample", "include", "exclude", "key_list", "image_column", "follow_links", "limit", "where")),
    Group(
        "Annotations",
        ("train_split", "val_split", "eval_split", "preset", "labels", "mask_coding", "follow_links",
         "cache", "cache_bytes", "check_data", "record_examples"),
    ),
    Group(
        "Prediction",
        ("max_side", "precision", "engine", "snap", "window", "void_below", "flip", "scales", "deterministic"),
    ),
    Group("Results", ("masks", "features", "worst", "no_report", "log_images")),
    Group("Network", ("model_input", "new_head", "arch", "backbone", "width", "head_width", "dropout", "upsampling")),
    Group(
        "Course of training",
        ("recipe", "staged", "class_balance", "validate_every", "save_every", "log_every", "keep_checkpoints"),
    ),
    Group("Promotion", ("margin", "class_limit", "min_mean_iou")),
    Group(
        "Limits",
        ("max_error_rate", "abort_error_rate", "allow_errors", "allow_empty", "max_pixels", "image_timeout",
         "image_memory"),
    ),
    Group(
        "Speed and placement",
        ("device", "actors", "cpus_per_actor", "gpus_per_actor", "codec_workers", "batch_size", "shard_size",
         "workers", "cpus_per_worker", "use_gpu", "resources_per_worker", "placement", "backend", "backend_timeout",
         "network_interface", "nccl", "max_failures", "resize_interval", "placement_timeout"),
    ),
    Group("Run control", ("retry_errors", "repair", "fresh", "takeover")),
)  # fmt: skip
"""In the order of the form. A job's form has of each what the job has; options of no group come last, as "More"."""


@dataclass(frozen=True)
class Form:
    """Metadata of a flow's job: the options that stand first in its form, the groups of the others, and then those that
    have options of their own.
    """

    first: tuple[str, ...]
    groups: tuple[Group, ...]
    parts: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._ungrouped, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        job = handler.resolve_ref_schema(made)
        options: dict[str, Any] = job["properties"]
        shown = {name: options[name] | {"position": place} for place, name in enumerate(self.first)}
        for place, group in enumerate(self.groups, len(shown)):
            inside = {name: options[name] | {"position": at} for at, name in enumerate(group.options)}
            shown[group.name] = {
                "title": group.title,
                "description": f"{_listed(group.options)}.",
                # The form shows what may be null folded, until the other choice is pressed.
                "anyOf": [
                    {"title": "Change", "type": "object", "properties": inside, "additionalProperties": False},
                    {"type": "null"},
                ],
                "default": None,
                "position": place,
            }
        for place, name in enumerate(self.parts, len(shown)):
            shown[name] = options[name] | {"position": place}
            _leave_out(handler, options[name])
        # An option by itself, as parameters of other releases and of scripts have it: checked like one in its group.
        by_itself = {name: option for name, option in options.items() if name not in shown}
        job["properties"] = shown
        job["patternProperties"] = {f"^{re.escape(name)}$": option for name, option in by_itself.items()}
        return made

    def _ungrouped(self, job: Any) -> Any:
        if not isinstance(job, Mapping):
            return job
        options = dict(job)
        for group in self.groups:
            inside = options.pop(group.name, None)
            if inside is None:
                continue
            if not isinstance(inside, Mapping):
                raise PydanticCustomError("group", "{name} is a group of options, not a value", {"name": group.name})
            for name, value in inside.items():
                if name not in group.options:
                    raise PydanticCustomError(
                        "group", "{name} is no option of the group {group}", {"name": str(name), "group": group.name}
                    )
                if name in options:
                    raise PydanticCustomError(
                        "group", "{name} is given twice: by itself and in {group}", {"name": name, "group": group.name}
                    )
                options[name] = value
        return options


def _leave_out(handler: GetJsonSchemaHandler, part: JsonSchemaValue) -> None:
    """The same of a part of a job: what the form does not show is taken all the same."""
    for choice in part.get("anyOf", [part]):
        if "$ref" not in choice:
            continue
        options = handler.resolve_ref_schema({"$ref": choice["$ref"]})
        for name in NOT_SHOWN:
            if name in options["properties"]:
                options.setdefault("patternProperties", {})[f"^{name}$"] = options["properties"].pop(name)


def _listed(options: tuple[str, ...]) -> str:
    return ", ".join(name.replace("_", " ") for name in options).capitalize()


def form_of(job: type[BaseModel], *first: str) -> Form:
    """The form of a job: `first` are the options that stand before the groups. Parts of a job with options of their own
    stand after them.
    """
    left = [name for name in job.model_fields if name not in (*first, *NOT_SHOWN)]
    groups = []
    for place, group in enumerate(GROUPS):
        held = tuple(name for name in group.options if name in left)
        if held and not any(set(held) < set(later.options) for later in GROUPS[place + 1 :]):
            groups.append(Group(group.title, held))
            left = [name for name in left if name not in held]
    if others := tuple(name for name in left if name not in PARTS):
        groups.append(Group("More", others))
    return Form(first, tuple(groups), tuple(name for name in left if name in PARTS))


SegmentForm = Annotated[SegmentJob, form_of(SegmentJob, "source", "output", "model", "registry")]
EvaluateForm = Annotated[EvaluateJob, form_of(EvaluateJob, "dataset", "output", "model", "registry", "split")]
RetrainForm = Annotated[
    RetrainJob, form_of(RetrainJob, "dataset", "output", "name", "registry_name", "model", "registry")
]
DistilForm = Annotated[
    DistilJob, form_of(DistilJob, "source", "output", "name", "teacher", "registry_name", "registry", "quantize")
]
