"""What an audit is on disk: what it audits, and its waves, each a random sample of what was new when it was drawn.

    AUDIT/audit.json                  which images of which output by which variant, and the classes; create-only
    AUDIT/waves/0001.json             strata, sums over the population, seed; written last, create-only
    AUDIT/samples/0001.parquet        the images drawn, with their inclusion probabilities
    AUDIT/tasks/0001/...              copies of the images as tasks for a labelling tool
    AUDIT/estimate.json, index.html   the newest estimate, made again by each `fcn audit estimate`

The estimate lies beside the results, too, as OUTPUT/audits/<audit id>.parquet.
"""

import re
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from fcn_core import LabelSet
from pipeline.audit.strata import StrataRule
from pipeline.errors import InputError, ObjectExists, ObjectMissing
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import BrokenSeal, check_json, to_json, to_parquet
from pipeline.storage.store import Store

FORMAT = "audit/1"
RECORD = "audit.json"
ESTIMATE = "estimate.json"
PAGE = "index.html"

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("stratum", pa.int32(), nullable=False),
        pa.field("cluster", pa.string()),
        pa.field("cluster_images", pa.int64()),
        pa.field("domain", pa.string()),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("mask_key", pa.string(), nullable=False),
        pa.field("mask_sha256", pa.string(), nullable=False),
        pa.field("model", pa.list_(pa.int64()), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("left_out", pa.string()),
    ],
    metadata={"fcn_schema": "audit_sample/1"},
)
"""One row per image drawn. `name` is that of its task, without a suffix; `sha256` of the image's bytes, `probability`
that it was to be drawn, `model` the model's pixels of each class; `left_out` says why there is no task for it.
`cluster_images` is how many images the cluster has that was drawn."""

_WAVE = re.compile(r"waves/(\d{4})\.json")


class Stratum(BaseModel):
    """Images alike to the model: how many there are, their pixels, the model's pixels of each class, and how many
    units (images, or folders with clusters) were drawn of how many."""

    model_config = ConfigDict(frozen=True)

    number: int
    description: str
    images: int
    pixels: int
    model: tuple[int, ...]
    units: int
    drawn: int


class Domain(BaseModel):
    """A part of the population that has an estimate of its own."""

    model_config = ConfigDict(frozen=True)

    name: str
    images: int
    pixels: int
    model: tuple[int, ...]


class Revision(BaseModel):
    """What is left of an earlier draw, of whose images some were replaced since: its strata and domains as they are
    now, and the keys of its sample that are `gone`."""

    model_config = ConfigDict(frozen=True)

    number: int
    strata: tuple[Stratum, ...]
    domains: tuple[Domain, ...]
    gone: tuple[str, ...]


class Wave(BaseModel):
    """waves/<number>.json: one draw. `runs` are those whose rows it was drawn from; `earlier` is how earlier draws
    stood when it was made."""

    model_config = ConfigDict(frozen=True)

    number: int
    n: int
    seed: int
    created: datetime
    rule: StrataRule
    strata: tuple[Stratum, ...]
    domains: tuple[Domain, ...]
    runs: tuple[str, ...]
    without_mask: int
    expected_half_width: tuple[float, ...]
    earlier: tuple[Revision, ...] = ()


class AuditRecord(BaseModel):
    """audit.json. `cluster` says what was drawn instead of images; `by` what domains are; `model_uri` where the model's
    files were when the output was written."""

    model_config = ConfigDict(frozen=True)

    format: str
    audit_id: str
    output: str
    source: str
    follow_links: bool
    model: str
    model_uri: str | None = None
    model_id: str
    params_id: str
    recipe: str
    labels: LabelSet
    where: str | None
    by: str | None
    cluster: str | None
    per_cluster: int
    tasks: Literal["label-studio", "cvat", "none"]
    prefill: bool
    url_prefix: str | None
    created: datetime
    version: str


def create_audit(audit: Store, record: AuditRecord) -> None:
    """Raises InputError where there is an audit already."""
    try:
        audit.create(RECORD, to_json(record.model_dump_json(indent=2)))
    except ObjectExists as error:
        raise InputError(
            f"there is an audit under {audit.uri}; `fcn audit extend` adds to it, or choose another place with -o"
        ) from error


def read_audit(audit: Store) -> AuditRecord:
    """Raises InputError for a place that holds no audit: annotations that no plan drew are no random sample."""
    try:
        data = audit.get(RECORD)
    except ObjectMissing as error:
        raise InputError(
            f"{audit.uri} holds no {RECORD}, so its images were not drawn by a plan; annotations that were chosen in "
            "another way, as for training, are no random sample and give no estimate: begin with `fcn audit plan`"
        ) from error
    record: AuditRecord = _parsed(AuditRecord, data, audit, RECORD)
    if record.format != FORMAT:
        raise InputError(
            f"{audit.uri} is an audit of a newer version of fcn-pipeline ({record.format}); upgrade this one"
        )
    return record


def create_wave(audit: Store, wave: Wave, sample: pa.Table) -> None:
    """Write a draw; its record last, so that half a draw is none. Raises InputError where one has its number."""
    try:
        audit.create(sample_key(wave.number), to_parquet(sample.cast(SAMPLE_SCHEMA)))
        audit.create(f"waves/{wave.number:04d}.json", to_json(wave.model_dump_json(indent=2)))
    except ObjectExists as error:
        raise InputError(
            f"{audit.uri}: draw {wave.number} is there already, by another command or one that was cut off; remove "
            f"{sample_key(wave.number)} if there is no waves/{wave.number:04d}.json beside it, and run again"
        ) from error


def read_waves(audit: Store) -> list[tuple[Wave, pa.Table]]:
    """All draws, oldest first, with their samples. Raises InputError when there is none."""
    numbers = sorted(int(match[1]) for info in audit.list("waves/") if (match := _WAVE.fullmatch(info.key)))
    if not numbers:
        raise InputError(f"{audit.uri} has no finished draw: its plan was cut off; remove it and plan again")
    found = []
    for number in numbers:
        key = f"waves/{number:04d}.json"
        wave = _parsed(Wave, audit.get(key), audit, key)
        sample = sample_key(number)
        found.append((wave, read_table(audit.get(sample), sample, SAMPLE_SCHEMA.names)))
    return found


def sample_key(number: int) -> str:
    return f"samples/{number:04d}.parquet"


def _parsed(kind: type[Any], data: bytes, audit: Store, key: str) -> Any:
    try:
        found = kind.model_validate_json(data)
        check_json(data)
    except BrokenSeal as error:
        raise InputError(f"{audit.uri}: {key} {error}; bring it back from a copy") from error
    except (ValidationError, ValueError) as error:
        raise InputError(f"{audit.uri}: {key} is not what an audit writes; bring it back from a copy") from error
    return found
