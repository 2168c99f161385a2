"""The page of a training: all of its curves and pictures in one file, bounded, and safe whatever a class is called."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_core import LabelSet
from fcn_core.metrics import ConfusionMatrix
from fcn_core.render import SheetTile
from fcn_core.training.loop import SHOWN, History, LossPoint, ValidationPoint
from pipeline.errors import StorageError
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.training import job as training
from pipeline.training.curves import CLASSES_AT_MOST, Curves, panels
from pipeline.training.job import train
from pipeline.training.page import TrainingPage, training_page, validation_sheet
from pipeline.training.records import Measured
from pipeline.training.store import SHEETS_KEPT, TrainStore
from tests.trainings import LABELS, InProcess, job, kept, write_scenes

TITLES = (
    "training loss",
    "validation mean IoU",
    "validation IoU by class",
    "learning rate",
    "norm of the gradient",
    "images per second",
    "memory of the first worker, GiB",
)


def curves(steps: int, classes: int = 3) -> Curves:
    matrix = ConfusionMatrix(classes)
    matrix.counts[:] = np.eye(classes, dtype=np.int64) * 3 + 1
    losses = [LossPoint(step=s, epoch=s / 4, loss=1 / s, learning_rate=0.5, grad_norm=2.0) for s in range(1, steps + 1)]
    validations = [ValidationPoint(step=s, epoch=s / 4, scores=matrix.scores()) for s in range(4, steps + 1, 4)]
    measured = {str(s): Measured(images_per_second=9.0, memory_bytes=1 << 30) for s in range(1, steps + 1)}
    return Curves(History(losses=losses, validations=validations), measured)


def tile(size: tuple[int, int] = (20, 30), caption: str = "a") -> SheetTile:
    mask = np.zeros(size, np.uint8)
    return SheetTile(caption, np.full((*size, 3), 90, np.uint8), mask, truth=mask)


def page(steps: int = 8, labels: LabelSet = LABELS, **changes: object) -> str:
    values = {
        "name": "street",
        "stages": {"fcn8s": curves(steps, labels.num_classes)},
        "labels": labels,
        "settings": {"learning_rate": 0.5},
        "sheet": (8, validation_sheet([tile()], labels, 8)),
    } | changes
    return training_page(TrainingPage(**values))  # type: ignore[arg-type]


def test_every_curve_is_there_and_the_newest_pictures() -> None:
    html = page()
    assert all(f">{title}" in html for title in TITLES)
    assert html.count("<polyline") == 6 + LABELS.num_classes
    assert "Validation images after step 8" in html
    assert 'src="data:image/jpeg;base64,' in html
    assert "best mean IoU" in html
    assert "learning_<wbr>rate" in html


def test_the_page_loads_nothing_and_names_from_outside_are_no_markup() -> None:
    names = ("<script>alert(1)</script>", "\u202egnorw", 'a" onload="x')
    labels = LABELS.model_copy(update={"names": names})
    html = page(labels=labels, name="<b>x</b>", settings={"<i>": "</script><script>"})
    assert "<script>alert" not in html
    assert "<b>x" not in html
    assert "\u202e" not in html
    assert ' onload="x' not in html
    assert html.count("<script>") == 1
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)


def test_a_long_training_of_many_classes_is_a_small_page() -> None:
    names = tuple(f"class {index}" for index in range(200))
    labels = LabelSet(name="many", names=names, palette=tuple((index, 0, 0) for index in range(200)))
    (by_class,) = (each for each in panels({"a": curves(400, 200)}, labels) if "by class" in each.title)
    assert len(by_class.lines) == CLASSES_AT_MOST
    assert "the 40 lowest of 200" in by_class.title
    assert len(page(8_000, sheet=None)) < 200_000


@pytest.mark.parametrize("stages", [{}, {"fcn8s": Curves(History())}])
def test_a_training_without_a_step_has_a_page(stages: dict[str, Curves]) -> None:
    html = page(stages=stages, sheet=None)
    assert "No step has been taken yet" in html
    assert "<polyline" not in html


def test_only_so_many_pictures_are_kept(tmp_path: Path) -> None:
    store = TrainStore(open_store(str(tmp_path)))
    for step in range(1, SHEETS_KEPT + 4):
        store.save_sheet(step, b"%d" % step)
    assert len(list((tmp_path / "validation").iterdir())) == SHEETS_KEPT
    assert store.newest_sheet() == (SHEETS_KEPT + 3, b"%d" % (SHEETS_KEPT + 3))


@pytest.mark.usefixtures("ray_cluster")
class TestAJob:
    @pytest.fixture(autouse=True)
    def in_process(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(training, "Group", InProcess)
        write_scenes(tmp_path / "data", train=4, val=8)

    def test_stages_leave_pictures_and_pages_and_one_of_all_stages(self, tmp_path: Path) -> None:
        staged = job(tmp_path, arch="fcn16s", staged=True, train={"steps": 2})
        report = train(staged)
        run = tmp_path / "runs/run"
        assert report.report_uri == f"{kept(staged).store.uri}/report.html"
        whole = (run / "report.html").read_text("utf-8")
        assert "fcn32s" in whole
        assert "fcn16s" in whole
        for arch in ("fcn32s", "fcn16s"):
            assert all(f">{title}" in (run / f"stages/{arch}/report.html").read_text("utf-8") for title in TITLES)
            pictures = sorted((run / f"stages/{arch}/validation").iterdir())
            assert [picture.name for picture in pictures] == ["step-00000001.png", "step-00000002.png"]
            with Image.open(io.BytesIO(pictures[0].read_bytes())) as image:
                assert image.width > 3 * SHOWN

    def test_a_page_that_cannot_be_kept_costs_no_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = job(tmp_path, train={"steps": 2})
        put = LocalStore.put

        def full(store: LocalStore, key: str, data: bytes) -> None:
            if key.endswith((".html", ".png")):
                raise StorageError("no room left")
            put(store, key, data)

        monkeypatch.setattr(LocalStore, "put", full)
        report = train(asked)
        assert report.state == "finished"
        assert report.report_uri is None
