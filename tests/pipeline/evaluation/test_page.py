"""The page of an evaluation: what it says, in what order, and that nothing in it comes from or goes anywhere else."""

import numpy as np
import pytest

from fcn_core import LabelSet
from fcn_core.metrics import ConfusionMatrix
from fcn_core.render import UNANNOTATED, WRONG, SheetTile, difference
from pipeline.evaluation.confusion import CLASSES
from pipeline.evaluation.files import (
    BrokenExample,
    ClassScore,
    EvaluationRecord,
    ExampleRow,
    images_table,
)
from pipeline.evaluation.gallery import Gallery
from pipeline.evaluation.page import ROWS, evaluation_page
from pipeline.models.origin import ModelOrigin
from tests.pipeline.report.test_report import HOSTILE, Elements
from tests.reports import SETTINGS
from tests.samples import photo

LABELS = LabelSet(name="three", names=("road", "sky", "tree"), palette=((128, 64, 128), (70, 130, 180), (107, 142, 35)))


def evaluated(
    count: int,
    *,
    labels: LabelSet = LABELS,
    names: tuple[str, ...] = (),
    errors: tuple[BrokenExample, ...] = (),
    size: tuple[int, int] = (40, 30),
    worst: int = 12,
    annotated: bool = True,
) -> str:
    """The page of `count` images whose predictions are the worse the smaller their number."""
    matrix = ConfusionMatrix(labels.num_classes)
    gallery = Gallery(worst, labels)
    rows = []
    for index in range(count):
        width, height = size
        truth = np.zeros((height, width), np.uint8)
        truth[:, width // 2 :] = 1
        found = truth.copy()
        found[: height * (count - index) // (count + 1)] = 2 % labels.num_classes
        if not annotated:
            truth[:] = labels.ignore_index
        one = ConfusionMatrix(labels.num_classes)
        one.update(truth, found)
        matrix.add(one)
        scores = one.scores()
        name = names[index] if index < len(names) else f"street-{index:04d}"
        if scores.mean_iou is not None:
            gallery.offer(scores.mean_iou, index, SheetTile(name, photo(width, height), found, name, truth))
        classes = tuple(
            ClassScore(k, labels.names[k], int(one.truths[k]), int(one.intersections[k]), int(one.unions[k]))
            for k in np.flatnonzero(one.unions).tolist()
        )
        rows.append(
            ExampleRow(
                name, name, name, "ok", width=width, height=height, labelled_pixels=scores.pixels,
                pixel_accuracy=scores.pixel_accuracy, mean_iou=scores.mean_iou, classes=classes, confidence=0.75,
            )
        )  # fmt: skip
    rows += [ExampleRow(each.name, each.name, each.name, "error", each.error, each.message) for each in errors]
    record = EvaluationRecord(
        model=ModelOrigin(asked=HOSTILE[0], uri=HOSTILE[1], model_id="0123456789abcdef"),
        model_id="0123456789abcdef",
        params_id="f" * 16,
        settings=SETTINGS,
        dataset="s3://user:secret@bucket/streets",
        split="val",
        classes=labels.names,
        examples=count,
        examples_digest="0" * 16,
        scores=matrix.scores(),
        confusion=tuple(tuple(each) for each in matrix.counts.tolist()),
        errors=errors,
    )
    return evaluation_page(record, images_table(rows), gallery.examples(), labels)


def broken(count: int, message: str = "It is cut off.") -> tuple[BrokenExample, ...]:
    return tuple(BrokenExample(name=f"broken-{index}", error="truncated", message=message) for index in range(count))


def test_the_matrix_has_the_share_of_each_true_class() -> None:
    page = evaluated(1, size=(40, 30))
    # The upper half of both classes is taken for tree.
    cells = [part.split("</td>")[0].split(">")[-1] for part in page.split("<td")[1:]]
    assert {"50 %"} <= set(cells)
    elements = Elements(page)
    heat = [attributes["class"] for tag, attributes in elements.tags if tag == "td" and "title" in attributes]
    assert heat == ["right h4", "wrong h0", "wrong h4", "wrong h0", "right h4", "wrong h4"]


def test_a_matrix_of_many_classes_shows_those_of_the_most_pixels() -> None:
    many = LabelSet(
        name="many",
        names=tuple(f"class-{index}" for index in range(CLASSES + 20)),
        palette=tuple((index, index, index) for index in range(CLASSES + 20)),
    )
    text = Elements(evaluated(2, labels=many)).text
    assert f"{CLASSES + 20 - 3} classes without a pixel or with fewer pixels are left out" in text


def test_images_are_sorted_by_iou_the_worst_first_and_bounded() -> None:
    page = evaluated(ROWS + 5, size=(8, 60), worst=3)
    names = [f"street-{index:04d}" for index in range(ROWS + 5)]
    table = page[page.index('id="images"') :]
    places = [table.find(f">{name}<") for name in names]
    assert places[:ROWS] == sorted(places[:ROWS])
    assert places[ROWS:] == [-1] * 5
    assert "the other 5 are in images.parquet" in table
    pictures = page[page.index('id="pictures"') : page.index('id="images"')]
    assert [name for name in names if name in pictures] == names[:3]


def test_each_picture_has_difference_prediction_truth_and_photo() -> None:
    layers = [attributes.get("data-layer") for tag, attributes in Elements(evaluated(2)).tags if tag == "img"]
    assert layers == 2 * ["difference", "prediction", "truth", "photo", "prediction-mask", "truth-mask"]


def test_the_difference_is_red_where_wrong_and_blue_where_nothing_is_annotated() -> None:
    truth = np.array([[0, 0, 255]], np.uint8)
    red, grey, blue = difference(np.full((1, 3, 3), 100, np.uint8), truth, np.array([[1, 0, 1]], np.uint8), 255)[0]
    assert int(red[0]) - int(red[1]) > 100 < WRONG[0]
    assert len(set(grey.tolist())) == 1
    assert int(blue[2]) - int(blue[0]) > 20 < UNANNOTATED[2]


@pytest.mark.parametrize(("failed", "first"), [(0, False), (2, False), (9, True)])
def test_errors_come_first_where_most_images_have_one(failed: int, first: bool) -> None:
    page = evaluated(3, errors=broken(failed))
    assert (page.index('id="errors"') < page.index('id="classes"')) == first
    text = Elements(page).text
    assert ("every example of the split was scored" in text) == (failed == 0)
    assert ("are left out" in text) == (failed > 0)
    assert ('href="#errors">' + str(failed) + "<" in page) == (failed > 0), "the tile leads there"


def test_without_annotated_pixels_there_are_no_scores_and_it_says_so() -> None:
    text = Elements(evaluated(2, annotated=False)).text
    assert "there are no scores" in text
    assert "No image has a score to sort by." in text


@pytest.mark.parametrize(
    ("failed", "words"), [(0, "there was no example to score"), (15, "no example is left to score")]
)
def test_a_page_without_a_scored_image_claims_nothing_of_scored_ones(failed: int, words: str) -> None:
    text = Elements(evaluated(0, errors=broken(failed))).text
    assert words in text
    for claim in ("every example", "scores of the others", "No pixel of these images"):
        assert claim not in text


def test_hostile_names_and_messages_stay_text() -> None:
    names = tuple(each for each in HOSTILE if each.isprintable())
    labels = LabelSet(name="evil", names=names[:3], palette=LABELS.palette)
    page = evaluated(len(HOSTILE), labels=labels, names=HOSTILE, errors=broken(2, HOSTILE[0]))
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 1
    assert not [attributes for _, attributes in elements.tags if any(name.startswith("on") for name in attributes)]
    for tag, attributes in elements.tags:
        for name in ("src", "href"):
            assert str(attributes.get(name) or "#").startswith(("data:image/", "#")), (tag, attributes)
    assert "<script>document.title='owned'</script>.jpg" in elements.text
    assert "\\u202egpj.exe" in elements.text
    assert "secret" not in page


def test_a_page_of_two_hundred_noisy_images_stays_small_enough_to_mail() -> None:
    page = evaluated(40, size=(640, 480), worst=200)
    assert len(page) < 10_000_000
    assert page == evaluated(40, size=(640, 480), worst=200), "and equal evaluations give equal pages"
