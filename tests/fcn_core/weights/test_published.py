"""Published weights: fetched once, believed only with the right hash; without a network a clear sentence says so."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torchvision

from fcn_core.bundle import ModelBundle
from fcn_core.errors import WeightsError
from fcn_core.labels import preset
from fcn_core.normalization import IMAGENET
from fcn_core.weights.published import fetch, find_published, get_weights, published


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def publish(folder: Path, content: bytes, name: str = "weights") -> str:
    """A file whose name tells its hash; returns its URL."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.write_bytes(content)
    return path.as_uri()


class _Handler(http.server.BaseHTTPRequestHandler):
    """/short...: less than announced. /hang-up...: nothing at all. Others: 404."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(self.path)
        if self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif not self.path.startswith("/hang-up"):
            self.send_error(404)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_is_fetched_once(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    url = publish(tmp_path / "site", b"content")
    path = fetch(url, cache, said.append)
    assert path.read_bytes() == b"content"
    assert path.parent == cache
    Path(url.removeprefix("file://")).unlink()
    assert fetch(url, cache, said.append) == path, "the second time it is there"
    assert said == [f"fetching {url} into {cache}"]


def test_a_wrong_hash_is_refused_and_nothing_kept(tmp_path: Path, cache: Path) -> None:
    url = publish(tmp_path / "site", b"content")
    Path(url.removeprefix("file://")).write_bytes(b"another content")
    with pytest.raises(WeightsError, match=r"is not the published file: its SHA-256 begins with \w{8}, not ed7002b4"):
        fetch(url, cache)
    assert not list(cache.iterdir())


def test_a_spoilt_file_in_the_cache_is_not_used(tmp_path: Path, cache: Path) -> None:
    url = publish(tmp_path / "site", b"content")
    path = fetch(url, cache)
    path.write_bytes(b"spoilt")
    with pytest.raises(WeightsError, match=r"is not the published file.*delete it"):
        fetch(url, cache)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/gone-12345678.pth", "the server answers 404"),
        ("/short-12345678.pth", "cannot fetch .*is there a network"),
        ("/hang-up-12345678.pth", "cannot fetch .*is there a network"),
    ],
)
def test_a_server_that_does_not_deliver(server: str, cache: Path, path: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        fetch(server + path, cache)
    assert not list(cache.iterdir())


def test_no_network_is_said_with_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(WeightsError) as caught:
        fetch(published()["fcn_resnet50"].url, cache)
    message = str(caught.value)
    assert "Connection refused" in message
    assert f"put it at {cache / 'fcn_resnet50_coco-1167a1af.pth'}" in message
    assert "fcn model import" in message


def test_a_url_without_a_hash_is_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not tell its hash"):
        fetch((tmp_path / "weights.pth").as_uri(), tmp_path)


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match=r"cannot use the folder .*TORCH_HOME"):
        fetch(publish(tmp_path / "site", b"content"), tmp_path / "file" / "cache")


def test_the_list_is_torchvisions_own() -> None:
    found = published()
    assert set(found) == {
        "fcn_resnet50", "fcn_resnet101",
        "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
        "vgg16", "vgg16_bn", "alexnet", "resnet50", "resnet101", "mobilenet_v3_large",
    }  # fmt: skip
    assert all(weights.normalization == IMAGENET for weights in found.values())
    assert all(weights.url.startswith("https://download.pytorch.org/models/") for weights in found.values())
    assert found["fcn_resnet50"].scores["COCO-val2017-VOC-labels"] == {"miou": 60.5, "pixel_acc": 91.4}
    assert found["deeplabv3_mobilenet_v3_large"].arch == "tv_deeplabv3"
    assert found["lraspp_mobilenet_v3_large"].scores["COCO-val2017-VOC-labels"] == {"miou": 57.9, "pixel_acc": 91.2}
    assert found["vgg16"].scores == {}, "ImageNet's accuracy is no score of a segmentation network"
    with pytest.raises(WeightsError, match=r"'vgg19'; choose one of fcn_resnet50, .*mobilenet_v3_large"):
        find_published("vgg19")


def test_torchvisions_classes_are_those_of_the_voc_labels() -> None:
    categories = torchvision.models.segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    assert [name.strip("_") for name in categories] == list(preset("voc").names)


def test_what_was_fetched_becomes_a_bundle(tmp_path: Path, cache: Path) -> None:
    torch.save(torchvision.models.mobilenet_v3_large(weights=None).state_dict(), tmp_path / "w.pth")
    url = publish(tmp_path / "site", (tmp_path / "w.pth").read_bytes())
    weights = replace(published()["mobilenet_v3_large"], url=url, scores={"accuracy": 1})
    imported = get_weights(weights, directory=cache, labels=preset("camvid"))
    assert imported.bundle.architecture.arch == "fcn8s"
    assert imported.bundle.architecture.backbone == "mobilenet_v3_large"
    assert imported.bundle.labels == preset("camvid")
    assert imported.bundle.provenance["url"] == url
    assert imported.bundle.scores == {}, "those of a classifier that it no longer is"
    imported.bundle.save(tmp_path / "model")
    assert ModelBundle.load(tmp_path / "model").model_id == imported.bundle.model_id
