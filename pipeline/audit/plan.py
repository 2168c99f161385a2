"""`fcn audit plan` and `fcn audit extend`: draw the images of an audit, and write them as tasks.

A draw is a stratified random sample of the current images of one variant. Later draws are of what was added to the
output since: each image belongs to the draw that saw the run of its row, so the draws' populations do not overlap and
an estimate adds them up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import pyarrow as pa

from pipeline.audit.allocation import allocate, expected_half_widths
from pipeline.audit.arrays import Array, Ints
from pipeline.audit.clusters import choose_clusters, cluster_rule, draw_images, read_clusters
from pipeline.audit.files import (
    FORMAT,
    SAMPLE_SCHEMA,
    AuditRecord,
    Domain,
    Revision,
    Stratum,
    Wave,
    create_audit,
    create_wave,
    read_audit,
    read_waves,
)
from pipeline.audit.population import DOMAINS, Drawn, Population, Totals, areas_of, domain_of, draw, pilot_rule
from pipeline.audit.strata import StrataRule
from pipeline.audit.tasks import Task, TaskFormat, write_tasks
from pipeline.errors import InputError
from pipeline.outputs.current import choose_variant, current_variants
from pipeline.outputs.identity import digest
from pipeline.outputs.labels import read_labels
from pipeline.outputs.runs import source_of
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

LEAST_IMAGES = 2


@dataclass(frozen=True)
class PlanOptions:
    """What to draw: `n` images; of which population (`recipe`, `where`); with estimates of each domain (`by`); whole
    `cluster`s, with `per_cluster` images of each, instead of single images; and how tasks are written."""

    n: int
    recipe: str | None = None
    where: str | None = None
    by: str | None = None
    cluster: str | None = None
    per_cluster: int = 5
    seed: int = 0
    tasks: TaskFormat = "label-studio"
    prefill: bool = False
    url_prefix: str | None = None


@dataclass(frozen=True)
class Plan:
    """What was drawn, or with a dry run what would be: `sample` has the images drawn."""

    record: AuditRecord
    wave: Wave
    sample: pa.Table
    left_out: Mapping[str, str]
    next_step: str

    @property
    def images(self) -> int:
        """Images of the population."""
        return sum(stratum.images for stratum in self.wave.strata)


def plan_audit(
    output: Store,
    audit: Store | None,
    options: PlanOptions,
    phase: Callable[[str], None] = lambda name: None,
) -> Plan:
    """Draw the first sample of an audit of `output` and write it under `audit`; with None nothing is written.

    Raises InputError for what a person must mend: an audit that is there already, nothing to draw from.
    """
    for option, value in (("--by", options.by), ("--cluster", options.cluster)):
        if value is not None and value not in DOMAINS:
            raise InputError(f"{option} {value} is neither a folder nor a column to go by; choose {', '.join(DOMAINS)}")
    if options.n < LEAST_IMAGES:
        raise InputError(f"-n {options.n} is no sample; an interval takes {LEAST_IMAGES} images or more")
    mixed = current_variants(output)
    if options.recipe is None and len(mixed) > 1:
        raise InputError(
            f"the current masks of {output.uri} are of the recipes {', '.join(mixed)}, for a run with `where` redid "
            "only some images; an audit is of one model: name one with --recipe, or segment all with one"
        )
    run = choose_variant(output, options.recipe)
    if run.settings.void_below:
        raise InputError(
            f"variant {run.recipe} leaves pixels without a class (--void-below {run.settings.void_below:g}), and an "
            "audit compares classes of all pixels; audit a variant without it"
        )
    labels = read_labels(output, run)
    record = AuditRecord(
        format=FORMAT,
        audit_id="",
        output=output.uri,
        source=str(run.job.get("source", "")),
        follow_links=bool(run.job.get("follow_links")),
        model=str(run.job.get("model", "")),
        model_uri=None if run.model is None else run.model.uri,
        model_id=run.model_id,
        params_id=run.params_id,
        recipe=run.recipe,
        labels=labels,
        where=options.where,
        by=options.by,
        cluster=options.cluster,
        per_cluster=options.per_cluster,
        tasks=options.tasks,
        prefill=options.prefill,
        url_prefix=options.url_prefix,
        created=datetime.now(UTC),
        version=version("fcn-pipeline"),
    )
    record = record.model_copy(update={"audit_id": digest([record.model_dump_json(), options.n, options.seed])})
    population = Population(output, run, labels.num_classes, options.where)
    phase("drawing the sample")
    wave, sample = _draw(record, population, options.n, options.seed, 1)
    if audit is None:
        return Plan(record, wave, sample, {}, "")
    create_audit(audit, record)
    return _finish(record, population, audit, wave, sample, phase)


def extend_audit(
    audit: Store, n: int, seed: int = 0, *, dry_run: bool = False, phase: Callable[[str], None] = lambda name: None
) -> Plan:
    """Draw the next sample, from what was added to the output since the last one.

    What was drawn and annotated stays. Raises InputError when nothing was added.
    """
    if n < LEAST_IMAGES:
        raise InputError(f"-n {n} is no sample; an interval takes {LEAST_IMAGES} images or more")
    record = read_audit(audit)
    waves = read_waves(audit)
    output = open_store(record.output)
    output.check_readable()
    run = choose_variant(output, record.recipe)
    known = frozenset(run_id for wave, _ in waves for run_id in wave.runs)
    population = Population(output, run, record.labels.num_classes, record.where, without=known)
    phase("looking for what was added")
    if not any((batch["status"].to_numpy(zero_copy_only=False) == "ok").any() for batch in population.batches()):
        raise InputError(
            f"nothing was added to {record.output} by recipe {record.recipe} since the last draw; "
            "there is nothing to extend the audit by"
        )
    phase("drawing the sample")
    wave, sample = _draw(record, population, n, seed, waves[-1][0].number + 1)
    earlier = tuple(_revised(record, replace(population, without=frozenset()), old, drawn) for old, drawn in waves)
    wave = wave.model_copy(update={"earlier": earlier})
    if dry_run:
        return Plan(record, wave, sample, {}, "")
    return _finish(record, population, audit, wave, sample, phase)


def _draw(record: AuditRecord, population: Population, n: int, seed: int, number: int) -> tuple[Wave, pa.Table]:
    if record.cluster is not None:
        return _draw_clusters(record, population, record.cluster, n, seed, number)
    rule = pilot_rule(population, n)
    drawn = draw(population, rule, n, seed, record.by)
    chosen = allocate(drawn.images, drawn.square_errors, drawn.shares, n)
    candidates = drawn.candidates
    stratum = candidates["stratum"].to_numpy().astype(np.int64)
    starts = np.searchsorted(stratum, np.arange(rule.strata + 1))
    ranks = np.arange(len(stratum)) - starts[stratum]
    table = candidates.filter(pa.array(ranks < chosen[stratum]))
    probabilities = (chosen / np.maximum(drawn.images, 1))[table["stratum"].to_numpy().astype(np.int64)]
    strata = _strata(rule, drawn.images, drawn.pixels, drawn.model, drawn.images, chosen)
    wave = _wave(
        number, n, seed, rule, strata, drawn.domains, drawn.runs, drawn.without_mask,
        expected_half_widths(drawn.images, drawn.square_errors, chosen),
    )  # fmt: skip
    return wave, _sample(record, table, probabilities, None)


def _draw_clusters(
    record: AuditRecord, population: Population, cluster: str, n: int, seed: int, number: int
) -> tuple[Wave, pa.Table]:
    frame = read_clusters(population, cluster)
    wanted = max(2, min(len(frame.names), round(n / record.per_cluster)))
    rule = cluster_rule(frame, wanted)
    stratum = rule.assign(frame.shares, frame.confidence)
    units = np.bincount(stratum, minlength=rule.strata).astype(np.float64)
    columns = np.array([[each.images, each.pixels, *each.model] for each in frame.totals], np.float64)
    sums = np.zeros((rule.strata, columns.shape[1]))
    np.add.at(sums, stratum, columns)
    doubt = np.clip(1 - frame.confidence, 0.005, 1)[:, None]
    squares = np.zeros((rule.strata, population.classes))
    np.add.at(squares, stratum, (doubt * frame.shares) ** 2)
    squares /= np.maximum(units, 1)[:, None]
    shares = sums[:, 2:].sum(axis=0) / sums[:, 1].sum()
    chosen = allocate(units, squares, shares, wanted)
    places = choose_clusters(stratum, chosen, seed)
    names = {frame.names[place]: int(stratum[place]) for place in places.tolist()}
    table = draw_images(population, cluster, names, record.per_cluster, seed)
    sizes = dict(zip(frame.names, (each.images for each in frame.totals), strict=True))
    of_image = np.array([sizes[name] for name in table["cluster"].to_pylist()], np.float64)
    at = table["stratum"].to_numpy().astype(np.int64)
    probabilities = (chosen / np.maximum(units, 1))[at] * np.minimum(record.per_cluster / of_image, 1)
    strata = _strata(rule, sums[:, 0], sums[:, 1], sums[:, 2:], units, chosen)
    domains: dict[str, Totals] = {}
    if record.by is not None:
        domains = dict(draw(population, rule, 0, seed, record.by).domains)
    wave = _wave(
        number, n, seed, rule, strata, domains, frame.runs, frame.without_mask,
        expected_half_widths(units, squares, chosen),
    )  # fmt: skip
    return wave, _sample(record, table, probabilities, of_image)


def _strata(
    rule: StrataRule, images: Array, pixels: Array, model: Array, units: Array, chosen: Ints
) -> tuple[Stratum, ...]:
    return tuple(
        Stratum(
            number=index,
            description=rule.describe(index),
            images=int(images[index]),
            pixels=int(pixels[index]),
            model=tuple(int(value) for value in model[index]),
            units=int(units[index]),
            drawn=int(chosen[index]),
        )
        for index in range(rule.strata)
    )


def _wave(
    number: int,
    n: int,
    seed: int,
    rule: StrataRule,
    strata: tuple[Stratum, ...],
    domains: Mapping[str, Totals],
    runs: frozenset[str],
    without_mask: int,
    half_widths: Array,
) -> Wave:
    return Wave(
        number=number,
        n=n,
        seed=seed,
        created=datetime.now(UTC),
        rule=rule,
        strata=strata,
        domains=_domains(domains),
        runs=tuple(sorted(runs)),
        without_mask=without_mask,
        expected_half_width=tuple(half_widths.tolist()),
    )


def _domains(domains: Mapping[str, Totals]) -> tuple[Domain, ...]:
    return tuple(
        Domain(name=name, images=each.images, pixels=int(each.pixels), model=tuple(map(int, each.model)))
        for name, each in sorted(domains.items())
    )


def _sample(record: AuditRecord, table: pa.Table, probabilities: Array, cluster_images: Array | None) -> pa.Table:
    """The images drawn as a table of SAMPLE_SCHEMA, sorted by key; names and digests come with the tasks."""
    table = table.combine_chunks()
    classes = record.labels.num_classes
    (batch,) = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    model = areas_of(batch["areas"], classes).astype(np.int64)
    rows = len(table)
    nothing = pa.nulls(rows, pa.string())
    columns: dict[str, object] = {
        name: table[name] for name in ("key", "etag", "width", "height", "mask_key", "mask_sha256", "run_id")
    }
    confidence = np.nan_to_num(table["confidence"].to_numpy().astype(np.float64), nan=0.5)
    columns |= {
        "name": pa.array([""] * rows, pa.string()),
        "sha256": nothing,
        "stratum": table["stratum"].cast(pa.int32()),
        "cluster": table["cluster"] if "cluster" in table.column_names else nothing,
        "cluster_images": pa.nulls(rows, pa.int64())
        if cluster_images is None
        else pa.array(cluster_images.astype(np.int64)),
        "domain": domain_of(batch, record.by) if record.by is not None else nothing,
        "probability": pa.array(probabilities, pa.float64()),
        "confidence": pa.array(confidence),
        "model": pa.array(model.tolist(), pa.list_(pa.int64())),
        "left_out": nothing,
    }
    return pa.table({name: columns[name] for name in SAMPLE_SCHEMA.names}, schema=SAMPLE_SCHEMA).sort_by("key")


def _finish(
    record: AuditRecord,
    population: Population,
    audit: Store,
    wave: Wave,
    sample: pa.Table,
    phase: Callable[[str], None],
) -> Plan:
    """Write the tasks, then the draw."""
    phase("copying the images")
    rows = sample.select(["key", "etag", "mask_key", "confidence"]).to_pylist()
    written = write_tasks(
        [Task(**row) for row in rows],
        source_of(population.record),
        population.store,
        audit.at(f"tasks/{wave.number:04d}"),
        record.labels,
        record.tasks,
        prefill=record.prefill,
        model_version=record.model_id,
        url_prefix=record.url_prefix,
    )
    keys: Sequence[str] = sample["key"].to_pylist()
    for name, values in (("name", written.names), ("sha256", written.digests), ("left_out", written.left_out)):
        column = pa.array([values.get(key) for key in keys], pa.string())
        sample = sample.set_column(sample.column_names.index(name), SAMPLE_SCHEMA.field(name), column)
    create_wave(audit, wave, sample)
    return Plan(record, wave, sample, written.left_out, written.next_step)


def _revised(record: AuditRecord, population: Population, wave: Wave, sample: pa.Table) -> Revision:
    """How an earlier draw stands now that some of its images may have been replaced or labelled anew."""
    there = replace(population, only=frozenset(wave.runs))
    drawn: Drawn = draw(there, wave.rule, 0, wave.seed, record.by)
    wanted = set(sample["key"].to_pylist())
    current: set[str] = set()
    for batch in there.batches():
        current.update(wanted & set(batch["key"].to_pylist()))
    gone = tuple(sorted(wanted - current))
    images = np.array([stratum.images for stratum in wave.strata])
    if record.cluster is None:
        left = sample["stratum"].to_numpy()[[key in current for key in sample["key"].to_pylist()]]
        chosen = np.bincount(left, minlength=wave.rule.strata)
        strata = _strata(wave.rule, drawn.images, drawn.pixels, drawn.model, drawn.images, chosen)
        return Revision(number=wave.number, strata=strata, domains=_domains(drawn.domains), gone=gone)
    if gone or drawn.images.sum() != images.sum():
        raise InputError(
            f"images that draw {wave.number} was made from were replaced or labelled anew since, and a sample of whole "
            f"folders cannot follow that; plan a new audit"
        )
    return Revision(number=wave.number, strata=wave.strata, domains=wave.domains, gone=())
