"""Before any work: check what was asked, and settle what was left to "auto".

Every check here fails with one InputError that names the thing and the remedy. What "auto" means is settled once for
a model and an output, and kept: the run records under OUTPUT remember it, so that tonight's masks are made as
yesterday's.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import ray

from fcn_core import ModelBundle, PredictorSettings, resolve_settings
from fcn_core.bundle import MODEL_FILE, WEIGHTS_FILE
from fcn_core.errors import BundleError, DeviceError
from pipeline import cluster, runs
from pipeline.errors import InputError, ObjectMissing, StorageError
from pipeline.identity import Recipe, digest, params_id
from pipeline.job_options import SegmentJob
from pipeline.pool import PoolSpec
from pipeline.storage import Store, open_store

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
    """Open and check model, source and output, in that order."""
    bundle = load_bundle(job.model)
    source, output = open_store(job.source), open_store(job.output)
    if _lies_inside(output.uri, source.uri):
        raise InputError(
            f"output {output.uri} lies inside source {source.uri}, so its masks would be taken for images; "
            "choose a place beside the source"
        )
    try:
        source.check_readable()
        output.check_writable()
        if next(iter(source.list()), None) is None:
            raise InputError(f"source {source.uri} is empty; check the spelling of the folder or prefix")
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
    except (StorageError, BundleError) as error:
        raise InputError(str(error)) from error


def resolve(job: SegmentJob, inputs: Inputs) -> Resolved:
    """Settle what the job leaves open: where it ran before with this model, as then; else by the machines at hand."""
    model_id = inputs.bundle.model_id
    before = next((record for record in runs.records(inputs.output) if record.model_id == model_id), None)
    kept = before.settings if before else None
    nodes = cluster.nodes()
    gpus = job.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if job.device != "cpu" and any(node.gpus for node in nodes) else 0.0
    cpus = job.cpus_per_actor or (kept.threads if kept and not gpus else _default_cpus(nodes, gpus))
    pool = PoolSpec(_count_actors(job, nodes, cpus, gpus), cpus, gpus)

    settings = _settle(job, kept, cpus, gpus)
    notes = []
    if gpus and settings.device == "cpu":
        notes.append(
            f"each actor holds {gpus:g} GPU of Ray's, but PyTorch sees no CUDA device there: the model runs on the CPU"
        )
    recipe = Recipe(model_id, params_id({"engine": "torch"} | settings.model_dump(mode="json", exclude={"device"})))
    notes.append(
        f"model {model_id} on {settings.device} in {settings.precision}, {pool.actors} actor(s) of {cpus:g} CPU"
        + (f" and {gpus:g} GPU" if gpus else "")
        + (" (settings kept from earlier runs)" if kept else "")
    )
    on_gpu = settings.device != "cpu"
    return Resolved(
        settings=settings,
        recipe=recipe,
        pool=pool,
        codec_workers=job.codec_workers or max(1, cpus - 1 if on_gpu else cpus // 2),
        largest_shard=LARGEST_SHARD_GPU if on_gpu else LARGEST_SHARD_CPU,
        job_digest=digest(
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
        ),
        notes=tuple(notes),
    )


def _settle(job: SegmentJob, kept: PredictorSettings | None, cpus: int, gpus: float) -> PredictorSettings:
    options: dict[str, Any] = {
        "device": job.device if gpus or job.device != "auto" else "cpu",
        "precision": kept.precision if kept and job.precision == "auto" else job.precision,
        "batch_size": job.batch_size or (kept.batch_size if kept else None),
        "threads": kept.threads if kept and job.cpus_per_actor is None else cpus,
        "deterministic": job.deterministic,
    }
    if kept:
        options["tile_pixels"] = kept.tile_pixels
    try:
        if not cluster.is_remote(job.ray_address):
            return resolve_settings(**options)
        # Asked where the actors will be: the driver's machine may have other hardware.
        task = ray.remote(resolve_settings).options(num_cpus=0, num_gpus=gpus)
        settings: PredictorSettings = ray.get(task.remote(**options))
        return settings
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
        most = nodes[0]
        raise InputError(
            f"an actor of {cpus} CPU and {gpus:g} GPU does not fit this machine "
            f"({most.cpus:g} CPU, {most.gpus:g} GPU); lower --cpus-per-actor or --gpus-per-actor"
        )
    # On a cluster that grows by itself there may be nothing yet; Ray places actors as nodes come.
    return job.actors or max(1, fitting)


def _lies_inside(inner: str, outer: str) -> bool:
    a, b = urlsplit(inner), urlsplit(outer)
    return (a.scheme, a.netloc, a.query) == (
        b.scheme,
        b.netloc,
        b.query,
    ) and f"{a.path.rstrip('/')}/".startswith(f"{b.path.rstrip('/')}/")
