"""Before any training: check what was asked, resolve it, and make sure that a run is only continued as it was begun.

A run's plan is everything that its weights follow from. It is written to job.json once, at the first start; every later
start under the same name makes its own plan anew and must come to the same.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from fcn_core import Architecture, Imported, LabelSet, ModelBundle, import_weights
from fcn_core.data.class_pixels import ClassPixels, ClassPresence, class_pixels
from fcn_core.data.datasets import Pairs
from fcn_core.models.networks import ArchName, network_spec
from fcn_core.normalization import CAFFE, IMAGENET
from fcn_core.training.class_balance import balanced_weights
from fcn_core.training.shape_trial import check_shapes
from pipeline.data.check import check_dataset
from pipeline.data.datasets import Catalog, open_catalog, whole_split
from pipeline.data.references import is_meant, is_open, resolve
from pipeline.data.report import BadData, DataReport, SplitContent, refusal
from pipeline.errors import InputError, StorageError
from pipeline.jobs.train import TrainJob
from pipeline.models.load import OpenedModel, open_model
from pipeline.models.references import is_reference
from pipeline.outputs.identity import digest
from pipeline.storage.opening import open_store, read_object
from pipeline.storage.store import Store
from pipeline.storage.uri import split_prefix
from pipeline.training.progress import now
from pipeline.training.records import SplitPlan, StagePlan, TrainPlan, TrainRun
from pipeline.training.store import TrainStore

TrainJobType = TypeVar("TrainJobType", bound=TrainJob)

_WEIGHT_FILE = re.compile(r"\.(safetensors|pth|pt|bin|caffemodel|binaryproto)$", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_TRANSPLANT_OPTIONS = ("backbone", "width", "head_width", "upsampling")
_ARCHITECTURE_OPTIONS = (*_TRANSPLANT_OPTIONS, "dropout")


@dataclass(frozen=True)
class TrainInputs:
    """What a job works with, opened and checked."""

    output: Store
    catalog: Catalog
    train_set: Pairs
    val_set: Pairs | None


def check_inputs(job: TrainJob) -> TrainInputs:
    """Open and check output and data. Raises InputError for what a person must mend."""
    output = open_store(job.output).at(job.name)
    try:
        output.check_writable()
    except StorageError as error:
        raise InputError(str(error)) from error
    catalog = open_catalog(job)
    train_set = whole_split(catalog, job.train_split)
    val_set = whole_split(catalog, job.val_split) if job.val_split else None
    if val_set is not None:
        _refuse_shared(job, train_set, val_set)
    for stage in job.stages(job.arch or "fcn8s"):
        config = job.train_config(stage)
        least = job.workers[1]
        if config.batch_size < least:
            raise InputError(
                f"a batch_size of {config.batch_size} cannot be shared by {least} workers; "
                f"give --train.batch-size {least} or more, or fewer --workers"
            )
    return TrainInputs(output, catalog, train_set, val_set)


def pin_dataset(job: TrainJobType) -> TrainJobType:
    """The job with `DATASET@latest` as a number, `output:URI` with a run: what its run was begun with, else today's.

    So what a run has seen is in its record, and a run that goes on is not changed by a version that is newer.
    """
    if not is_open(job.dataset):
        return job
    run = TrainStore(open_store(job.output).at(job.name)).load_run()
    begun = run.plan.dataset if run is not None else ""
    same = is_meant(begun, absolute(job.dataset))
    return job.model_copy(update={"dataset": begun if same else resolve(job.dataset)})


def _refuse_shared(job: TrainJob, train_set: Pairs, val_set: Pairs) -> None:
    """Raise InputError if an image is in both splits, by its name or its file."""
    for what in ("name", "image"):
        trained_on = {getattr(pair, what) for pair in train_set.pairs}
        shared = [getattr(pair, what) for pair in val_set.pairs if getattr(pair, what) in trained_on]
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            raise InputError(
                f"data set {job.dataset}: {shared[0]}{more} is in split {job.train_split} and in {job.val_split}, and "
                "scores on what was trained on mean nothing; take it off one of the lists"
            )


def look_through(
    job: TrainJob, inputs: TrainInputs, on_image: Callable[[int, int], None] = lambda done, total: None
) -> DataReport:
    """Read every image and mask that will be trained or validated on. Raises BadData, naming what cannot be."""
    report = check_dataset(inputs.catalog.options, _splits(job), on_image=on_image)
    if not report.ok:
        raise BadData(refusal(report))
    return report


def _splits(job: TrainJob) -> list[str]:
    return [job.train_split, *([job.val_split] if job.val_split else [])]


def counts_classes(job: TrainJob) -> bool:
    """Whether a job wants to know how often the classes of its training split occur."""
    return job.class_balance != "none" or _samples_by_class(job)


def _samples_by_class(job: TrainJob) -> bool:
    return job.train_config(job.arch or "fcn8s").sampling == "class_balanced"


def restored_presence(inputs: TrainInputs, run: TrainRun) -> ClassPresence:
    """Which classes each image of a run holds, counted once more. Raises InputError unless they are what they were."""
    presence = class_pixels(inputs.train_set).presence
    if presence.digest() != run.class_presence:
        raise InputError(
            f"{inputs.output.uri} was begun with other masks: the classes of split {run.plan.train.name}'s images are "
            "not what they were; give this training another --name, or bring the old masks back"
        )
    return presence


def new_run(
    job: TrainJob,
    inputs: TrainInputs,
    contents: Mapping[str, SplitContent] | None = None,
    counted: ClassPixels | None = None,
) -> tuple[TrainRun, ModelBundle]:
    """The run that a job starts, and the model that its first stage starts from. `contents`: of the splits, where they
    were looked through; `counted`: how often the classes occur, else all masks are read where the job wants to know.
    """
    labels = inputs.train_set.labels
    opened = None if job.model is None or is_weight_file(job.model) else open_model(job.model, job.registry)
    arch = job.arch or (opened.bundle.network_architecture.arch if opened else "fcn8s")
    _check_recipe(job, arch)
    first = job.stages(arch)[0]
    if opened is not None:
        start, notes = _from_bundle(job, opened, labels, first)
    elif job.model is not None:
        start, notes = _from_file(job, labels, first)
    else:
        start, notes = _new_network(job, labels, first)
    if job.dropout is not None:
        start = _with_dropout(start, job.dropout)
    for stage in job.stages(arch):
        own = start.network_architecture
        network = own if stage == own.arch else _changed(own, arch=stage)
        check_shapes(network, job.train_config(stage), job.workers[1])
    weights = presence = None
    if counts_classes(job):
        counted = counted or class_pixels(inputs.train_set)
        weights = balanced_weights(counted.pixels, job.class_balance, counted.of_images)
        presence = counted.presence.digest() if _samples_by_class(job) else None
    run = TrainRun(
        plan=_plan(job, inputs, _changed(start.network_architecture, arch=arch), contents or {}),
        start_model_id=start.model_id,
        start_notes=tuple(notes),
        class_weights=weights,
        class_presence=presence,
        created=now(),
        version=version("fcn-pipeline"),
    )
    return run, start


def _check_recipe(job: TrainJob, arch: ArchName) -> None:
    """Raise InputError unless the job's recipe is one for the network, which only the start model may have named."""
    try:
        for stage in job.stages(arch):
            job.train_config(stage)
    except ValueError as error:
        raise InputError(str(error)) from error


def check_same(job: TrainJob, inputs: TrainInputs, run: TrainRun) -> None:
    """Raise InputError, naming what differs, unless `job` is what `run` was begun as."""
    asked = {name: getattr(job, name) for name in ("arch", *_ARCHITECTURE_OPTIONS)}
    given = {name: value for name, value in asked.items() if value is not None}
    architecture = _changed(run.plan.architecture, **given)
    before, after = (_flat(plan) for plan in (run.plan, _plan(job, inputs, architecture)))
    differing = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if not differing:
        return
    listed = ", ".join(f"{name} was {before.get(name)!r} and is {after.get(name)!r}" for name in differing[:4])
    more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
    raise InputError(
        f"{inputs.output.uri} holds another training: {listed}{more}; give this one another --name, or the old options"
    )


def files_changed(inputs: TrainInputs, run: TrainRun) -> list[str]:
    """The names of the splits any of whose files was written anew since the run was begun, as far as it knows."""
    splits = ((run.plan.train, inputs.train_set), (run.plan.val, inputs.val_set))
    return [
        plan.name
        for plan, pairs in splits
        if plan is not None and pairs is not None and plan.files not in (None, inputs.catalog.files_digest(pairs))
    ]


def check_same_content(job: TrainJob, inputs: TrainInputs, run: TrainRun, changed: Sequence[str]) -> None:
    """Raise InputError unless the files of the splits `changed` hold the very pixels and masks that the run was begun
    with. Reads them all."""
    plans = {plan.name: plan for plan in (run.plan.train, run.plan.val) if plan is not None}
    for name in changed:
        expected = plans[name].content
        if expected is not None:
            found = check_dataset(inputs.catalog.options, [name]).contents[name].digest
            if found == expected:
                continue
        raise InputError(
            f"{inputs.output.uri} was begun with other images or masks: files of split {name} of {job.dataset} were "
            f"written anew since {run.created:%Y-%m-%d %H:%M} UTC"
            f"{', and hold other pixels or classes' if expected else ''}; give this training another --name, or bring "
            "the old files back"
        )


def next_start(trained: ModelBundle, arch: ArchName, seed: int) -> ModelBundle:
    """The model that the next stage starts from: what the last one has learned, in the next network."""
    return _with_dropout(_transplanted(trained, arch, seed=seed).bundle, trained.network_architecture.dropout)


def is_weight_file(model: str) -> bool:
    """Whether what a training starts from is a file of weights, and no bundle."""
    return not is_reference(model) and bool(_WEIGHT_FILE.search(model.partition("?")[0]))


def _new_network(job: TrainJob, labels: LabelSet, arch: ArchName) -> tuple[ModelBundle, list[str]]:
    options = {name: value for name in _ARCHITECTURE_OPTIONS if (value := getattr(job, name)) is not None}
    architecture = Architecture.model_validate({"arch": arch, "num_classes": labels.num_classes} | options)
    bundle = ModelBundle.new(architecture, labels, network_spec(arch).normalization, seed=job.train_config(arch).seed)
    return bundle, [f"starting from a new {arch} on {architecture.backbone}, which has learned nothing yet"]


def _from_file(job: TrainJob, labels: LabelSet, arch: ArchName) -> tuple[ModelBundle, list[str]]:
    assert job.model is not None
    with tempfile.TemporaryDirectory(prefix="fcn-start-") as folder:
        path = Path(job.model).expanduser()
        if _SCHEME.match(job.model):
            path = Path(folder) / job.model.partition("?")[0].rpartition("/")[2]
            try:
                path.write_bytes(read_object(job.model))
            except StorageError as error:
                raise InputError(str(error)) from error
        imported = import_weights(
            path,
            arch,
            backbone=job.backbone,
            labels=labels,
            normalization={"caffe": CAFFE, "imagenet": IMAGENET, None: None}[job.model_input],
            width=job.width,
            head_width=job.head_width,
            upsampling=job.upsampling,
            seed=job.train_config(arch).seed,
        )
    return imported.bundle, _import_notes(imported, imported.notes)


def _from_bundle(job: TrainJob, opened: OpenedModel, labels: LabelSet, arch: ArchName) -> tuple[ModelBundle, list[str]]:
    bundle, notes = opened.bundle, [f"starting from {opened.origin}"]
    own = bundle.network_architecture
    if bundle.labels.names != labels.names and not job.new_head:
        raise InputError(
            f"{job.model} knows {bundle.labels.num_classes} classes ({bundle.labels.name}), the data set has "
            f"{labels.num_classes} ({labels.name}); give --new-head for new score layers, or the right --labels"
        )
    options = {name: value for name in _TRANSPLANT_OPTIONS if (value := getattr(job, name)) is not None}
    if arch == own.arch and bundle.labels == labels and all(getattr(own, name) == options[name] for name in options):
        return bundle, notes
    imported = _transplanted(bundle, arch, labels=labels, seed=job.train_config(arch).seed, **options)
    return replace(imported.bundle, trained_on=bundle.trained_on), notes + _import_notes(imported, imported.notes[1:])


def _import_notes(imported: Imported, notes: Sequence[str]) -> list[str]:
    return [*notes, *([f"new layers: {', '.join(imported.untrained)}"] if imported.untrained else [])]


def _transplanted(bundle: ModelBundle, arch: ArchName, **options: Any) -> Imported:
    """What fits of a bundle in another network. Raises WeightsError when that is not a whole backbone."""
    with tempfile.TemporaryDirectory(prefix="fcn-start-") as folder:
        bundle.save(Path(folder) / "model")
        return import_weights(Path(folder) / "model", arch, **options)


def _with_dropout(bundle: ModelBundle, dropout: float) -> ModelBundle:
    """The same weights in a network that differs in nothing that has weights."""
    architecture = _changed(bundle.network_architecture, dropout=dropout)
    return ModelBundle(
        architecture,
        bundle.labels,
        bundle.normalization,
        bundle.state,
        bundle.provenance,
        trained_on=bundle.trained_on,
    )


def _changed(architecture: Architecture, **changes: Any) -> Architecture:
    return Architecture.model_validate(architecture.model_dump() | changes)


def _plan(
    job: TrainJob,
    inputs: TrainInputs,
    architecture: Architecture,
    contents: Mapping[str, SplitContent] = MappingProxyType({}),
) -> TrainPlan:
    stages = tuple(
        # How examples are read makes no difference to them.
        StagePlan(arch=arch, config=job.train_config(arch).model_copy(update={"workers": 0}))
        for arch in job.stages(architecture.arch)
    )
    return TrainPlan(
        dataset=absolute(job.dataset),
        mask_coding=job.mask_coding,
        labels=inputs.train_set.labels,
        train=_split(job.train_split, inputs.catalog, inputs.train_set, contents),
        val=_split(job.val_split, inputs.catalog, inputs.val_set, contents)
        if job.val_split and inputs.val_set
        else None,
        model=job.model if job.model is None or is_reference(job.model) else absolute(job.model),
        model_input=job.model_input,
        architecture=architecture,
        class_balance=job.class_balance,
        validate_every=job.validate_every,
        stages=stages,
    )


def _split(name: str, catalog: Catalog, dataset: Pairs, contents: Mapping[str, SplitContent]) -> SplitPlan:
    listed = [[pair.name, pair.image, pair.mask] for pair in dataset.pairs]
    content = contents[name].digest if name in contents else None
    files = catalog.files_digest(dataset)
    return SplitPlan(name=name, examples=len(listed), digest=digest(listed), files=files, content=content)


def absolute(place: str) -> str:
    """A path from the root, so that it means the same in another working directory; URIs as they are."""
    prefix, bare = split_prefix(place)
    return prefix + (bare if _SCHEME.match(bare) else os.path.abspath(os.path.expanduser(bare)))


def _flat(plan: TrainPlan) -> dict[str, Any]:
    """Every value of a plan by a dotted name that a person knows from the job."""
    # Files that were written anew may hold the same: `files_changed` and `check_same_content` look after them.
    unread = {"files": True, "content": True}
    values = plan.model_dump(mode="json", exclude={"train": unread, "val": unread})
    stages = values.pop("stages")
    several = len(stages) > 1
    for stage in stages:
        values[f"train ({stage['arch']})" if several else "train_config"] = stage["config"]
    values["stages"] = [stage["arch"] for stage in stages]
    labels = values.pop("labels")
    values["labels"] = {"name": labels["name"], "names": labels["names"], "ignore_index": labels["ignore_index"]}
    return dict(_walk(values, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, f"{path}.{name}" if path else name)
    else:
        yield path, value
