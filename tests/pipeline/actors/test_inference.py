"""Several shards and one model: who goes first, what is asked for ahead, and who is to blame."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from fcn_core import ModelBundle, PredictionError, PredictorSettings, Segmentation, resolve_settings
from pipeline.actors.inference import BATCHES_AHEAD, Image, ModelThread
from pipeline.actors.stage_clock import StageClock
from pipeline.codec.images import Decoded
from pipeline.errors import ImageError, WorkerBroken
from tests.fcn_core.nets import small_bundle

BROKEN = 13
"""The value of a pixel that the model below fails on."""


class Answers:
    def __init__(self, found: list[Segmentation]) -> None:
        self.found = found

    def result(self) -> list[Segmentation]:
        return self.found


class Marking:
    """A model that notes what it is given, by its first pixel, and may be held up."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.is_dead = False

    def launch(self, images: Sequence[Image], /, *, sizes: Sequence[tuple[int, int]] | None = None) -> Answers:
        self.go.wait()
        marks = [int(image[0, 0, 0]) for image in images]
        self.seen.append(marks)
        if BROKEN in marks or self.is_dead:
            raise RuntimeError("no\nstack")
        masks = [np.full(image.shape[:2], mark, np.uint8) for image, mark in zip(images, marks, strict=True)]
        return Answers([Segmentation(mask, np.zeros(1, np.int64), 1.0) for mask in masks])


@pytest.fixture
def model() -> Marking:
    return Marking()


@pytest.fixture
def thread(model: Marking) -> Iterator[ModelThread]:
    def make(bundle: ModelBundle, settings: PredictorSettings) -> Marking:
        return model

    thread = ModelThread(small_bundle(), resolve_settings("cpu", engine="torch"), StageClock(), make)
    yield thread
    model.go.set()
    thread.close()


def image(mark: int) -> Decoded:
    return Decoded(np.full((2, 3, 3), mark, np.uint8), 1)


def masks(found: Sequence[Segmentation | ImageError]) -> list[int | str]:
    return [one.reason if isinstance(one, ImageError) else int(one.mask[0, 0]) for one in found]


def test_each_batch_comes_with_its_own_results(thread: ModelThread) -> None:
    batches = [[1, 2], [3], [4, 5]]
    assert [(batch, masks(found)) for batch, found in thread.predict_each(batches, image, lambda: False)] == [
        (batch, batch) for batch in batches
    ]


def test_the_shard_that_began_first_goes_first(thread: ModelThread, model: Marking) -> None:
    asked = {mark: threading.Event() for mark in range(20, 46)}

    def noted(mark: int) -> Decoded:
        asked[mark].set()
        return image(mark)

    def start(shard: Iterator[object]) -> threading.Thread:
        worker = threading.Thread(target=lambda: list(shard))
        worker.start()
        return worker

    first = thread.predict_each(([mark] for mark in range(20, 26)), noted, lambda: False)
    second = thread.predict_each(([mark] for mark in range(40, 46)), noted, lambda: False)
    next(first)
    model.go.clear()
    workers = [start(second)]
    assert asked[42].wait(10)  # so 40 is begun and 41 waits
    workers.append(start(first))
    assert asked[25].wait(10)  # so 24 waits, too, and came later
    model.go.set()
    for worker in workers:
        worker.join()
    seen = [mark for (mark,) in model.seen]
    assert sorted(seen) == [*range(20, 26), *range(40, 46)]
    assert seen.index(24) < seen.index(41)


@pytest.mark.parametrize(("is_full", "ahead"), [(False, BATCHES_AHEAD), (True, 0)])
def test_batches_are_asked_for_ahead_while_there_is_room(
    thread: ModelThread, model: Marking, is_full: bool, ahead: int
) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[int]]:
        for mark in range(20, 30):
            taken.append(mark)
            yield [mark]

    results = thread.predict_each(batches(), image, lambda: is_full)
    next(results)
    assert len(taken) == 1 + ahead
    results.close()  # type: ignore[attr-defined]  # it is a generator


def test_only_the_image_that_fails_alone_is_to_blame(thread: ModelThread) -> None:
    ((_, found),) = thread.predict_each([[1, BROKEN, 2]], image, lambda: False)
    assert masks(found) == [1, "prediction_failed", 2]
    assert "2x3" not in str(found[1])
    assert "3x2 image: no." in str(found[1])


def test_a_device_that_fails_on_anything_is_no_images_fault(thread: ModelThread, model: Marking) -> None:
    model.is_dead = True
    with pytest.raises(WorkerBroken, match="the model stopped working in this process: no"):
        list(thread.predict_each([[1, 2]], image, lambda: False))


def test_scores_that_are_not_finite_are_an_error_row_even_where_no_image_has_others(
    model: Marking, thread: ModelThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overflowed:
        def result(self) -> list[Segmentation]:
            raise PredictionError("the scores of image 0 are not all finite numbers")

    monkeypatch.setattr(model, "launch", lambda images, sizes=None: Overflowed())
    ((_, found),) = thread.predict_each([[1, 2]], image, lambda: False)
    assert masks(found) == ["prediction_failed"] * 2
    assert "not all finite" in str(found[0])
