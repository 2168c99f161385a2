"""Weights that torchvision publishes, by name: fetched once, checked against the hash in their name, kept.

The one thing to know: torchvision's own list (its WeightsEnum) says where the files are, and its own cache folder
(torch.hub's) keeps them, so what one program fetched, the other finds. A file that does not have the published hash
is never used, be it fresh or from the cache.
"""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fcn_core.bundle import ModelBundle
from fcn_core.errors import WeightsError
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Doubling
from fcn_core.models.backbones import BACKBONES, BackboneName, backbone_spec
from fcn_core.models.networks import ARCHS, ArchName, network_spec
from fcn_core.normalization import Normalization
from fcn_core.torchvision_package import load_torchvision
from fcn_core.weights.importing import Imported, import_weights

_SECONDS_WITHOUT_DATA = 30
_BLOCK = 1 << 20


@dataclass(frozen=True)
class PublishedWeights:
    """A file that somebody publishes, and what it is made for.

    `url` ends in -HASH.pth, HASH being the beginning of the file's SHA-256. `arch` is the network it is for, or, of a
    classifier's weights, the one it starts by default. `scores` are as published.
    """

    name: str
    what: str
    url: str
    arch: ArchName
    backbone: BackboneName
    normalization: Normalization
    scores: dict[str, Any]


def published() -> dict[str, PublishedWeights]:
    """What can be fetched, by name."""
    load_torchvision()
    from torchvision import models

    networks = [
        _from_torchvision(f"{spec.weights_name}_{backbone}", models.segmentation, name, arch, backbone)
        for arch, spec in ((arch, network_spec(arch)) for arch in ARCHS)
        for backbone, name in spec.weights.items()
    ]
    classifiers = [
        _from_torchvision(backbone, models, backbone_spec(backbone).weights, "fcn8s", backbone, is_classifier=True)
        for backbone in BACKBONES
    ]
    return {weights.name: weights for weights in networks + classifiers}


def _from_torchvision(
    name: str,
    module: ModuleType,
    weights_name: str,
    arch: ArchName,
    backbone: BackboneName,
    *,
    is_classifier: bool = False,
) -> PublishedWeights:
    weights: Any = attrgetter(weights_name)(module)
    preprocessing = weights.transforms()
    return PublishedWeights(
        name=name,
        what=f"torchvision's {weights}, {'a classifier' if is_classifier else 'a segmentation network'}",
        url=weights.url,
        arch=arch,
        backbone=backbone,
        normalization=Normalization(mean=tuple(preprocessing.mean), std=tuple(preprocessing.std)),
        scores={} if is_classifier else {"source": f"torchvision, {weights}", **weights.meta["_metrics"]},
    )


def find_published(name: str) -> PublishedWeights:
    """The published weights of that name. Raises WeightsError, with the names there are."""
    known = published()
    if name not in known:
        raise WeightsError(f"no weights are published under the name {name!r}; choose one of {', '.join(known)}")
    return known[name]


def get_weights(
    weights: PublishedWeights,
    *,
    arch: ArchName | None = None,
    labels: LabelSet | None = None,
    head_width: int | None = None,
    upsampling: Doubling | None = None,
    directory: Path | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Imported:
    """Fetch published weights, unless they are here already, and make a bundle of them.

    arch: the network to make, by default the one the weights are for. The others are as in `import_weights` and
    `fetch`. Published scores go along where network and classes are those they were published for.
    """
    path = fetch(weights.url, directory, say)
    imported = import_weights(
        path,
        arch or weights.arch,
        backbone=weights.backbone,
        labels=labels,
        normalization=weights.normalization,
        head_width=head_width,
        upsampling=upsampling,
    )
    bundle = imported.bundle
    scores = {} if imported.untrained or bundle.architecture.arch != weights.arch else weights.scores
    bundle = ModelBundle(
        bundle.architecture,
        bundle.labels,
        bundle.normalization,
        bundle.state,
        {**bundle.provenance, "published_as": weights.what, "url": weights.url},
        scores,
    )
    return Imported(bundle, imported.report, (weights.what, *imported.notes), imported.untrained)


def fetch(url: str, directory: Path | None = None, say: Callable[[str], None] = lambda sentence: None) -> Path:
    """The file at `url`, whose name ends in -HASH.SUFFIX, in `directory` (default: torch.hub's cache), hash checked.

    `say` hears before something is fetched. Raises WeightsError where there is no network, the server has no such
    file, or the file has another hash; nothing is left behind then.
    """
    name = Path(urllib.parse.urlsplit(url).path).name
    match = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    if not match:
        raise WeightsError(f"{url} does not tell its hash (name-HASH.pth), so it cannot be checked; fetch it yourself")
    directory = directory or Path(torch.hub.get_dir()) / "checkpoints"
    target = directory / name
    try:
        if target.is_file():
            with target.open("rb") as file:
                _check_hash(hashlib.file_digest(file, "sha256").hexdigest(), match[1], str(target), "delete it")
            return target
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"cannot use the folder {directory} ({error}); set TORCH_HOME to another") from error
    say(f"fetching {url} into {directory}")
    _download(url, match[1], target)
    return target


def _download(url: str, expected: str, target: Path) -> None:
    """Into a file aside, which takes its name only when it is complete and has the right hash."""
    digest = hashlib.sha256()
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent, delete=False) as aside:
            try:
                # An opener of its own looks for a proxy in the environment as it is now.
                with urllib.request.build_opener().open(url, timeout=_SECONDS_WITHOUT_DATA) as answer:
                    while block := answer.read(_BLOCK):
                        digest.update(block)
                        aside.write(block)
                    length = answer.headers.get("Content-Length")
                aside.flush()
                if length is not None and aside.tell() != int(length):
                    raise http.client.IncompleteRead(b"", int(length) - aside.tell())
                _check_hash(digest.hexdigest(), expected, url, "nothing of it was kept; try again")
                os.chmod(aside.name, 0o644)
                os.replace(aside.name, target)
            except BaseException:
                os.unlink(aside.name)
                raise
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url}: the server answers {error.code} {error.reason}; try again later") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"cannot fetch {url} ({reason}): is there a network? Without one, fetch the file elsewhere and put it at"
            f" {target}, or import it with `fcn model import`; `make demo` leaves a model in demo-output/model"
            " and needs no network"
        ) from error


def _check_hash(found: str, expected: str, where: str, remedy: str) -> None:
    if not found.startswith(expected):
        raise WeightsError(
            f"{where} is not the published file: its SHA-256 begins with {found[: len(expected)]}, not {expected};"
            f" {remedy}"
        )
