"""The options of a training job, defined once: for the command line, for job files, for the Prefect form.

The one thing to know: what decides the weights (data, network, recipe) is a run's identity and fixed by its first
start; what decides only where and how fast it runs (workers, GPUs, placement, patience) may change at every start.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)

from fcn_core.models.architecture import Doubling
from fcn_core.models.backbones import BackboneName
from fcn_core.models.networks import ARCHS, ArchName, network_spec
from fcn_core.options import Options
from fcn_core.training.class_balance import ClassBalance
from fcn_core.training.config import LoopPlan, RecipeName, TrainConfig, recipe
from pipeline.jobs.affects import DRIVER, DRIVER_ONCE
from pipeline.jobs.dataset import DatasetOptions
from pipeline.jobs.held_out import with_parts
from pipeline.storage.uri import Uri

_MOST_WORKERS = 65_536
_LONGEST_WAIT = 1e8
"""Seconds: three years. Ray and gloo count some of these waits in 64-bit nanoseconds."""

PlacementStrategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


def optional(model: type[BaseModel], leave_out: frozenset[str] = frozenset(), **kinds: Any) -> type[BaseModel]:
    """A model of the same fields, none of which has to be given; `model_fields_set` tells which were.

    `kinds` gives fields another type. Defaults stand in the descriptions, so that a form or --help shows them.
    """
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in leave_out:
            continue
        kind: Any = kinds.get(name, field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = optional(kind)
        description = field.description or ""
        default = None if field.is_required() else field.default
        if isinstance(default, (str, int, float)) and not isinstance(default, bool) and "Default:" not in description:
            description += f" Default: {default}."
        if field.metadata and name not in kinds:
            kind = Annotated[(kind, *field.metadata)]
        fields[name] = (kind | None, Field(default=None, description=description))
    return create_model(f"Optional{model.__name__}", __base__=Options, **fields)


if TYPE_CHECKING:
    TrainOverrides = TrainConfig
else:
    TrainOverrides = optional(TrainConfig, leave_out=frozenset({"device"}))  # that is what use_gpu decides


def _worker_range(value: Any) -> Any:
    """2, "2", [1, 4], "1,4" and "1-4" as (least, most)."""
    if isinstance(value, str):
        value = [part.strip() for part in value.replace("-", ",").split(",")]
    if isinstance(value, int):
        value = [value]
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return (value[0], value[0])
    return value


WorkerCount = Annotated[int, Field(le=100_000)]

Workers = Annotated[
    tuple[WorkerCount, WorkerCount], BeforeValidator(_worker_range, json_schema_input_type=int | str | list[int])
]


class TrainJob(DatasetOptions, LoopPlan):
    """Train a network on a data set, with Ray Train, and keep everything under `output`/`name`."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="The run's name: the same name and the same job resume it.",
    )
    output: Uri = Field(description="Where runs are kept: a folder, s3://, gs:// or az://.")
    train_split: str = Field("train", description="The split to train on.")
    val_split: str | None = Field(
        "val",
        description="The split to validate on; empty: the last model is the best. In a job file also groups of "
        "train_split: {by: folder, hold_out: [names]} or {by: folder, share: 0.2}; by folder, prefix, image, or "
        "column, with column: the name of one in the manifest.",
    )

    model: Uri | None = Field(
        None,
        description="What to start from: a model bundle, registry:<name>, or a weight file (.safetensors, .pth, "
        ".caffemodel). Default: a new network.",
    )
    model_input: Literal["caffe", "imagenet"] | None = Field(
        None,
        description="What a weight file's network takes: caffe (BGR 0..255 less a mean) or imagenet (RGB 0..1, "
        "normalised). Default: by whose names the file uses.",
    )
    new_head: bool = Field(False, description="Make new score layers if the start model has other classes.")
    arch: ArchName | None = Field(None, description="The network. Default: the start model's, else fcn8s.")
    backbone: BackboneName | None = Field(None, description="Backbone network. Default: the model's, else vgg16.")
    width: float | None = Field(None, gt=0, le=64, description="Factor on the backbone's channels. Default: 1.")
    head_width: int | None = Field(None, ge=1, le=65_536, description="Channels of fc6 and fc7. Default: by backbone.")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout probability after fc6 and fc7.")
    upsampling: Doubling | None = Field(None, description="How coarse scores are doubled: learned, or fixed bilinear.")

    recipe: RecipeName = Field("modern", description="The training settings that `train` changes.")
    staged: bool | None = Field(
        None, description="Train 32s, 16s and 8s one after the other, as the paper does. Default: if recipe is paper."
    )
    class_balance: ClassBalance = Field(
        "none",
        description="Weight rare classes more, by how often they occur in the split's masks: median (of the images "
        "that hold them), log (milder), or median_share (of all pixels, which 0.1 called median).",
    )
    train: TrainOverrides = Field(
        default_factory=TrainOverrides, description="What differs from the recipe: epochs, batch_size, ..."
    )
    check_data: bool = Field(
        True,
        description="Read all images and masks once before the first step: name what cannot be trained on, find images "
        "of val_split among those of train_split, and keep which images the model has seen.",
    )
    record_examples: bool = Field(False, description="Keep the names of what each worker saw at each step.")

    keep_checkpoints: int = Field(
        0,
        ge=0,
        le=2,
        description="Newest checkpoints that stay when the training is finished; until then two do. Each is three "
        "times as large as the weights.",
    )

    workers: Workers = Field(
        (1, 1), description="Worker processes: a number, or [least, most] to use what the cluster has at the time."
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, le=_MOST_WORKERS, description="CPUs, and threads, per worker. Default: a fair share."
    )
    use_gpu: bool | None = Field(None, description="A GPU for each worker. Default: where the cluster has GPUs.")
    resources_per_worker: dict[str, Annotated[float, Field(ge=0, le=1e18)]] = Field(
        default_factory=dict, description="Further resources per worker, by Ray's names: memory, your own."
    )
    placement: PlacementStrategy = Field("PACK", description="Workers on few nodes, or spread over many.")
    backend: Literal["auto", "gloo", "nccl"] = Field(
        "auto", description="How workers exchange gradients. auto: nccl on GPUs, gloo on CPUs."
    )
    backend_timeout: float = Field(
        600.0, ge=1, le=_LONGEST_WAIT, description="Seconds that workers wait for each other."
    )
    network_interface: str | None = Field(
        None, pattern=r"^[^\s,]+(,[^\s,]+)*$", description="Network interface for gradients, such as eth0."
    )
    nccl: dict[str, str] = Field(default_factory=dict, description="Environment variables for NCCL: NCCL_DEBUG, ...")
    max_failures: int = Field(
        10, ge=-1, le=1_000_000, description="How often workers may die before the run fails; -1: for ever."
    )
    resize_interval: float = Field(
        60.0,
        gt=0,
        le=_LONGEST_WAIT,
        description="Seconds between looks for more or fewer nodes, for workers [least, most].",
    )
    placement_timeout: float = Field(
        600.0,
        gt=0,
        le=_LONGEST_WAIT,
        description="Seconds to wait for the first workers; a GPU node takes minutes to boot.",
    )
    takeover: Annotated[bool, DRIVER_ONCE] = Field(False, description="Supersede another driver of this run.")
    registry: Uri | None = Field(None, description="Where registry: references are looked up. Default: FCN_REGISTRY.")
    ray_address: Annotated[str | None, DRIVER] = Field(
        None,
        description="A Ray cluster to use; local: a new one of this process. Default: RAY_ADDRESS, else local, if the "
        "job needs a Ray.",
    )

    _groups = model_validator(mode="before")(with_parts)

    @field_serializer("train")
    def _only_what_was_given(self, train: TrainOverrides) -> dict[str, Any]:
        """A job that is written down and read again is the same job."""
        return train.model_dump(exclude_unset=True)

    @field_validator("workers")
    @classmethod
    def _ordered(cls, workers: tuple[int, int]) -> tuple[int, int]:
        least, most = workers
        if not 1 <= least <= most <= _MOST_WORKERS:
            raise ValueError(f"workers are a number of 1 to {_MOST_WORKERS}, or [least, most]")
        return workers

    @field_validator("nccl")
    @classmethod
    def _nccl_only(cls, variables: dict[str, str]) -> dict[str, str]:
        strange = [name for name in variables if not name.startswith(("NCCL_", "TORCH_NCCL_"))]
        if strange:
            raise ValueError(f"{strange[0]} is no variable of NCCL's (NCCL_... or TORCH_NCCL_...)")
        return variables

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.staged and self.arch is not None and not network_spec(self.arch).stages:
            staged = [arch for arch in ARCHS if network_spec(arch).stages]
            raise ValueError(f"{self.arch} is not trained in stages; these are: {', '.join(staged)}")
        if self.val_split == self.train_split:
            raise ValueError(
                f"train_split and val_split are both {self.train_split!r}, and scores on what was trained on mean "
                "nothing; give another val_split, or leave it empty"
            )
        if self.class_balance != "none" and self.train.class_weights is not None:
            raise ValueError(
                f"class_balance {self.class_balance} and train.class_weights both weight the classes; give one"
            )
        if "GPU" in self.resources_per_worker and self.use_gpu is False:
            raise ValueError("resources_per_worker asks for GPUs and use_gpu is false; take one of them back")
        if "CPU" in self.resources_per_worker:
            raise ValueError("CPUs are given by cpus_per_worker, not by resources_per_worker")
        for stage in self.stages(self.arch or "fcn8s"):
            try:
                self.train_config(stage)
            except ValidationError as error:
                first = error.errors()[0]
                option = ".".join(["train", *(str(part) for part in first["loc"])])
                raise ValueError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    def stages(self, arch: ArchName) -> tuple[ArchName, ...]:
        """The networks to train, in order, the last is `arch`."""
        staged = self.recipe == "paper" if self.staged is None else self.staged
        return network_spec(arch).stages or (arch,) if staged else (arch,)

    def train_config(self, arch: ArchName) -> TrainConfig:
        """The recipe of a stage with this job's changes. Raises ValidationError for what does not go together."""
        changes = self.train.model_dump(exclude_unset=True)
        values = recipe(self.recipe, arch).model_dump()
        if changes.get("epochs") is not None:
            values["steps"] = None
        if changes.get("precision") == "float16" and self.use_gpu is not False:
            values["device"] = "cuda"  # whether there is one is known where the workers are placed
        return TrainConfig.model_validate(merged(values, changes))


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, mappings inside mappings too."""
    result = dict(values)
    for name, change in changes.items():
        before = result.get(name)
        result[name] = merged(before, change) if isinstance(before, dict) and isinstance(change, dict) else change
    return result
