"""What is known of the model that a run used, from its model.json; the weights are not read."""

from dataclasses import dataclass

from fcn_core.errors import FcnError
from fcn_core.labels import RGB, LabelSet
from fcn_core.models.description import MODEL_FILE, ModelDescription, parse_description
from pipeline.errors import PipelineError, StorageError
from pipeline.outputs.masks import read_mask
from pipeline.outputs.runs import RunRecord
from pipeline.report.pictures import palette_of
from pipeline.report.samples import candidates
from pipeline.report.summary import Summary
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store


@dataclass(frozen=True)
class ModelCard:
    """`description` is None when it could not be read; then `missing` says why."""

    description: ModelDescription | None
    missing: str = ""


def read_card(record: RunRecord) -> ModelCard:
    """The description of the model of a run, if it is still where the run found it."""
    uri = record.model.uri if record.model else str(record.job.get("model", ""))
    try:
        description = parse_description(open_store(uri).get(MODEL_FILE), uri)
    except (PipelineError, FcnError) as error:
        return ModelCard(None, f"The model's description could not be read: {error}")
    if description.model_id != record.model_id:
        return ModelCard(None, f"{uri} now holds another model, {description.model_id}.")
    return ModelCard(description)


def class_colors(card: ModelCard, summary: Summary, output: Store) -> dict[str, RGB]:
    """The colour of each class by name: the model's, else those of a mask's palette."""
    if card.description:
        labels = card.description.labels
        return {**dict(zip(labels.names, labels.palette, strict=True)), labels.void_name: labels.ignore_color}
    palette = _mask_palette(summary, output)
    if palette is None:
        return {}
    colors = (*palette.palette, palette.ignore_color)
    return {total.class_name: colors[total.class_id] for total in summary.classes}


def _mask_palette(summary: Summary, output: Store) -> LabelSet | None:
    if summary.sample is None:
        return None
    for candidate in candidates(summary.sample.slice(0, 4)):
        try:
            return palette_of(read_mask(output, candidate.mask_key))
        except (StorageError, FcnError, OSError):
            continue
    return None
