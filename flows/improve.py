"""The loop with people in it, as two flows: `choose` ends with tasks for them, `learn` begins with their annotations.

The one thing to know: nothing waits in between. Days pass, workers are replaced, servers restart, and all that is
needed then is in storage: the tasks where `choose` wrote them, the annotations where the tool exported them, the data
set with its versions, the registry.
"""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict

from flows.artifacts import as_task, refuse_relative_places
from flows.form import RetrainForm
from flows.markdown import block, code, plain
from flows.retrain import RetrainSummary, retrain
from pipeline.data.versioned.adding import add_to_dataset
from pipeline.data.versioned.references import LATEST, split_reference, with_version
from pipeline.data.versioned.report import AddReport, describe
from pipeline.data.versioned.versions import resolve
from pipeline.errors import InputError
from pipeline.insight.labelling_export import Exported
from pipeline.insight.next_images import choose as choose_images
from pipeline.insight.rank import Ranking
from pipeline.jobs.choose import ChooseJob
from pipeline.jobs.importing import AddOptions, Annotations
from pipeline.jobs.launch import HERE, Launch
from pipeline.logfmt import key_values
from pipeline.numbers import fixed
from pipeline.storage.uri import Uri

ROWS_LISTED = 200


class ChooseSummary(BaseModel):
    """What `choose` returns: where the tasks are, of how many images."""

    model_config = ConfigDict(frozen=True)

    tasks: str
    images: int
    left_out: int


class LearnSummary(BaseModel):
    """What `learn` returns: which version of the data set, what came into it, and what was learnt from it."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    added: int
    corrected: int
    retrained: RetrainSummary


@flow(name="choose", validate_parameters=True)
def choose(job: ChooseJob) -> ChooseSummary:
    """Choose the images of an output that are most worth annotating, and write tasks for people. `learn` goes on from
    what they make of them.

    Args:
        job: Which output, how many images, for which tool, and where the tasks go.
    """
    refuse_relative_places(job)
    dated = job.dated(flow_run.scheduled_start_time)
    ranking, exported = as_task("choose", lambda: choose_images(dated))
    as_task("publish", lambda: _publish_tasks(dated, ranking, exported))
    return ChooseSummary(tasks=dated.tasks, images=exported.images, left_out=len(exported.left_out))


@flow(name="learn", validate_parameters=True)
def learn(annotations: Uri, job: RetrainForm, adding: AddOptions | None = None, launch: Launch = HERE) -> LearnSummary:
    """Make what people have annotated the next version of `job.dataset`, then train a challenger on it, promote it
    if it beats the champion, and have it segment what `job.relabel` says.

    The same again is safe at any point: annotations that the data set has make no further version, and the retraining
    goes on where it ended. Fails when not one annotated image can be used.

    Args:
        annotations: What the annotation tool exported: a folder, .zip or .json, path or URI.
        job: What to train, and what it takes to win; `dataset` is a data set with versions.
        adding: How the annotations are read.
        launch: Where training, scoring and segmenting run.
    """
    read = adding or AddOptions()
    for places in (job, read, Annotations(annotations=annotations)):
        refuse_relative_places(places)
    place, version = split_reference(job.dataset)
    if version not in (None, LATEST):
        raise InputError(f"annotations make a new version of a data set, so name it without @{version}: {place}")
    report = as_task("add annotations", lambda: _add(place, annotations, read))
    as_task("publish annotations", lambda: _publish_annotations(annotations, report))
    if not report.usable:
        raise InputError(
            f"none of the annotations in {annotations} could be used; the artifact `annotations` says why of each"
        )
    dataset = with_version(place, report.version) if report.version is not None else resolve(f"{place}@{LATEST}")
    dated = job.dated(flow_run.scheduled_start_time).model_copy(update={"dataset": dataset})
    # A flow run of its own, with the artifacts of any retraining.
    retrained = retrain(dated, launch=launch)
    return LearnSummary(dataset=dataset, added=report.added, corrected=report.corrected, retrained=retrained)


def _publish_tasks(job: ChooseJob, ranking: Ranking, exported: Exported) -> None:
    create_table_artifact(
        [
            {"rank": row.rank, "image": plain(row.key), "why": plain(row.reason), "priority": fixed(row.priority, 3)}
            for row in ranking.ranked[:ROWS_LISTED]
        ],
        key="chosen",
        description=f"Images of {plain(job.output)} to annotate next, the first {ROWS_LISTED} at most",
    )
    lines = [
        f"# {exported.images:,} images to annotate",
        "",
        f"- tasks: {code(job.tasks)}, for {plain(job.format)}",
        f"- in the tool: {plain(exported.next_step)}",
        f"- chosen by {plain(job.by)} out of {ranking.images:,} images, masks of recipe {code(ranking.record.recipe)}",
        *([f"- {plain(ranking.diversity)}"] if ranking.diversity else []),
        *(f"- left out: {plain(key)}: {plain(why)}" for key, why in exported.left_out[:ROWS_LISTED]),
        "",
        "When they are annotated, export them from the tool and run the deployment of `learn` with the export's place "
        f"as `annotations`. Copies are known again by {code('images.csv')}; keep it with the export, or name it as "
        f"{code('adding.names')}.",
    ]
    create_markdown_artifact("\n".join(lines), key="tasks", description=f"Tasks in {plain(job.tasks)}")


def _add(place: str, annotations: str, adding: AddOptions) -> AddReport:
    log = get_run_logger()
    report = add_to_dataset(place, annotations, adding)
    log.info("%s", key_values(version=report.version, added=report.added, corrected=report.corrected))
    return report


def _publish_annotations(annotations: str, report: AddReport) -> None:
    create_markdown_artifact(
        block(describe(report)), key="annotations", description=f"What came into the data set from {plain(annotations)}"
    )
