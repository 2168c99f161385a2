"""Before any work: check what was asked, and resolve what was left to "auto".

Every check here fails with one InputError that names the thing and the remedy. What "auto" means is resolved once for
a model and an output, and kept: the run records under OUTPUT remember it, so that tonight's masks are made as
yesterday's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fcn_core import ModelBundle, PredictorSettings
from fcn_core.inference.settings import require_scores
from pipeline.actors.placement import EarlierSettings, place
from pipeline.actors.pool_spec import PoolSpec
from pipeline.errors import InputError, ObjectMissing, StorageError, StorageUnavailable
from pipeline.jobs.affects import marked
from pipeline.jobs.segment import SegmentJob, SourceAndOutput
from pipeline.models.load import open_model
from pipeline.models.origin import ModelOrigin
from pipeline.outputs import runs
from pipeline.outputs.identity import Recipe, digest
from pipeline.outputs.mask_formats import mask_formats
from pipeline.outputs.plan import LARGEST_SHARD_CPU, LARGEST_SHARD_GPU
from pipeline.segmentation.features import check_has_features
from pipeline.segmentation.sources import check_key_list
from pipeline.segmentation.where import check_where
from pipeline.sources.kinds import kind_of
from pipeline.sources.opening import open_source
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store, is_inside
from pipeline.storage.uri import split_uri

OUTPUT_FOLDERS = (
    *(each.folder for each in mask_formats()),
    "results",
    "class_areas",
    "class_totals",
    "features",
    "index",
    "runs",
    "lease",
    "gc",
    "reports",
)


@dataclass(frozen=True)
class Inputs:
    """What a job works with, opened and checked."""

    source: Store
    output: Store
    bundle: ModelBundle
    origin: ModelOrigin


@dataclass(frozen=True)
class ResolvedJob:
    """A job with nothing left open. `notes` tell a person what was chosen."""

    settings: PredictorSettings
    recipe: Recipe
    pool: PoolSpec
    codec_workers: int
    largest_shard: int
    job_digest: str
    notes: tuple[str, ...]


def check_inputs(job: SegmentJob, *, writes: bool = True) -> Inputs:
    """Open and check model, source and output, in that order. Unless it `writes`, the output need not be writable.

    Raises InputError for what a person must mend, and lets StorageUnavailable through: that may mend itself.
    """
    model = open_model(job.model, job.registry)
    if job.features:
        check_has_features(model.bundle)
    require_scores(job.void_below, model.bundle.architecture)
    source, output = check_places(
        job, job.key_list, where=job.where, writes=writes, allow_empty=job.allow_empty, follow_links=job.follow_links
    )
    return Inputs(source, output, model.bundle, model.origin)


def check_places(
    places: SourceAndOutput,
    keys: str | None = None,
    *,
    where: str | None = None,
    writes: bool = True,
    allow_empty: bool = False,
    follow_links: bool = False,
) -> tuple[Store, Store]:
    """Open and check source and output, and what limits the images: the list of keys, the condition. Raises as
    `check_inputs` does."""
    source, output = open_source(places.source, follow_links=follow_links), open_store(places.output)
    if is_inside(output.location, source.location):
        raise InputError(
            f"output {output.uri} lies inside source {source.uri}, so its masks would be taken for images; "
            "choose a place beside the source"
        )
    for folder in OUTPUT_FOLDERS:
        if is_inside(source.location, output.at(folder).location):
            raise InputError(f"source {source.uri} is what jobs write under output {output.uri}; choose another source")
    try:
        _refuse_one_container(places.source)
        source.check_readable()
        if writes:
            output.check_writable()
        else:
            next(iter(output.list("runs/")), None)
        if where is not None:
            check_where(output, where)
        if keys is not None:
            check_key_list(source, keys)
        elif not allow_empty and next(iter(source.list()), None) is None:
            links = ", give --follow-links if it holds links to other places" if _is_folder(source) else ""
            raise InputError(
                f"source {source.uri} is empty; check the spelling of the folder or prefix{links}, or give "
                "--allow-empty"
            )
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise InputError(str(error)) from error
    return source, output


def _refuse_one_container(source: str) -> None:
    """Raise InputError where SOURCE is not where a tar or Parquet file lies, but this itself."""
    folder, name = split_uri(source)
    if kind_of(name) is None:
        return
    try:
        open_store(folder).head(name)
    except ObjectMissing:
        return  # a folder may be called so
    raise InputError(f"source {source} is one file; give the folder that it is in, {folder}, and --include '{name}'")


def _is_folder(source: Store) -> bool:
    return source.location.scheme == "file"


def resolve(job: SegmentJob, inputs: Inputs, on_note: Callable[[str], None] = lambda text: None) -> ResolvedJob:
    """Resolve what the job leaves open: as before for this model and output, else by the machines at hand.

    `on_note` receives what a person should know while this takes long.
    """
    model_id = inputs.bundle.model_id
    history = [record for record in runs.records(inputs.output) if record.model_id == model_id]
    placement = place(
        job,
        EarlierSettings(
            precision=_kept(history, "precision", "precision"),
            batch_size=_kept(history, "batch_size", "batch_size"),
            threads=_kept(history, "cpus_per_actor", "threads"),
            engine=_kept(history, "engine", "engine"),
            tile_pixels=history[0].settings.tile_pixels if history else None,
        ),
        on_note,
        kind=inputs.bundle.kind,
    )
    recipe = placement.recipe(model_id, job.max_side)
    return ResolvedJob(
        settings=placement.settings,
        recipe=recipe,
        pool=placement.pool,
        codec_workers=placement.codec_workers,
        largest_shard=LARGEST_SHARD_GPU if placement.on_gpu else LARGEST_SHARD_CPU,
        job_digest=job_digest(job, inputs.source.uri, inputs.output.uri, recipe),
        notes=(*_followed(inputs.origin), *placement.notes(model_id), *_other_settings(recipe, history, job.where)),
    )


_IN_EVERY_DIGEST = {"include", "exclude", "limit", "retry_errors"}
"""Later options are left out at their default, so that a run is continued that was begun before there were these."""


def job_digest(job: SegmentJob, source: str, output: str, recipe: Recipe) -> str:
    """What a job is called in its runs' records: the same for the same images, and masks, in the same place."""
    selection = {
        name: getattr(job, name)
        for name, mark in marked(SegmentJob)
        if mark.what == "selection" and not mark.once and name not in SourceAndOutput.model_fields
    }
    said = {
        name: value
        for name, value in selection.items()
        if name in _IN_EVERY_DIGEST or value != SegmentJob.model_fields[name].default
    }
    places = {"source": source, "output": output}
    return digest(places | said | {"model_id": recipe.model_id, "params_id": recipe.params_id})


def _followed(origin: ModelOrigin) -> Iterator[str]:
    if origin.name is not None:
        yield str(origin)


def _other_settings(recipe: Recipe, history: list[runs.RunRecord], where: str | None) -> Iterator[str]:
    others = {record.params_id for record in history} - {recipe.params_id}
    if others and all(record.params_id != recipe.params_id for record in history):
        yield (
            "this model has segmented images here with other settings (precision, batch size, threads, ...); "
            f"those masks stay, and {'what fits where' if where else 'every image'} is segmented again with these"
        )


def _kept(history: list[runs.RunRecord], option: str, setting: str) -> Any:
    """What `setting` was when the job's `option` was last left open; None when it never was."""
    for record in history:
        if record.job.get(option) in (None, "auto"):
            return getattr(record.settings, setting)
    return None
