"""Make a run's report: read its results once, choose images, draw them, write one page.

Time and memory do not grow with the number of images but for the reading: a million rows take seconds.
"""

from collections.abc import Callable, Iterable

from fcn_core.labels import VOID
from pipeline.errors import PipelineError
from pipeline.numbers import count, counted, percent
from pipeline.outputs.results import ClassTotal
from pipeline.outputs.runs import RunRecord, read_record, source_of
from pipeline.outputs.standing import standing
from pipeline.report.changes import SAMPLED, Changes, compare, earlier_runs
from pipeline.report.gallery import GalleryGroup
from pipeline.report.model_card import class_colors, read_card
from pipeline.report.page import Contents, page
from pipeline.report.pictures import ImageRenderer, ImageRequest
from pipeline.report.summary import SPARES, Summary, random_candidates, summarize
from pipeline.storage.store import Store

RANDOM = 12
EACH = 8
"""Images shown in the other groups, at most."""

RARE_CLASSES = 4

SMALL = 24
"""A run of so many segmented images or fewer shows each of them once, instead of the same ones in every group."""


def pictures_shown(labelled: int, *, compared: bool) -> tuple[int, int]:
    """How many pictures the report of a run with so many segmented images has at most, and how many GETs they cost: the
    image and its mask, and the earlier mask of those that changed, where the run is `compared` with what was before.
    """
    changed = min(EACH, labelled) if compared else 0
    plain = labelled - changed if labelled <= SMALL else RANDOM + 2 * EACH
    return plain + changed, 2 * plain + 3 * changed


def report_key(run_id: str) -> str:
    """Where under OUTPUT the report of a run is."""
    return f"reports/{run_id}/index.html"


def write_report(output: Store, run_id: str, phase: Callable[[str], None] = lambda name: None) -> str:
    """Make the report of a run, replacing the one that is there; returns its key under `output`.

    `phase` hears what is going on. Raises ObjectMissing when there is no such run, and other PipelineErrors when its
    results cannot be read.
    """
    html = make_report(output, run_id, phase)
    key = report_key(run_id)
    output.put(key, html.encode())
    return key


def make_report(output: Store, run_id: str, phase: Callable[[str], None] = lambda name: None) -> str:
    """The page. Raises as `write_report` does."""
    record = standing(output, read_record(output, run_id))
    card = read_card(record)
    before = earlier_runs(output, record)
    phase("reading results")
    names = card.description.labels.names if card.description else ()
    sampled = SAMPLED if before else RANDOM * SPARES
    summary = summarize(output, run_id, shown=EACH, sampled=sampled, names=names)
    changes = None
    if before and summary.sample is not None:
        phase("comparing with what was current before")
        changes = compare(output, before, summary.sample, summary.ok, EACH)
    phase("drawing")
    source, trouble = open_photos(record)
    wanted = list(picture_groups(summary, changes))
    with ImageRenderer(source, output) as renderer:
        rendered = renderer.render([(requests, shown) for _, requests, shown in wanted])
    groups = [group.with_images(images) for (group, _, _), images in zip(wanted, rendered, strict=True)]
    return page(
        Contents(
            record=record,
            output=output.uri,
            summary=summary,
            card=card,
            colors=class_colors(card, summary, output),
            changes=changes,
            groups=tuple(group for group in groups if group.images),
            photo_trouble=trouble,
        )
    )


def open_photos(record: RunRecord) -> tuple[Store | None, str]:
    """Where the photos are, or why they cannot be had."""
    try:
        source = source_of(record)
        source.check_readable()
    except PipelineError as error:
        return None, f"The photos cannot be read now, so masks are shown alone: {error}"
    return source, ""


def picture_groups(summary: Summary, changes: Changes | None) -> Iterable[tuple[GalleryGroup, list[ImageRequest], int]]:
    """The gallery's groups, in the order of the page: what each is, its candidates, and how many to show."""
    if not summary.ok:
        return
    if summary.ok <= SMALL:
        yield from _small_groups(summary, changes)
        return
    yield (
        GalleryGroup("random", "At random", f"A fair look: drawn from all {counted(summary.ok, 'segmented image')}."),
        [ImageRequest(candidate, "") for candidate in random_candidates(summary, RANDOM * SPARES)],
        RANDOM,
    )
    yield (
        GalleryGroup(
            "least", "Least confident", "Where the model was least sure of its classes, the least sure first."
        ),
        [ImageRequest(candidate, "") for candidate in summary.least_confident],
        EACH,
    )
    rare = _rarest(summary)
    if rare:
        yield (
            GalleryGroup("rare", "Rare classes", f"Where {_listed(rare)} cover most of an image."),
            list(_rare_requests(summary, rare, EACH)),
            EACH,
        )
    if changes and changes.most:
        yield _most_changed(changes)


def _small_groups(summary: Summary, changes: Changes | None) -> Iterable[tuple[GalleryGroup, list[ImageRequest], int]]:
    """Every image once: those that changed beside what was there before, then the others."""
    shown: set[str] = set()
    if changes and changes.most:
        group, requests, _ = _most_changed(changes)
        shown = {request.candidate.key for request in requests[:EACH]}
        yield group, requests[:EACH], EACH
    others = [each for each in random_candidates(summary, SMALL) if each.key not in shown]
    others.sort(key=lambda each: (each.confidence, each.key))
    yield (
        GalleryGroup(
            "all",
            "All others" if shown else "All images",
            f"Every {'other ' if shown else ''}segmented image, the least confident first.",
        ),
        [ImageRequest(candidate, "") for candidate in others],
        SMALL,
    )


def _most_changed(changes: Changes) -> tuple[GalleryGroup, list[ImageRequest], int]:
    of = "a random sample of " if changes.sampled else ""
    group = GalleryGroup(
        "changed",
        "Most changed",
        f"Before and now, against the masks that were current before (variant {changes.before.recipe}, newest run "
        f"{changes.before.run_id}), by class areas. {count(changes.compared)} of {of}"
        f"{counted(changes.looked_at, 'image')} had a mask then and have the same bytes now; on average at "
        f"least {percent(changes.mean)} of each of them has another class.",
    )
    requests = [
        ImageRequest(item.candidate, f"at least {percent(item.change)} of the pixels changed", item.mask_before)
        for item in changes.most
    ]
    return group, requests, EACH


def _rarest(summary: Summary) -> list[ClassTotal]:
    """The classes of the least area that occur at all, rarest first; never the half that is most common."""
    classes = (total for total in summary.classes if total.pixels and total.class_id != VOID)
    present = sorted(classes, key=lambda total: total.pixels)
    return present[: min(RARE_CLASSES, len(present) // 2)]


def _listed(classes: list[ClassTotal]) -> str:
    names = [total.class_name for total in classes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _rare_requests(summary: Summary, rare: list[ClassTotal], each: int) -> Iterable[ImageRequest]:
    """The best of each rare class, classes taking turns, no image twice."""
    seen: set[str] = set()
    for turn in range(each * SPARES):
        for total in rare:
            candidates = summary.rare.get(total.class_id, ())
            if turn < len(candidates) and candidates[turn].key not in seen:
                seen.add(candidates[turn].key)
                share = next(part for name, part in candidates[turn].shares if name == total.class_name)
                yield ImageRequest(candidates[turn], f"{total.class_name} {percent(share)}")
