"""Before any work: check what was asked, and settle what was left to "auto".

Every check here fails with one InputError that names the thing and the remedy. What "auto" means is settled once for
a model and an output, and kept: the run records under OUTPUT remember it, so that tonight's masks are made as
yesterday's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from fcn_core import ModelBundle, PredictorSettings, resolve_settings
from fcn_core.bundle import MODEL_FILE, WEIGHTS_FILE
from fcn_core.errors import BundleError, DeviceError
from pipeline import cluster, runs
from pipeline.errors import InputError, ObjectMissing, PipelineError, StorageError, StorageUnavailable
from pipeline.identity import Recipe, digest, params_id
from pipeline.job_options import SegmentJob
from pipeline.pool import PoolSpec, missing_resources
from pipeline.storage import Store, is_inside, open_store

OUTPUT_FOLDERS = ("masks", "results", "class_areas", "class_totals", "runs", "lease", "reports")

LARGEST_SHARD_CPU = 256
LARGEST_SHARD_GPU = 4096
"""One to two minutes of FCN-8s VGG16 on two cores, and on a fast GPU."""


@dataclass(frozen=True)
class Inputs:
    """What a job works with, opened and checked."""

    source: Store
    output: Store
    bundle: ModelBundle


@dataclass(frozen=True)
class Resolved:
    """A job with nothing left open. `notes` tell a person what was chosen."""

    settings: PredictorSettings
    recipe: Recipe
    pool: PoolSpec
    codec_workers: int
    largest_shard: int
    job_digest: str
    notes: tuple[str, ...]


def check_inputs(job: SegmentJob) -> Inputs:
    """Open and check model, source and output, in that order.

    Raises InputError for what a person must mend, and lets StorageUnavailable through: that may mend itself.
    """
    bundle = load_bundle(job.model)
    source, output = open_store(job.source), open_store(job.output)
    if is_inside(output.location, source.location):
        raise InputError(
            f"output {output.uri} lies inside source {source.uri}, so its masks would be taken for images; "
            "choose a place beside the source"
        )
    for folder in OUTPUT_FOLDERS:
        if is_inside(source.location, output.at(folder).location):
            raise InputError(f"source {source.uri} is what jobs write under output {output.uri}; choose another source")
    try:
        source.check_readable()
        output.check_writable()
        if next(iter(source.list()), None) is None:
            raise InputError(f"source {source.uri} is empty; check the spelling of the folder or prefix")
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise InputError(str(error)) from error
    return Inputs(source, output, bundle)


def load_bundle(uri: str) -> ModelBundle:
    """The model bundle at a path or URI, verified. Raises InputError."""
    store = open_store(uri)
    files = {}
    try:
        for name in (MODEL_FILE, WEIGHTS_FILE):
            try:
                files[name] = store.get(name)
            except ObjectMissing:
                continue  # from_files says which one is missing
        if not files:
            raise InputError(
                f"there is no model at {uri}: neither {MODEL_FILE} nor {WEIGHTS_FILE}; "
                "give the folder of a bundle (`fcn model new` makes one)"
            )
        return ModelBundle.from_files(files, source=uri)
    except StorageUnavailable:
        raise
    except (StorageError, BundleError) as error:
        raise InputError(str(error)) from error


def resolve(job: SegmentJob, inputs: Inputs) -> Resolved:
    """Settle what the job leaves open: as before for this model and output, else by the machines at hand."""
    model_id = inputs.bundle.model_id
    history = [record for record in runs.records(inputs.output) if record.model_id == model_id]
    nodes = cluster.nodes()
    gpus = job.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if job.device != "cpu" and any(node.gpus for node in nodes) else 0.0
    threads = _kept(history, "cpus_per_actor", "threads")
    cpus = job.cpus_per_actor or (threads if threads and not gpus else _default_cpus(nodes, gpus))
    pool = PoolSpec(_count_actors(job, nodes, cpus, gpus), cpus, gpus, job.placement_timeout)

    settings = _settle(job, history, cpus, pool)
    recipe = Recipe(model_id, params_id({"engine": "torch"} | settings.model_dump(mode="json", exclude={"device"})))
    on_gpu = settings.device != "cpu"
    job_digest = digest(
        {
            "source": inputs.source.uri,
            "output": inputs.output.uri,
            "include": job.include,
            "exclude": job.exclude,
            "limit": job.limit,
            "retry_errors": job.retry_errors,
            "model_id": recipe.model_id,
            "params_id": recipe.params_id,
        }
    )
    return Resolved(
        settings=settings,
        recipe=recipe,
        pool=pool,
        codec_workers=job.codec_workers or max(1, cpus - 1 if on_gpu else cpus // 2),
        largest_shard=LARGEST_SHARD_GPU if on_gpu else LARGEST_SHARD_CPU,
        job_digest=job_digest,
        notes=tuple(_notes(settings, recipe, pool, history)),
    )


def _notes(settings: PredictorSettings, recipe: Recipe, pool: PoolSpec, history: list[runs.RunRecord]) -> Iterator[str]:
    if pool.gpus and settings.device == "cpu":
        yield (
            f"each actor holds {pool.gpus:g} GPU of Ray's, but PyTorch sees no CUDA device there: "
            "the model runs on the CPU"
        )
    gpus = f" and {pool.gpus:g} GPU" if pool.gpus else ""
    yield (
        f"model {recipe.model_id} on {settings.device} in {settings.precision}, "
        f"{pool.actors} actor(s) of {pool.cpus:g} CPU{gpus}"
    )
    others = {record.params_id for record in history} - {recipe.params_id}
    if others and all(record.params_id != recipe.params_id for record in history):
        yield (
            "this model has labelled images here with other settings (precision, batch size, threads, ...); "
            "those masks stay, and every image is labelled anew with these"
        )


def _kept(history: list[runs.RunRecord], option: str, setting: str) -> Any:
    """What `setting` was when the job's `option` was last left open; None when it never was."""
    for record in history:
        if record.job.get(option) in (None, "auto"):
            return getattr(record.settings, setting)
    return None


def _settle(job: SegmentJob, history: list[runs.RunRecord], cpus: int, pool: PoolSpec) -> PredictorSettings:
    options: dict[str, Any] = {
        "device": job.device if pool.gpus or job.device != "auto" else "cpu",
        "precision": (_kept(history, "precision", "precision") if job.precision == "auto" else None) or job.precision,
        "batch_size": job.batch_size or _kept(history, "batch_size", "batch_size"),
        "threads": job.cpus_per_actor or _kept(history, "cpus_per_actor", "threads") or cpus,
        "deterministic": job.deterministic,
    }
    if history:
        options["tile_pixels"] = history[0].settings.tile_pixels
    try:
        if not cluster.is_remote(job.ray_address):
            return resolve_settings(**options)
        # Asked where the actors will be: the driver's machine may have other hardware.
        task = ray.remote(resolve_settings).options(num_cpus=0, num_gpus=pool.gpus)
        settings: PredictorSettings = ray.get(task.remote(**options), timeout=pool.placement_timeout)
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
    shares = (node.cpus / max(1.0, node.gpus // gpus if gpus else 1.0) for node in usable)
    return max(1, min(cluster.MAX_CPUS_PER_ACTOR, int(min(shares))))


def _count_actors(job: SegmentJob, nodes: list[cluster.NodeResources], cpus: int, gpus: float) -> int:
    fitting = sum(int(min(node.cpus // cpus, node.gpus // gpus if gpus else float("inf"))) for node in nodes)
    if fitting == 0 and not cluster.is_remote(job.ray_address):
        here = nodes[0]
        raise InputError(
            f"an actor of {cpus} CPU and {gpus:g} GPU does not fit this machine "
            f"({here.cpus:g} CPU, {here.gpus:g} GPU); give --cpus-per-actor or "
            "--gpus-per-actor that do (other threads than in earlier runs make new masks)"
        )
    # On a cluster that grows by itself there may be nothing yet; Ray places actors as nodes come.
    return job.actors or max(1, fitting)
