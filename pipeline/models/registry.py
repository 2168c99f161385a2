"""Models in object storage, by name: publish, look up, promote.

    REGISTRY/models/<name>/<version>/model.safetensors, model.json    a version; model.json, written last, is its commit
    REGISTRY/models/<name>/champions/00000001.json                     a promotion; the highest number is the champion

The one thing to know: every object is created once and never replaced, and a version is called by its model_id. So
publishing the same model twice, or from two machines at once, is one version; a version without model.json does not
exist; and of promotions at the same moment each gets a number of its own, which is their order.
"""

import contextlib
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from fcn_core.errors import BundleError
from fcn_core.metrics import Scores, with_current_names
from fcn_core.models.description import (
    LARGEST_DESCRIPTION,
    MODEL_FILE,
    ModelDescription,
    ModelId,
    parse_description,
)
from pipeline.errors import InputError, ObjectExists, ObjectMissing, PipelineError, StorageError, StorageUnavailable
from pipeline.models.mlflow_mirror import mirror_champion
from pipeline.models.references import NAME, PREFIX, VERSION, Reference, ResolvedReference, check_name, check_version
from pipeline.models.scores_check import check_scores
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

if TYPE_CHECKING:
    from fcn_core.bundle import ModelBundle  # of PyTorch's tensors: who only looks models up needs none

log = logging.getLogger(__name__)

ENVIRONMENT = "FCN_REGISTRY"

_CHAMPION_KEY = re.compile(r"models/[^/]+/champions/([0-9]{8})\.json")


class ChampionChanged(PipelineError):
    """Somebody else promoted a version since the champion was looked at; nothing was promoted."""


@dataclass(frozen=True)
class Version:
    """A published model, without its weights. `published` is None where model.json does not tell."""

    name: str
    version: str
    uri: str
    description: ModelDescription
    published: datetime | None
    notes: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        return self.description.model_id


class Champion(BaseModel):
    """One promotion: champions/<number>.json."""

    # Not extra="forbid": a field that a later program adds must not hide the champion from this one.
    model_config = ConfigDict(frozen=True)

    number: int
    version: ModelId
    model_id: ModelId
    reason: str
    time: datetime
    scores: Annotated[dict[str, Any] | None, BeforeValidator(with_current_names)] = None
    previous: ModelId | None = None
    """The version that was champion until then."""
    token: str
    """Random: by it a writer knows its own record."""


class Registry:
    """The registry in a store. Safe to share between threads; a pickled one opens its store anew.

    What cannot be as asked is an InputError; what storage refuses later on is the StorageError it is.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def uri(self) -> str:
        """Where it is: what `open_registry` takes."""
        return self._store.uri

    def check_readable(self) -> None:
        """Raise one clear InputError if there can be no reading here: no such folder or bucket, not allowed."""
        try:
            self._store.check_readable()
        except StorageUnavailable:
            raise
        except StorageError as error:
            raise InputError(f"the registry cannot be read: {error}") from error

    def check_writable(self, name: str) -> None:
        """Raise one clear InputError if `name` can be neither published nor promoted here. Leaves nothing behind."""
        check_name(name)
        for folder in (f"models/{name}", f"models/{name}/champions"):
            self._check_writable(folder)

    def publish(self, name: str, bundle: "ModelBundle", notes: Mapping[str, Any] | None = None) -> str:
        """Make `bundle` a version of `name` and return which: its model_id.

        A model that is there already stays as it was first published, notes included. `notes` are JSON-able and kept,
        with the time, in model.json under provenance. Cut off at any point, nothing was published, and the same call
        again completes it. Raises InputError for a model whose scores are not finite, and where the version that is
        there has damaged files.
        """
        check_name(name)
        check_scores(bundle)
        self._check_writable(f"models/{name}")
        version = bundle.model_id
        folder = _folder(name, version)
        published = self.find(name, version)
        if published is not None and not self._lost(published):
            self._check_whole(published)
            return version
        stamp = {"name": name, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "notes": dict(notes or {})}
        files = replace(bundle, provenance={**bundle.provenance, "published": stamp}).to_files()
        description = files.pop(MODEL_FILE)
        for file, content in files.items():
            self._create_weights(f"{folder}/{file}", content)
        try:
            self._store.create(f"{folder}/{MODEL_FILE}", description)
        except ObjectExists:
            self.find(name, version)  # another publisher's, or this call's own after a retry; raises if it is damaged
        return version

    def names(self) -> list[str]:
        """The names that have a version, sorted."""
        keys = (info.key.split("/") for info in self._store.list("models/"))
        return sorted({key[1] for key in keys if _is_commit(key)})

    def versions(self, name: str) -> list[Version]:
        """The versions of `name`, newest first; none for a name that is not there."""
        check_name(name)
        found = []
        for info in self._store.list(f"models/{name}/"):
            key = info.key.split("/")
            if not _is_commit(key):
                continue
            try:
                version = self.find(name, key[2])
            except InputError as error:
                log.warning("not_listed version=%s reason=%s", info.key, error)
                continue
            if version is not None:
                found.append(version)
        epoch = datetime.fromtimestamp(0, UTC)
        return sorted(found, key=lambda version: (version.published or epoch, version.version), reverse=True)

    def find(self, name: str, version: str) -> Version | None:
        """One version, or None when it does not exist (yet). Raises InputError when its model.json is damaged."""
        check_name(name)
        check_version(version)
        store = self._store.at(_folder(name, version))
        if MODEL_FILE not in self._files(name, version):
            return None
        try:
            description = parse_description(store.get(MODEL_FILE), store.uri)
        except BundleError as error:
            raise InputError(str(error)) from error
        if description.model_id != version:
            raise InputError(
                f"{store.uri}: {MODEL_FILE} is of model {description.model_id}; it was moved or edited by hand, "
                "so delete the folder and publish the model again"
            )
        return Version(name, version, store.uri, description, *_stamp(description))

    def champion(self, name: str) -> Champion | None:
        """The newest promotion of `name`; None when there was none."""
        number = max(self._numbers(name), default=0)
        return self._read_champion(name, number) if number else None

    def promotions(self, name: str) -> list[Champion]:
        """All promotions of `name`, newest first."""
        return [self._read_champion(name, number) for number in sorted(self._numbers(name), reverse=True)]

    def promote(
        self,
        name: str,
        version: str,
        reason: str,
        scores: Scores | Mapping[str, Any] | None = None,
        *,
        after: int | None = None,
    ) -> int:
        """Make `version` the champion of `name` and return the promotion's number.

        Of callers at the same moment each gets a number of its own; the highest is the champion. `after`, the number
        of the champion that the version was compared with (0: there was none), makes it conditional: ChampionChanged
        is raised when another was promoted since, unless it is this version. An older version can be promoted again,
        which is how one goes back.

        After StorageUnavailable the promotion may or may not have happened: ask `champion`. Where MLFLOW_TRACKING_URI
        is set, MLflow's registry follows.
        """
        number = self._promote(name, version, reason, scores, after)
        mirror_champion(name, version, self._store.at(_folder(name, version)).uri, " ".join(reason.split()), number)
        return number

    def _promote(
        self, name: str, version: str, reason: str, scores: Scores | Mapping[str, Any] | None, after: int | None
    ) -> int:
        reason = " ".join(reason.split())
        if not reason:
            raise InputError(f"a promotion of {name} needs a reason; say in a few words why this version")
        found = self._require(name, version)
        if lost := self._lost(found):
            raise InputError(f"{found.uri} has lost its {lost[0]}; publish the model again before it is promoted")
        self._check_whole(found)
        self._check_writable(f"models/{name}/champions")
        values = scores.model_dump(mode="json") if isinstance(scores, Scores) else scores
        token = secrets.token_hex(16)
        while True:
            previous = self.champion(name)
            latest = previous.number if previous else 0
            if after is not None and latest != after:
                if previous and previous.version == version:
                    return latest
                raise ChampionChanged(
                    f"the champion of {name} is number {latest}, no longer {after}; compare {version} with that one"
                )
            record = Champion(
                number=latest + 1,
                version=version,
                model_id=found.model_id,
                reason=reason,
                time=datetime.now(UTC),
                scores=None if values is None else dict(values),
                previous=previous.version if previous else None,
                token=token,
            )
            try:
                self._store.create(_champion_key(name, record.number), record.model_dump_json(indent=2).encode())
            except ObjectExists:
                # Storage may have retried a write that had worked: whose record it is, it says itself.
                if self._read_champion(name, record.number).token != token:
                    continue
            return record.number

    def resolve(self, reference: str | Reference) -> ResolvedReference:
        """Look a reference up, now. Raises InputError when there is no such model, version or champion."""
        if isinstance(reference, str):
            reference = Reference.parse(reference)
        self.check_readable()
        champion = None
        version = reference.version
        if version is None:
            champion = self.champion(reference.name)
            if champion is None:
                self._refuse_unknown(reference.name)
                raise InputError(
                    f"{reference.name} has no champion yet in {self.uri}; promote a version "
                    f"(`fcn registry promote`), or name one as {PREFIX}{reference.name}@VERSION"
                )
            version = champion.version
        found = self._require(reference.name, version)
        return ResolvedReference(found.name, version, found.uri, found.model_id, champion.number if champion else None)

    def _require(self, name: str, version: str) -> Version:
        found = self.find(name, version)
        if found is None:
            self._refuse_unknown(name)
            raise InputError(
                f"{name} has no version {version} in {self.uri}; `fcn registry list {name}` shows those there are"
            )
        return found

    def _refuse_unknown(self, name: str) -> None:
        names = self.names()
        if name not in names:
            known = f"there are: {', '.join(names)}" if names else "it holds none yet (`fcn registry publish`)"
            raise InputError(f"there is no model {name} in the registry {self.uri}; {known}")

    def _create_weights(self, key: str, weights: bytes) -> None:
        try:
            self._store.create(key, weights)
        except ObjectExists:
            # Another publisher's, or one's that was cut off. What the commit will vouch for must be looked at.
            if hashlib.sha256(self._store.get(key)).digest() != hashlib.sha256(weights).digest():
                raise InputError(
                    f"{self.uri}: {key} holds other bytes than the model of that id; delete it and publish again"
                ) from None

    def _lost(self, version: Version) -> list[str]:
        """Which of a published version's files beside model.json are not there (any more)."""
        there = self._files(version.name, version.version)
        return [file for file in version.description.other_files if file not in there]

    def _check_whole(self, version: Version) -> None:
        """Raise InputError if any of a version's files is not what was published: its users would fail one by one."""
        from fcn_core.bundle import ModelBundle

        store, description = self._store.at(_folder(version.name, version.version)), version.description
        try:
            files = {MODEL_FILE: store.get(MODEL_FILE, most_bytes=LARGEST_DESCRIPTION)}
            for name in (*description.other_files, *description.notes_files):
                with contextlib.suppress(ObjectMissing):
                    files[name] = store.get(name, most_bytes=description.most_bytes_of(name))
            ModelBundle.from_files(files, store.uri)
        except BundleError as error:
            raise InputError(f"{error}: delete the folder {store.uri} and publish the model again") from error

    def _files(self, name: str, version: str) -> set[str]:
        """Which of a version's files are there. Listed: to whom listing is allowed below a prefix only, S3 answers a
        request for what is not there as one that is not allowed.
        """
        folder = _folder(name, version) + "/"
        return {info.key.removeprefix(folder) for info in self._store.list(folder)}

    def _numbers(self, name: str) -> list[int]:
        check_name(name)
        keys = (info.key for info in self._store.list(f"models/{name}/champions/"))
        return [int(match[1]) for key in keys if (match := _CHAMPION_KEY.fullmatch(key))]

    def _read_champion(self, name: str, number: int) -> Champion:
        key = _champion_key(name, number)
        try:
            record = Champion.model_validate_json(self._store.get(key))
            if record.number != number:
                raise ValueError(f"it says number {record.number}")
        except (ValidationError, ValueError, ObjectMissing) as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            # An older champion in its place would be a change that nobody decided.
            raise InputError(f"{self.uri}: {key} is damaged ({why}); delete it, and promote a version anew") from error
        return record

    def _check_writable(self, folder: str) -> None:
        """Also that the service honours create-only writes: not every one does, on versioned buckets least of all.

        Asked where the write will go, so that a right to publish need not be one to promote.
        """
        try:
            self._store.at(folder).check_writable()
        except StorageUnavailable:
            raise
        except StorageError as error:
            raise InputError(f"the registry cannot be written: {error}") from error


def open_registry(uri: str | None = None) -> Registry:
    """The registry at a path or URI; without one, the one that FCN_REGISTRY names. Raises InputError."""
    uri = uri or os.environ.get(ENVIRONMENT)
    if not uri:
        raise InputError(f"which registry is not said; give --registry, or set {ENVIRONMENT} to its folder or URI")
    return Registry(open_store(uri))


def _folder(name: str, version: str) -> str:
    return f"models/{name}/{version}"


def _champion_key(name: str, number: int) -> str:
    return f"models/{name}/champions/{number:08}.json"


def _is_commit(key: list[str]) -> bool:
    """Whether a key, split, is that of a version's model.json."""
    match key:
        case ["models", name, version, file]:
            return file == MODEL_FILE and bool(NAME.fullmatch(name) and VERSION.fullmatch(version))
    return False


def _stamp(description: ModelDescription) -> tuple[datetime | None, Mapping[str, Any]]:
    """When a version was published, and the notes it was published with."""
    stamp = description.provenance.get("published")
    if not isinstance(stamp, dict):
        return None, {}
    notes = stamp.get("notes")
    try:
        time = datetime.fromisoformat(str(stamp.get("time")))
    except ValueError:
        time = None
    return time and time.replace(tzinfo=time.tzinfo or UTC), notes if isinstance(notes, dict) else {}
