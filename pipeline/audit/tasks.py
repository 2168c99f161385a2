"""The images of a sample as tasks for a labelling tool: alone, or with the model's masks as proposals.

People who start from a proposal leave more of it than they would have drawn themselves, so tasks have none unless they
are asked for.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import quote

from fcn_core import LabelSet
from pipeline.errors import ObjectChanged, ObjectMissing
from pipeline.insight.labelling_export import (
    COPIES_AT_ONCE,
    ExportedImage,
    copy_names,
    export_labelling,
    image_prefix,
    label_config,
)
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store

TaskFormat = Literal["label-studio", "cvat", "none"]

_TASKS_PER_FILE = 50


@dataclass(frozen=True)
class Task:
    """One image of a sample."""

    key: str
    etag: str
    mask_key: str
    confidence: float


@dataclass(frozen=True)
class Written:
    """By key the name of each image's copy, without a suffix, and its SHA-256; why others have none; the next step."""

    names: dict[str, str]
    digests: dict[str, str]
    left_out: dict[str, str]
    next_step: str


def write_tasks(
    tasks: Sequence[Task],
    source: Store,
    output: Store,
    target: Store,
    labels: LabelSet,
    form: TaskFormat,
    *,
    prefill: bool,
    model_version: str,
    url_prefix: str | None,
) -> Written:
    """Copy the images under `target` and describe them in the tool's format.

    An image that is no longer what was segmented is left out: its row is about another picture.
    """
    names = copy_names([task.key for task in tasks])
    digests: dict[str, str] = {}
    left_out: dict[str, str] = {}
    images = "JPEGImages" if form == "cvat" else "images"
    copy = form != "none" and not prefill

    def fetch(task: Task) -> tuple[Task, bytes | str]:
        try:
            return task, source.get(task.key, etag=task.etag)
        except (ObjectChanged, ObjectMissing) as error:
            # Who has the images elsewhere needs no copy, but must not annotate another picture.
            return task, "" if form == "none" and isinstance(error, ObjectMissing) else str(error)

    written: list[tuple[Task, str]] = []
    for task, found in in_parallel(fetch, tasks, threads=COPIES_AT_ONCE, ahead=1, name="audit"):
        if isinstance(found, str):
            if found:
                left_out[task.key] = found
            continue
        digests[task.key] = hashlib.sha256(found).hexdigest()
        file = f"{names[task.key]}{_suffix(task.key)}"
        written.append((task, file))
        if copy:
            target.put(f"{images}/{file}", found)
    if form == "none":
        return Written(names, digests, left_out, "annotate the images that samples/ lists")
    if prefill:
        items = [
            ExportedImage(task.key, task.etag, task.mask_key, 0.0, "drawn for an audit", task.confidence)
            for task, _ in written
        ]
        done = export_labelling(
            items, source, output, target, labels, form, model_version=model_version, url_prefix=url_prefix
        )
        # An export names its own images, which may be fewer: of two names that would have met, one can be left.
        names |= copy_names([item.key for item in items])
        return Written(names, digests, {**left_out, **dict(done.left_out)}, done.next_step)
    if form == "cvat":
        target.put("labels.json", json.dumps(cvat_labels(labels), indent=1, ensure_ascii=False).encode())
        step = "make a CVAT task with labels.json (Raw) as its labels and the files in JPEGImages"
    else:
        prefix = url_prefix if url_prefix is not None else image_prefix(target)
        _write_label_studio(written, target, prefix)
        target.put("label_config.xml", label_config(labels).encode())
        step = "make a Label Studio project with label_config.xml as its labelling interface, import tasks-*.json"
    return Written(names, digests, left_out, step)


def _write_label_studio(written: Sequence[tuple[Task, str]], target: Store, prefix: str) -> None:
    for number, start in enumerate(range(0, len(written), _TASKS_PER_FILE), 1):
        tasks = [
            {"data": {"image": f"{prefix}/images/{quote(file)}", "key": task.key}}
            for task, file in written[start : start + _TASKS_PER_FILE]
        ]
        target.put(f"tasks-{number:03d}.json", json.dumps(tasks, ensure_ascii=False).encode())


def cvat_labels(labels: LabelSet) -> list[dict[str, object]]:
    """The label set as CVAT's raw labels."""
    return [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "attributes": []}
        for name, color in zip(labels.names, labels.palette, strict=True)
    ]


def _suffix(key: str) -> str:
    suffix = PurePosixPath(key).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".jpg"
