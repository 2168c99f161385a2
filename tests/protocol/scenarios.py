"""Where a search begins: what is stored, and who is about to do what with it. Two images, two versions of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.jobs.segment import SegmentJob
from tests.protocol.memory import Calm, Contents, Request, asking
from tests.protocol.participants import Live
from tests.protocol.world import FIRST, JOB, OUTPUT, SECOND, Work, clean, driver, index, source_becomes

A, B = "a.jpg", "b.jpg"


@dataclass(frozen=True)
class Scenario:
    """What is stored `before`, the participants, and the job that comes last."""

    before: Callable[[], Contents]
    works: Mapping[str, Work]
    last: SegmentJob = JOB


def job(**changes: Any) -> SegmentJob:
    return JOB.model_copy(update=changes)


def after(*works: Work, hours: int = -9) -> Contents:
    """Two images in their first version, and what these did undisturbed, one per hour, by a clock that far ahead."""
    calm = Calm(Contents())
    calm.do("source", source_becomes({A: FIRST, B: FIRST}))
    for number, work in enumerate(works):
        calm.do(f"{number}+{hours + number}h", work)
    return calm.contents


def killed(work: Work, at: Callable[[Request], bool]) -> Work:
    """The same, killed before the first request that `at` names."""

    def until_then() -> None:
        live = Live(asking.name, work)
        while live.request is not None and not at(live.request):
            live.grant(asking.ask(live.request))
        live.end()

    return until_then


def forgotten(prefix: str) -> Work:
    """Objects are deleted by hand."""

    def delete() -> None:
        for info in list(OUTPUT.list(prefix)):
            OUTPUT.delete(info.key)

    return delete


def newest_run_deleted() -> None:
    """As docs/upkeep.md says; its masks stay."""
    newest = max(info.key.split("/")[1] for info in OUTPUT.list("runs/"))
    for prefix in (
        f"results/run_id={newest}/",
        f"class_areas/run_id={newest}/",
        f"class_totals/run_id={newest}.parquet",
        f"runs/{newest}/",
    ):
        forgotten(prefix)()


def second_commit(request: Request) -> bool:
    writes = request.verb in ("create", "put")
    return writes and request.key.endswith("/shard-00000001.parquet") and "/results/" in request.key


def everybody(first: SegmentJob = JOB, second: SegmentJob = JOB, **others: Work) -> dict[str, Work]:
    """Two drivers, the second of which takes the first for dead, gc, and compaction."""
    return {"one": driver(first), "two+2h": driver(second), "gc+4h": clean, "index": index, **others}


ONLY_A, PACKED = job(include=("a*",)), job(masks="tar")

SCENARIOS = {
    "nothing": Scenario(after, everybody()),
    "clock behind": Scenario(after, {"one": driver(), "two+-2h": driver(), "gc+4h": clean, "index": index}),
    "clock ahead once": Scenario(lambda: after(driver(), source_becomes({A: SECOND}), hours=99), everybody()),
    "masks without rows": Scenario(lambda: after(driver(ONLY_A), driver(), newest_run_deleted), everybody()),
    "packed": Scenario(
        lambda: after(driver(job(include=("a*",), masks="tar")), driver(PACKED), newest_run_deleted),
        everybody(PACKED, PACKED),
        PACKED,
    ),
    "interrupted": Scenario(lambda: after(killed(driver(), second_commit)), everybody()),
    "interrupted, another job": Scenario(
        lambda: after(killed(driver(), second_commit)), everybody(JOB, job(include=("*.jpg",)))
    ),
    "interrupted, changing": Scenario(
        lambda: after(killed(driver(), second_commit)), everybody(source=source_becomes({B: SECOND}))
    ),
    "changing": Scenario(lambda: after(driver()), everybody(source=source_becomes({A: SECOND}, {A: FIRST}))),
    "restored": Scenario(
        lambda: after(driver(), source_becomes({A: SECOND}), driver(), source_becomes({A: FIRST})), everybody()
    ),
    "gone and back": Scenario(
        lambda: after(driver(), index, source_becomes({A: None})),
        everybody(source=source_becomes({A: SECOND}, {A: None}, {A: FIRST})),
    ),
    "indexed": Scenario(lambda: after(driver(ONLY_A), index, driver()), everybody()),
    "repair": Scenario(
        lambda: after(driver(), forgotten("masks/")), everybody(job(repair=True), job(repair=True)), job(repair=True)
    ),
}
