"""From a ranking to tasks for people: which images are not asked for again, and the project that they are copied to."""

from pipeline.data.versioned.versions import open_version
from pipeline.errors import InputError
from pipeline.insight.labelling_export import Exported, ExportedImage, LabellingFormat, export_labelling
from pipeline.insight.rank import Ranking, rank
from pipeline.jobs.choose import ChooseJob
from pipeline.outputs.labels import read_labels
from pipeline.outputs.runs import source_of
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store


def annotated_keys(dataset: str | None) -> frozenset[str]:
    """The keys of a version of a data set, DATASET@latest or DATASET@3; none of None. Raises InputError."""
    return frozenset(row.key for row in open_version(dataset)[1].rows) if dataset is not None else frozenset()


def export_ranking(
    output: Store, ranking: Ranking, target: Store, form: LabellingFormat, url_prefix: str | None = None
) -> Exported:
    """Copy the ranked images from their source, with their masks as proposals, as a project under `target`."""
    source = source_of(ranking.record)
    source.check_readable()
    items = [ExportedImage(r.key, r.etag, r.mask_key, r.priority, r.reason, r.confidence) for r in ranking.ranked]
    labels = read_labels(output, ranking.record)
    version = ranking.record.model_id
    return export_labelling(items, source, output, target, labels, form, model_version=version, url_prefix=url_prefix)


def choose(job: ChooseJob) -> tuple[Ranking, Exported]:
    """Choose images and write their tasks. Raises InputError if anything is in `job.tasks`: it may be in use."""
    output = open_store(job.output)
    output.check_readable()
    target = open_store(job.tasks)
    target.check_writable()
    if next(iter(target.list()), None) is not None:
        raise InputError(
            f"{job.tasks} is not empty, and people may be at work on what is there; name a new place (with {{date}}, "
            "one for each day), or remove what a run that died has left there"
        )
    ranking = rank(
        output,
        job.by,
        top=job.top,
        per_folder=job.per_folder,
        diverse=job.diverse,
        without=annotated_keys(job.without),
    )
    if not ranking.ranked:
        raise InputError(f"every image of {job.output} is in {job.without} already; segment more images")
    return ranking, export_ranking(output, ranking, target, job.format, job.url_prefix)
