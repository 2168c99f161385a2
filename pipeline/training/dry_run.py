"""What a training would be: all that is checked before the first step, then three real steps that are thrown away.

The one thing to know: nothing is written, and the steps are taken in this process, by one worker with its share of the
batch; so the time is an estimate for machines like this one, without validations and the exchange of gradients.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from fcn_core import ModelBundle
from fcn_core.data.class_pixels import ClassPixels, class_pixels
from fcn_core.training.config import TrainConfig
from fcn_core.training.trainer import Trainer
from pipeline.actors import cluster
from pipeline.data.report import warning_lines
from pipeline.jobs.train import TrainJob
from pipeline.numbers import count, duration, size
from pipeline.training.memory import peak_memory
from pipeline.training.observer import TrainObserver
from pipeline.training.placement import check_fits
from pipeline.training.plan import (
    TrainInputs,
    check_inputs,
    check_same,
    counts_classes,
    look_through,
    new_run,
    pin_dataset,
)
from pipeline.training.records import TrainRun
from pipeline.training.store import TrainStore

STEPS = 3


@dataclass(frozen=True)
class StageEstimate:
    """One network to train: so many optimiser steps, which would take about so many seconds."""

    arch: str
    steps: int
    seconds: float


@dataclass(frozen=True)
class DryRun:
    """What a training would be. `memory_bytes`: the most that one worker had at once, of the GPU's where it uses one;
    `resumes_at`: the step of the newest checkpoint, None where nothing was begun."""

    dataset: str
    train_images: int
    val_images: int
    classes: int
    weights: int
    start: tuple[str, ...]
    stages: tuple[StageEstimate, ...]
    device: str
    workers: int
    images_per_step: int
    step_seconds: float
    memory_bytes: int
    resumes_at: int | None

    @property
    def seconds(self) -> float:
        """Of all steps of all stages."""
        return sum(stage.seconds for stage in self.stages)


def dry_run(job: TrainJob, observer: TrainObserver | None = None) -> DryRun:
    """Check a training as its first start would, try three steps, and say what it would be. Writes nothing.

    Raises what `train` raises before its first step.
    """
    observer = observer or TrainObserver()
    observer.phase("checking inputs")
    job = pin_dataset(job)
    inputs = check_inputs(job)
    if not cluster.is_remote(job.ray_address):
        check_fits(job, cluster.nodes()[0])
    contents = {}
    if job.check_data:
        observer.phase("looking through the data")
        report = look_through(job, inputs)
        contents = report.contents
        for line in warning_lines(report):
            observer.note(line)
    observer.phase("preparing the start model")
    counted = class_pixels(inputs.train_set) if counts_classes(job) else None
    run, start = new_run(job, inputs, contents, counted)
    store = TrainStore(inputs.output)
    begun = store.load_run()
    if begun is not None:
        check_same(job, inputs, begun)
    observer.phase(f"trying {STEPS} steps")
    step_seconds, memory, device = _try_steps(job, inputs, run, start, counted)
    stages = tuple(
        _estimate(stage.arch, stage.config, len(inputs.train_set), step_seconds) for stage in run.plan.stages
    )
    return DryRun(
        dataset=run.plan.dataset,
        train_images=len(inputs.train_set),
        val_images=len(inputs.val_set) if inputs.val_set is not None else 0,
        classes=run.plan.labels.num_classes,
        weights=sum(tensor.numel() for tensor in start.state.values()),
        start=run.start_notes,
        stages=stages,
        device=device,
        workers=job.workers[1],
        images_per_step=run.plan.stages[0].config.batch_size,
        step_seconds=step_seconds,
        memory_bytes=memory,
        resumes_at=None if begun is None else store.newest_step() or 0,
    )


def _estimate(arch: str, config: TrainConfig, examples: int, step_seconds: float) -> StageEstimate:
    steps = config.total_steps(examples)
    seconds = steps * step_seconds
    if config.max_seconds is not None and seconds > config.max_seconds:
        return StageEstimate(arch, max(1, round(config.max_seconds / step_seconds)), config.max_seconds)
    return StageEstimate(arch, steps, seconds)


def _try_steps(
    job: TrainJob, inputs: TrainInputs, run: TrainRun, start: ModelBundle, counted: ClassPixels | None
) -> tuple[float, int, str]:
    """Seconds per step, bytes of memory, and the device, of one worker's share of the first stage's first steps."""
    config = job.train_config(run.plan.stages[0].arch)
    device = "cuda" if job.use_gpu is not False and torch.cuda.is_available() else "cpu"
    share = -(-config.batch_size // job.workers[1])
    weights = {} if run.class_weights is None else {"class_weights": run.class_weights}
    threads = torch.get_num_threads()
    torch.set_num_threads(job.cpus_per_worker or max(1, int(cluster.nodes()[0].cpus) // job.workers[1]))
    try:
        mine = config.model_copy(update={"device": device, "batch_size": share, **weights})
        presence = counted.presence if counted is not None else None
        trainer = Trainer(start.build(), inputs.train_set, mine, start.normalization, presence)
        seconds = [report.seconds for report in islice(trainer.run(), STEPS)]
        memory = peak_memory(trainer.device)
    finally:
        torch.set_num_threads(threads)
    # The first step also starts what all others find ready.
    return (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0], memory, device


def describe(found: DryRun) -> Iterator[str]:
    """A dry run for a person, line by line."""
    val = f", {count(found.val_images)} to validate on" if found.val_images else ", none to validate on"
    yield f"data: {count(found.train_images)} images to train on{val}, {found.classes} classes, {found.dataset}"
    yield f"network: {' then '.join(stage.arch for stage in found.stages)}, {count(found.weights)} numbers"
    yield from (f"  {note}" for note in found.start)
    if found.resumes_at is not None:
        yield f"begun before: it would go on from step {count(found.resumes_at)}"
    for stage in found.stages:
        steps = f"{count(stage.steps)} steps of {found.images_per_step} images"
        yield f"{stage.arch}: {steps}, about {duration(stage.seconds)}"
    yield (
        f"{duration(found.seconds)} in all on {found.workers} worker(s) like this machine ({found.device}, "
        f"{found.step_seconds:.3g} s per step), without validations; about {size(found.memory_bytes)} of memory per "
        "worker"
    )
