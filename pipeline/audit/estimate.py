"""`fcn audit estimate`: from a plan and its annotations to shares and accuracies with intervals.

Images that were drawn and not annotated are non-response: the annotated ones of their stratum stand for them, and each
is named. What is estimated is the output as it was when the newest sample was drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from pipeline.audit.accuracy import Agreed, Ratios, class_accuracy, mean_iou, pixel_accuracy
from pipeline.audit.annotations import find_annotations
from pipeline.audit.arrays import Array, Bools, Ints
from pipeline.audit.design import Design, merged
from pipeline.audit.files import AuditRecord, Domain, Stratum, Wave, read_audit, read_waves
from pipeline.audit.population import DOMAINS, domain_of
from pipeline.audit.results import ClassEstimate, ConfidenceBin, DomainEstimate, Estimate, NotUsed, Ratio
from pipeline.audit.scoring import Scored, read_scores
from pipeline.audit.shares import Estimator, Interval, Known, Measured, coefficients, estimate_shares
from pipeline.errors import InputError
from pipeline.numbers import counted, percent
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

LEAST_ANNOTATED = 2
LEAST_OF_DOMAIN = 2
FEW_RESPONSES = 0.9
BINS = 5


@dataclass(frozen=True)
class EstimateOptions:
    """How to estimate: `cluster` makes intervals follow from folders; images whose annotation is void for more than
    `most_void` of the pixels count as partly annotated and are not used; `seed` is the bootstrap's."""

    estimator: Estimator = "regression"
    cluster: str | None = None
    most_void: float = 0.5
    seed: int = 0


def estimate_audit(
    audit: Store,
    annotations: Store,
    options: EstimateOptions = EstimateOptions(),
    phase: Callable[[str], None] = lambda name: None,
) -> Estimate:
    """Estimate what an audit's annotations say of its output; writes nothing.

    Raises InputError for annotations that are no sample of a plan, and where too few images were annotated.
    """
    if options.cluster is not None and options.cluster not in DOMAINS:
        raise InputError(f"--cluster {options.cluster} is no folder or column; choose {', '.join(DOMAINS)}")
    record = read_audit(audit)
    waves = _standing(read_waves(audit))
    output = open_store(record.output)
    found = find_annotations(annotations, record.labels, _names(record, waves))
    phase("reading the annotations")
    scored, not_used = read_scores(record, output, waves, found, options.most_void)
    if len(scored) < LEAST_ANNOTATED:
        raise InputError(
            f"{len(scored)} of the images of {audit.uri} have a usable annotation, and an interval takes "
            f"{LEAST_ANNOTATED} or more; " + (f"{not_used[0].key!r}: {not_used[0].reason}" if not_used else "annotate")
        )
    phase("estimating")
    return _estimate(record, waves, scored, tuple(not_used), found.not_sampled, options)


def _standing(waves: Sequence[tuple[Wave, pa.Table]]) -> list[tuple[Wave, pa.Table]]:
    """The draws as they stood when the newest was made: of earlier ones what had not been replaced."""
    revisions = {revision.number: revision for revision in waves[-1][0].earlier}
    standing = []
    for wave, sample in waves:
        revision = revisions.get(wave.number)
        if revision is not None:
            wave = wave.model_copy(update={"strata": revision.strata, "domains": revision.domains})
            gone = set(revision.gone)
            sample = sample.filter(pa.array([key not in gone for key in sample["key"].to_pylist()], pa.bool_()))
        standing.append((wave, sample))
    return standing


def _names(record: AuditRecord, waves: Sequence[tuple[Wave, pa.Table]]) -> dict[str, str]:
    """Keys by the name of their task. An image that was replaced and drawn again has the key and name of the newer."""
    names: dict[str, str] = {}
    for _, sample in waves:
        for name, key in zip(sample["name"].to_pylist(), sample["key"].to_pylist(), strict=True):
            if names.setdefault(name, key) != key:
                raise InputError(
                    f"two images that were drawn have tasks called {name!r}: {names[name]!r} and {key!r};"
                    " name the masks by the images' keys"
                )
    return names


@dataclass(frozen=True)
class Sample:
    """All that was annotated, as units of a design."""

    design: Design
    measured: Measured
    agreed: Agreed
    predicted: Array  # pixels of each class that the model has where there is an annotation, [units, classes]
    domains: tuple[str | None, ...]
    confidence: Array
    images: Ints  # per unit


def _estimate(
    record: AuditRecord,
    waves: Sequence[tuple[Wave, pa.Table]],
    scored: Mapping[str, Scored],
    not_used: tuple[NotUsed, ...],
    not_sampled: tuple[str, ...],
    options: EstimateOptions,
) -> Estimate:
    sample = gather(record, waves, scored, options)
    known = _known([stratum for wave, _ in waves for stratum in wave.strata])
    factor = coefficients(sample.design, sample.measured, options.estimator)
    accuracies = class_accuracy(sample.design, sample.agreed, options.seed)
    classes = _classes(record, sample, known, factor, None, accuracies)
    drawn = sum(len(table) for _, table in waves)
    images = sum(stratum.images for wave, _ in waves for stratum in wave.strata)
    total = float(sample.design.weights @ sample.measured.pixels)
    return Estimate(
        audit_id=record.audit_id,
        output=record.output,
        model=record.model,
        model_id=record.model_id,
        recipe=record.recipe,
        where=record.where,
        by=record.by,
        created=datetime.now(UTC),
        images=images,
        without_mask=sum(wave.without_mask for wave, _ in waves),
        drawn=drawn,
        annotated=len(scored),
        response=len(scored) / drawn,
        estimator=options.estimator,
        cluster=record.cluster or options.cluster,
        void=float(sample.design.weights @ sample.measured.void) / total,
        accuracy=_ratio(pixel_accuracy(sample.design, sample.agreed, options.seed), 0),
        mean_iou=_ratio(mean_iou(sample.design, sample.agreed, options.seed), 0),
        classes=classes,
        domains=_domains(record, waves, sample, factor),
        calibration=_calibration(sample),
        not_used=not_used,
        not_sampled=not_sampled,
        notes=_notes(record, waves, scored, sample, classes, options),
    )


def gather(
    record: AuditRecord,
    waves: Sequence[tuple[Wave, pa.Table]],
    scored: Mapping[str, Scored],
    options: EstimateOptions,
) -> Sample:
    """The annotated images of all draws with the strata that they stand for; of folders that were drawn whole, with
    these as units."""
    stratum: list[int] = []
    sizes: list[float] = []
    rows: list[dict[str, object]] = []
    overlay: list[str] = []
    for wave, table in waves:
        kept = table.filter(pa.array([key in scored for key in table["key"].to_pylist()], pa.bool_()))
        stratum += (kept["stratum"].to_numpy() + len(sizes)).tolist()
        sizes += [float(each.units) for each in wave.strata]
        rows += kept.to_pylist()
        if options.cluster is not None and len(kept):
            overlay += domain_of(kept.combine_chunks().to_batches()[0], options.cluster).to_pylist()
    found = [scored[str(row["key"])] for row in rows]
    matrices = np.array([each.confusion for each in found])
    model = np.array([row["model"] for row in rows], np.float64)
    pixels = model.sum(axis=1)
    void = np.array([each.void for each in found], np.float64)
    truth, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    hits = np.diagonal(matrices, axis1=1, axis2=2).copy()
    columns = [truth, model, pixels[:, None], void[:, None], predicted, hits, hits.sum(axis=1)[:, None]]
    values = np.concatenate(columns, axis=1)
    strata = np.array(stratum, np.int64)
    codes: Ints | None = None
    images = np.ones(len(rows), np.int64)
    domains: tuple[str | None, ...] = tuple(None if row["domain"] is None else str(row["domain"]) for row in rows)
    confidence = np.array([row["confidence"] for row in rows], np.float64)
    whole = True
    if record.cluster is not None:
        units, strata, values, images, whole = _folders(rows, strata, values)
        domains = tuple(domains[unit] for unit in units)
        confidence = confidence[units]
    elif options.cluster is not None:
        codes = np.unique(np.array(overlay, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)
    strata, new_sizes = merged(strata, np.array(sizes))
    design = Design(strata, new_sizes, replacement=not whole, clusters=codes)
    count = truth.shape[1]
    parts = np.split(values, np.cumsum([count, count, 1, 1, count, count]), axis=1)
    truth, model, pixels_, void_, predicted, hits, right = parts
    measured = Measured(truth, model, pixels_[:, 0], void_[:, 0])
    agreed = Agreed(measured.pixels - measured.void, right[:, 0], hits, predicted, truth)
    return Sample(design, measured, agreed, predicted, domains, confidence, images)


def _folders(
    rows: Sequence[Mapping[str, object]], strata: Ints, values: Array
) -> tuple[list[int], Ints, Array, Ints, bool]:
    """Images summed up by the folder that was drawn, and expanded to all of its images; also the first image of each,
    how many images each has, and whether all images of all of them are there."""
    names = [f"{stratum}/{row['cluster']}" for stratum, row in zip(strata.tolist(), rows, strict=True)]
    _, first, codes = np.unique(np.array(names, dtype=object).astype(str), return_index=True, return_inverse=True)
    images = np.bincount(codes).astype(np.int64)
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, codes, values)
    there = np.array([int(str(rows[place]["cluster_images"])) for place in first.tolist()])
    return first.tolist(), strata[first], sums * (there / images)[:, None], images, bool((images >= there).all())


def _known(parts: Sequence[Stratum | Domain]) -> Known:
    model = np.array([part.model for part in parts], np.float64).sum(axis=0)
    return Known(model, float(sum(part.pixels for part in parts)))


def _classes(
    record: AuditRecord,
    sample: Sample,
    known: Known,
    factor: Array,
    inside: Bools | None,
    accuracies: Mapping[str, Ratios] | None,
) -> tuple[ClassEstimate, ...]:
    shares = estimate_shares(sample.design, sample.measured, known, factor, inside=inside)
    bias = estimate_shares(
        sample.design, sample.measured, known, 1 - factor,
        target=sample.predicted - sample.measured.truth, inside=inside, bounds=(-1.0, 1.0),
    )  # fmt: skip
    annotated = int(sample.images.sum())
    return tuple(
        ClassEstimate(
            class_id=index,
            name=name,
            share=float(shares.value[index]),
            low=float(shares.low[index]),
            high=float(shares.high[index]),
            model_share=float(known.model[index] / known.pixels),
            bias=float(bias.value[index]),
            bias_low=float(bias.low[index]),
            bias_high=float(bias.high[index]),
            more_images=_more(shares, index, annotated),
            design_effect=float(shares.effect[index]),
            widened=bool(shares.widened[index]),
            **{word: _ratio(ratios, index) for word, ratios in (accuracies or {}).items()},
        )
        for index, name in enumerate(record.labels.names)
    )


def _more(shares: Interval, index: int, annotated: int) -> int | None:
    more = round((float(shares.factor[index]) - 1) * annotated)
    return more if more > 0 else None


def _ratio(ratios: Ratios, index: int) -> Ratio:
    def number(values: Array) -> float | None:
        return None if np.isnan(values[index]) else float(values[index])

    return Ratio(
        value=number(ratios.value),
        low=number(ratios.low),
        high=number(ratios.high),
        boot_low=number(ratios.boot_low),
        boot_high=number(ratios.boot_high),
    )


def _domains(
    record: AuditRecord, waves: Sequence[tuple[Wave, pa.Table]], sample: Sample, factor: Array
) -> tuple[DomainEstimate, ...]:
    parts: dict[str, list[Domain]] = {}
    for wave, _ in waves:
        for domain in wave.domains:
            parts.setdefault(domain.name, []).append(domain)
    found = []
    for name, here in sorted(parts.items()):
        inside = np.array([each == name for each in sample.domains], bool)
        annotated = int(sample.images[inside].sum())
        enough = int(inside.sum()) >= LEAST_OF_DOMAIN
        classes = _classes(record, sample, _known(here), factor, inside, None) if enough else ()
        found.append(
            DomainEstimate(name=name, images=sum(each.images for each in here), annotated=annotated, classes=classes)
        )
    return tuple(found)


def _calibration(sample: Sample) -> tuple[ConfidenceBin, ...]:
    """Pixel accuracy beside confidence, in bins of about as many annotated images each."""
    order = np.argsort(sample.confidence, kind="stable")
    weights = sample.design.weights
    bins = []
    for places in np.array_split(order, min(BINS, max(1, len(order) // 5))):
        labelled = float((weights * sample.agreed.labelled)[places].sum())
        if not labelled:
            continue
        pixels = (weights * sample.measured.pixels)[places]
        bins.append(
            ConfidenceBin(
                images=int(sample.images[places].sum()),
                confidence=float((pixels * sample.confidence[places]).sum() / pixels.sum()),
                accuracy=float((weights * sample.agreed.right)[places].sum()) / labelled,
            )
        )
    return tuple(bins)


def _notes(
    record: AuditRecord,
    waves: Sequence[tuple[Wave, pa.Table]],
    scored: Mapping[str, Scored],
    sample: Sample,
    classes: Sequence[ClassEstimate],
    options: EstimateOptions,
) -> tuple[str, ...]:
    notes = []
    drawn = sum(len(table) for _, table in waves)
    if len(scored) < FEW_RESPONSES * drawn:
        notes.append(
            f"only {percent(len(scored) / drawn)} of the images drawn are annotated: if the others differ from those "
            "of their stratum, the intervals do not know of it"
        )
    strata = sum(1 for wave, _ in waves for stratum in wave.strata if stratum.images)
    if len(sample.design.sizes) < strata:
        notes.append(
            f"{counted(strata - len(sample.design.sizes), 'stratum', 'strata')} with fewer than two annotated units "
            "joined the one before"
        )
    widened = [each.name for each in classes if each.widened]
    if widened:
        notes.append(
            f"all images of the sample have one error, mostly none, in {', '.join(widened)}: the intervals are what so "
            "many images cannot have missed"
        )
    missing = sum(wave.without_mask for wave, _ in waves)
    if missing:
        notes.append(f"{counted(missing, 'image')} without a mask are not part of what was audited")
    if record.prefill:
        notes.append("people saw the model's masks when they annotated, which draws their masks towards them")
    if options.cluster is not None and record.cluster is None:
        notes.append(
            f"intervals are for images like these: each {options.cluster} of the sample stands for others that might "
            "have been there"
        )
    return tuple(notes)
