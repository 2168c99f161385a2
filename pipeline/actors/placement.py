"""Where a job's actors run, and how the model computes there: options left to "auto" are resolved here, once.

Everything that runs a model in Ray actors uses this, so a model is evaluated exactly as it segments.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from fcn_core import PredictorSettings, resolve_settings
from fcn_core.errors import DeviceError
from fcn_core.inference.settings import ENGINES
from fcn_core.models.description import ModelKind
from pipeline.actors import cluster
from pipeline.actors.pool_spec import NOTICE_SECONDS, PoolSpec, missing_resources, refuse_impossible
from pipeline.errors import InputError, PipelineError
from pipeline.jobs.segment import ActorOptions
from pipeline.outputs.identity import Recipe, params_id

_ADDED = ("snap", "window", "void_below", "flip", "scales")
"""Settings that 0.1 began without. Their defaults are left out of the identity: earlier masks keep their names."""


@dataclass(frozen=True)
class EarlierSettings:
    """Settings resolved by an earlier run, to be kept; None where there are none."""

    precision: str | None = None
    batch_size: int | None = None
    threads: int | None = None
    tile_pixels: int | None = None
    engine: str | None = None


@dataclass(frozen=True)
class Placement:
    """Actors with nothing left open."""

    settings: PredictorSettings
    pool: PoolSpec
    codec_workers: int

    @property
    def on_gpu(self) -> bool:
        """Whether the model runs on one."""
        return self.settings.device != "cpu"

    def recipe(self, model_id: str, max_side: int | None = None) -> Recipe:
        """The identity of what this model says with these settings, of images shrunk to `max_side`."""
        fields = type(self.settings).model_fields
        unsaid = {"device"} | {name for name in _ADDED if getattr(self.settings, name) == fields[name].default}
        working = {} if max_side is None else {"max_side": max_side}
        return Recipe(model_id, params_id(self.settings.model_dump(mode="json", exclude=unsaid) | working))

    def notes(self, model_id: str) -> list[str]:
        """What a person should know of it."""
        notes = []
        if self.pool.gpus and not self.on_gpu:
            notes.append(
                f"each actor holds {self.pool.gpus:g} GPU of Ray's, but PyTorch sees no CUDA device there: "
                "the model runs on the CPU"
            )
        gpus = f" and {self.pool.gpus:g} GPU" if self.pool.gpus else ""
        notes.append(
            f"model {model_id} on {self.settings.device} in {self.settings.precision} by {self.settings.engine}, "
            f"{self.pool.actors} actor(s) of {self.pool.cpus:g} CPU{gpus}"
        )
        return notes


def place(
    options: ActorOptions,
    before: EarlierSettings = EarlierSettings(),
    on_note: Callable[[str], None] = lambda text: None,
    *,
    kind: ModelKind = "network",
) -> Placement:
    """Resolve what the options leave open: as before, else by the machines at hand.

    `kind` is the model's: no engine computes all kinds. `on_note` receives, within a minute, what is missing when no
    machine of the cluster can be asked. Raises InputError for what they ask and the machines do not
    have, and PipelineError when the machines of a cluster cannot be asked.
    """
    if kind == "int8":
        options = _for_int8(options)
    elif options.engine != "auto" and options.engine not in ENGINES[kind]:
        what = "an imported ONNX graph" if kind == "onnx" else "no imported ONNX graph"
        raise InputError(f"the model is {what}: --engine is {' or '.join(ENGINES[kind])} for it, or leave it out")
    nodes = cluster.nodes()
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if options.device != "cpu" and any(node.gpus for node in nodes) else 0.0
    cpus = options.cpus_per_actor or (before.threads if before.threads and not gpus else _default_cpus(nodes, gpus))
    actors = _count_actors(options, nodes, cpus, gpus)
    pool = PoolSpec(actors, cpus, gpus, options.placement_timeout, grow_to=None if options.actors else sys.maxsize)
    settings = _resolve(options, before, cpus, pool, on_note, kind)
    on_gpu = settings.device != "cpu"
    return Placement(settings, pool, options.codec_workers or max(1, cpus - 1 if on_gpu else cpus // 2))


def _for_int8(options: ActorOptions) -> ActorOptions:
    for name, value in (("engine", options.engine), ("device", options.device)):
        if value in ("torch", "cuda"):
            raise InputError(
                f"the model is int8, which only OpenVINO computes, on CPUs: --{name} {value} cannot be; leave it out, "
                "or use the float model"
            )
    return options.model_copy(update={"engine": "openvino", "device": "cpu"})


def _resolve(
    options: ActorOptions,
    before: EarlierSettings,
    cpus: int,
    pool: PoolSpec,
    on_note: Callable[[str], None],
    kind: ModelKind,
) -> PredictorSettings:
    wanted: dict[str, Any] = {
        "device": options.device if pool.gpus or options.device != "auto" else "cpu",
        "precision": (before.precision if options.precision == "auto" else None) or options.precision,
        "batch_size": options.batch_size or before.batch_size,
        "threads": options.cpus_per_actor or before.threads or cpus,
        "deterministic": options.deterministic,
        "engine": (before.engine if options.engine == "auto" else None) or options.engine,
        "snap": options.snap,
        "window": options.window,
        "void_below": options.void_below,
        "flip": options.flip,
        "scales": options.scales,
        "kind": kind,
    }
    if before.tile_pixels is not None:
        wanted["tile_pixels"] = before.tile_pixels
    try:
        if not cluster.is_remote(options.ray_address):
            return resolve_settings(**wanted)
        # Asked where the actors will be: the driver's machine may have other hardware.
        task = ray.remote(resolve_settings).options(num_cpus=0, num_gpus=pool.gpus)
        answer = task.remote(**wanted)
        if not ray.wait([answer], timeout=min(NOTICE_SECONDS, pool.placement_timeout))[0]:
            refuse_impossible(pool)
            on_note(f"still waiting for a machine to ask what it can do: {missing_resources(pool)}")
        settings: PredictorSettings = ray.get(answer, timeout=max(0.0, pool.placement_timeout - NOTICE_SECONDS))
        return settings
    except GetTimeoutError as error:
        raise PipelineError(
            f"nothing could be placed within {pool.placement_timeout:.0f} s: {missing_resources(pool)}"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, DeviceError):
            raise InputError(str(error.cause)) from error
        raise
    except DeviceError as error:
        raise InputError(str(error)) from error


def _default_cpus(nodes: list[cluster.NodeResources], gpus: float) -> int:
    usable = [node for node in nodes if node.cpus and node.gpus >= gpus]
    if not usable:
        return 1
    shares = (node.cpus / max(1, cluster.actors_on(0, node.gpus, 0, gpus)) for node in usable)
    return max(1, min(cluster.MAX_CPUS_PER_ACTOR, int(min(shares))))


def _count_actors(options: ActorOptions, nodes: list[cluster.NodeResources], cpus: int, gpus: float) -> int:
    fitting = cluster.count_fitting(nodes, cpus, gpus)
    if fitting == 0 and not cluster.is_remote(options.ray_address):
        here = nodes[0]
        raise InputError(
            f"an actor of {cpus} CPU and {gpus:g} GPU does not fit this machine "
            f"({here.cpus:g} CPU, {here.gpus:g} GPU); give --cpus-per-actor or "
            "--gpus-per-actor that do (other threads than in earlier runs make new masks)"
        )
    # On a cluster that grows by itself there may be nothing yet; Ray places actors as nodes come.
    return options.actors or max(1, fitting)
