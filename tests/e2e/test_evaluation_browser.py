"""The page of an evaluation in a real browser, on a phone and on a wide screen."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_core import LabelSet
from tests.browser import Page, browse
from tests.e2e.test_report_browser import visible_layer, wait_for_pictures, wider_than_their_parents
from tests.pipeline.evaluation.test_page import broken, evaluated
from tests.pipeline.report.test_report import HOSTILE

WIDTHS = [400, 1600]
EVIL = LabelSet(name="evil", names=(*HOSTILE[:2], "k" * 300), palette=((128, 64, 128), (70, 130, 180), (107, 142, 35)))
PAGES = {
    "fifteen": lambda: evaluated(15, size=(320, 240)),
    "hostile": lambda: evaluated(9, labels=EVIL, names=HOSTILE, errors=broken(12, HOSTILE[0])),
    "nothing annotated": lambda: evaluated(2, annotated=False),
}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def files(page: Page, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name, as files."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make())
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_fits_any_width_and_asks_for_nothing(
    page: Page, files: dict[str, Path], name: str, width: int
) -> None:
    page.resize(width)
    page.open(files[name])
    for details in page.all("details"):
        page.ask("arguments[0].open = true", details)
    assert page.overflow() == 0
    assert wider_than_their_parents(page) == []
    assert page.complaints() == []
    assert page.requests() == [files[name].as_uri()]
    assert page.driver.title == "Evaluation of model 0123456789abcdef"


def test_a_press_turns_from_what_is_wrong_to_prediction_truth_and_photo(page: Page, files: dict[str, Path]) -> None:
    page.resize(1600)
    page.open(files["fifteen"])
    wait_for_pictures(page)
    frame = page.one("button.frame")
    seen = [visible_layer(page, frame)]
    for _ in range(4):
        page.ask("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", frame)
        frame.click()
        seen.append(visible_layer(page, frame))
    assert seen == ["difference", "prediction", "truth", "photo", "difference"]
    page.ask("document.querySelector('input[value=truth]').click()")
    assert {visible_layer(page, each) for each in page.all("button.frame")} == {"truth"}
