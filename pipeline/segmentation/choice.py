"""Which keys a job works on: by suffix or by its globs, and what they mean for containers and their members.

A container is opened where it is chosen itself, or where a glob reaches into it (`photos.tar/*_left.jpg`). Without
--include every container is chosen. A chosen container gives its members that are named like images; a glob that
fits a member's whole key chooses that alone. What --exclude names is left out, be it a member or a whole container.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.decoding import heif
from pipeline.sources.kinds import KINDS, kind_of
from pipeline.sources.member import IS_MEMBER, address_of

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".jxl",
)  # fmt: skip
"""Taken when a job names no --include, in any case; see `image_suffixes`. Everything else is counted as left out."""

Mask = npt.NDArray[np.bool_]
KeyFilter = Callable[[pa.Array], Mask]


def image_suffixes() -> tuple[str, ...]:
    """IMAGE_SUFFIXES, and those of HEIC where this Python has the extra that reads it."""
    return IMAGE_SUFFIXES + (heif.SUFFIXES if heif.is_installed() else ())


def are_unreadable(keys: pa.Array) -> Mask:
    """Which keys are named like HEIC, while nothing here reads it."""
    if heif.is_installed():
        return _nothing(keys)
    return _named(keys, heif.SUFFIXES)


def key_filter(include: Sequence[str], exclude: Sequence[str]) -> KeyFilter:
    """A predicate on arrays of keys. Globs match whole keys and `*` crosses `/`, as in the AWS CLI; `**/` may match
    nothing.
    """
    included = _any_glob(include) if include else _is_image
    if not exclude:
        return included
    excluded = _any_glob(exclude)
    return lambda keys: included(keys) & ~excluded(keys)


def entry_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[pa.RecordBatch], Mask]:
    """A predicate on batches of LISTING_SCHEMA in which containers were opened: `key_filter`, and the rules above."""
    by_key = key_filter(include, exclude)
    excluded = _any_glob(exclude) if exclude else _nothing
    chosen = _any_glob(include) if include else _everything

    def wanted(batch: pa.RecordBatch) -> Mask:
        mask = by_key(batch["key"]).copy()
        members = np.flatnonzero(are_members(batch))
        if len(members):
            mask[members] = of_members(batch.take(pa.array(members)), mask[members])
        return mask

    def of_members(batch: pa.RecordBatch, by_name: Mask) -> Mask:
        keys = batch["key"]
        places = list(map(address_of, keys.to_pylist(), batch["etag"].to_pylist()))
        containers = pa.array(
            [key if place is None else place.container for key, place in zip(keys.to_pylist(), places, strict=True)],
            pa.string(),
        )
        # What says that a container is damaged has the container's own key, and comes with whatever is taken of it.
        is_whole = as_mask(pc.equal(keys, containers))
        images = by_name | (chosen(containers) & (_is_image(keys) | _all_images(containers))) | is_whole
        return images & ~excluded(keys) & ~excluded(containers)

    return wanted


def container_filter(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A predicate on keys: whether it is a container that such a job opens."""
    globs = [glob for each in include for glob in (each, *_reaching_into(each))]
    opened = _any_glob(globs) if globs else _everything
    excluded = _any_glob(exclude) if exclude else _nothing

    def opens(key: str) -> bool:
        keys = pa.array([key], pa.string())
        return kind_of(key) is not None and bool(opened(keys)[0] and not excluded(keys)[0])

    return opens


def _reaching_into(glob: str) -> list[str]:
    """The globs of containers that a glob of members names: `a/*.tar` of `a/*.tar/0*.jpg`."""
    return [
        glob[: match.end() - 1]
        for kind in KINDS
        for match in re.finditer(re.escape(kind.suffix) + "/", glob, re.IGNORECASE)
    ]


def _all_images(containers: pa.Array) -> Mask:
    """Which containers hold nothing but images, whatever their members are called."""
    suffixes = "|".join(re.escape(kind.suffix) for kind in KINDS if not kind.holds_others)
    return as_mask(pc.match_substring_regex(containers, rf"(?:{suffixes})\z", ignore_case=True))


def are_members(batch: pa.RecordBatch) -> Mask:
    """Which rows of a batch of LISTING_SCHEMA are members of containers."""
    return as_mask(pc.match_substring_regex(batch["etag"], IS_MEMBER))


def _everything(keys: pa.Array) -> Mask:
    return np.ones(len(keys), bool)


def _nothing(keys: pa.Array) -> Mask:
    return np.zeros(len(keys), bool)


def _is_image(keys: pa.Array) -> Mask:
    return _named(keys, image_suffixes())


def _named(keys: pa.Array, suffixes: Sequence[str]) -> Mask:
    endings = "|".join(suffix.removeprefix(".") for suffix in suffixes)
    return as_mask(pc.match_substring_regex(keys, rf"\.(?:{endings})\z", ignore_case=True))


def _any_glob(patterns: Sequence[str]) -> Callable[[pa.Array], Mask]:
    variants = sorted({variant for pattern in patterns for variant in (pattern, pattern.replace("**/", ""))})
    if any("[" in variant for variant in variants):
        # Only Python reads these as Python's fnmatch does.
        expression = re.compile("|".join(map(fnmatch.translate, variants)))
        return lambda keys: np.array([expression.match(key) is not None for key in keys.to_pylist()], bool)
    simple = "|".join(re.escape(variant).replace(r"\*", ".*").replace(r"\?", ".") for variant in variants)
    return lambda keys: as_mask(pc.match_substring_regex(keys, rf"(?s)\A(?:{simple})\z"))


def as_mask(answers: pa.Array | pa.ChunkedArray) -> Mask:
    """Booleans of Arrow as numpy's; they may be read-only."""
    answers = answers.combine_chunks() if isinstance(answers, pa.ChunkedArray) else answers
    mask: Mask = answers.to_numpy(zero_copy_only=False)
    return mask
