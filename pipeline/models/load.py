"""The model that a job names: a bundle's folder or URI, or `registry:<name>@champion`, opened and verified.

A reference to a registry is looked up once, here; the origin that comes with the bundle says what it stood for, and
goes into the job's record.
"""

from dataclasses import dataclass

from fcn_core import BundleError, ModelBundle
from fcn_core.models.description import LARGEST_DESCRIPTION, MODEL_FILE, WEIGHTS_FILE, parse_description
from pipeline.errors import InputError, ObjectMissing, StorageError, StorageUnavailable
from pipeline.models.origin import ModelOrigin
from pipeline.models.references import is_reference
from pipeline.models.registry import open_registry
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store


@dataclass(frozen=True)
class OpenedModel:
    """A verified bundle, and where it came from."""

    bundle: ModelBundle
    origin: ModelOrigin


def open_model(model: str, registry: str | None = None) -> OpenedModel:
    """Open the model at a path or URI, or the one that `registry:<name>[@<version>|@champion]` stands for now.

    `registry` is where references are looked up; default: FCN_REGISTRY. Raises InputError for what a person must
    mend, and lets StorageUnavailable through: that may mend itself.
    """
    try:
        if not is_reference(model):
            store = open_store(model)
            bundle = _read_bundle(model)
            return OpenedModel(bundle, ModelOrigin(asked=model, uri=store.uri, model_id=bundle.model_id))
        found = open_registry(registry).resolve(model)
        bundle = _read_bundle(found.uri)
        if bundle.model_id != found.model_id:
            raise InputError(
                f"{found.uri} holds model {bundle.model_id} where the registry promises {found.model_id}; "
                "its files were replaced by hand, so delete the folder and publish the model again"
            )
    except StorageUnavailable:
        raise
    except (StorageError, BundleError) as error:
        raise InputError(str(error)) from error
    origin = ModelOrigin(
        asked=model,
        uri=found.uri,
        model_id=found.model_id,
        name=found.name,
        version=found.version,
        champion=found.champion,
    )
    return OpenedModel(bundle, origin)


def load_bundle(model: str, registry: str | None = None) -> ModelBundle:
    """The model at a path or URI, or the one that `registry:<name>[@<version>|@champion]` stands for now, verified.

    `registry` is where references are looked up; default: FCN_REGISTRY. Raises InputError for what a person must mend,
    StorageUnavailable for what may mend itself.
    """
    return open_model(model, registry).bundle


def _read_bundle(uri: str) -> ModelBundle:
    store = open_store(uri)
    files = {}
    try:
        # model.json first: where it is the commit, all others are there too, and it says which those are.
        files[MODEL_FILE] = store.get(MODEL_FILE, most_bytes=LARGEST_DESCRIPTION)
    except ObjectMissing:
        _require_weights(store, uri)
        return ModelBundle.from_files({}, source=uri)  # says that model.json is missing
    description = parse_description(files[MODEL_FILE], uri)
    for name in (*description.other_files, *description.notes_files):
        try:
            files[name] = store.get(name, most_bytes=description.most_bytes_of(name))
        except ObjectMissing:
            continue  # from_files says which one is missing
    return ModelBundle.from_files(files, source=uri)


def _require_weights(store: Store, uri: str) -> None:
    try:
        store.head(WEIGHTS_FILE)
    except ObjectMissing:
        raise InputError(
            f"there is no model at {uri}: neither {MODEL_FILE} nor {WEIGHTS_FILE}; {_meant(uri)}"
        ) from None


def _meant(uri: str) -> str:
    """What to do where there is no model: the name of published weights is no place."""
    from fcn_core.weights.published import published  # PyTorch, which is slow to import

    if uri in published():
        return f"`fcn model get {uri} -o {uri}` fetches the published weights of that name into a folder"
    return "give the folder of a bundle (`fcn model new` makes one)"
