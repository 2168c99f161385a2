"""The run report in a real browser: on a phone and on a wide screen, light and dark, by mouse and by keyboard."""

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_core import ModelBundle, preset
from flows.demo.scenes import SCENE_LABELS, encode_jpeg, generate_scene
from pipeline.jobs.segment import SegmentJob
from pipeline.report.make import write_report
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.browser import Page, browse
from tests.in_process import segment_in_process
from tests.pipeline.report.test_report import HOSTILE, stripes
from tests.reports import Outcome, labelled_run
from tests.samples import jpeg

CAMVID = os.environ.get("FCN_CAMVID")
NAMES = ["scenes", "hostile", *(["camvid"] if CAMVID else [])]
WIDTHS = [400, 1600]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browse(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def reports(page: Page, tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> dict[str, Path]:
    """Reports by name, as files. `page` comes first: without a browser none need be made."""
    made = {name: make(tmp_path_factory.mktemp(name), model_dir) for name, make in MAKERS.items()}
    if CAMVID:
        with pytest.MonkeyPatch.context() as patch:
            segment_in_process(patch)
            made["camvid"] = camvid(tmp_path_factory.mktemp("camvid"), model_dir)
    return made


def scenes(folder: Path, model: Path) -> Path:
    """The demo's street scenes with their true masks, and an earlier run that saw them coarser."""
    source, output = open_store(str(folder / "photos")), open_store(str(folder / "labels"))
    now: dict[str, Outcome] = {}
    before: dict[str, Outcome] = {}
    for seed in range(14):
        scene = generate_scene(seed)
        key = f"drive-{seed % 3}/street-{seed:04d}.jpg"
        source.put(key, encode_jpeg(scene.image))
        now[key] = scene.mask
        coarse = scene.mask[::8, ::8].repeat(8, axis=0).repeat(8, axis=1)
        before[key] = coarse[: scene.mask.shape[0], : scene.mask.shape[1]]
    now["uploads/cut-short.jpg"] = (
        "truncated",
        "The file ends before the picture does; it was cut off on its way here.",
    )
    labelled_run(output, source, before, SCENE_LABELS, run_id="20261121T000000Z-0001", params_id="1" * 16)
    record = labelled_run(output, source, now, SCENE_LABELS, run_id="20261122T000000Z-0001", shard_size=3)
    return folder / "labels" / write_report(output, record.run_id)


def hostile(folder: Path, model: Path) -> Path:
    """Keys, messages, options and a model description that would like to be markup."""
    source, output = open_store(str(folder / "photos")), open_store(str(folder / "labels"))
    for index, key in enumerate(HOSTILE):
        source.put(key, jpeg(60, 40, seed=index))
    bundle = ModelBundle.load(model)
    names = [key for key in HOSTILE if key.isprintable()]  # a bundle refuses the others
    names += [f"class {index}" for index in range(len(names), bundle.labels.num_classes)]
    evil = ModelBundle(
        bundle.architecture,
        preset("camvid").model_copy(update={"names": tuple(f"{index}{name}" for index, name in enumerate(names))}),
        bundle.normalization,
        bundle.state,
        provenance={HOSTILE[0]: HOSTILE[1], "nested": {HOSTILE[7]: [HOSTILE[0], {"a": HOSTILE[1]}]}},
        scores={HOSTILE[1]: HOSTILE[0]},
    )
    evil.save(folder / "model")
    outcomes: dict[str, Outcome] = {key: stripes(60, 40, (0, 1, 3, 5)) for key in HOSTILE}
    outcomes |= {f"bad/{key}": (HOSTILE[0], key) for key in HOSTILE}
    record = labelled_run(
        output, source, outcomes, evil.labels, model=str(folder / "model"), model_id=evil.model_id,
        job={"include": list(HOSTILE), HOSTILE[1]: HOSTILE[0]},
    )  # fmt: skip
    return folder / "labels" / write_report(output, record.run_id)


def camvid(folder: Path, model: Path) -> Path:
    """Real street scenes through the whole pipeline, with a small network that was never trained."""
    photos = folder / "photos"
    photos.mkdir()
    for path in sorted((Path(str(CAMVID)) / "JPEGImages").iterdir())[::60]:
        (photos / path.name).write_bytes(path.read_bytes())
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    job = SegmentJob(
        source=str(photos), output=str(folder / "labels"), model=str(model), device="cpu", actors=1, cpus_per_actor=1,
        shard_size=3,
    )  # fmt: skip
    (report,) = segment(job).reports
    return folder / "labels" / report


MAKERS = {"scenes": scenes, "hostile": hostile}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_the_page_works_at_any_width_in_any_light(
    page: Page, reports: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page.prefer(scheme)
    page.resize(width)
    page.open(reports[name])
    assert page.overflow() == 0
    for details in page.all("details"):  # also with everything unfolded
        page.ask("arguments[0].open = true", details)
    assert page.overflow() == 0
    assert wider_than_their_parents(page) == []
    light = brightness(page, "getComputedStyle(document.body).backgroundColor")
    ink = brightness(page, "getComputedStyle(document.body).color")
    assert (light > ink) == (scheme == "light")
    assert page.complaints() == []
    assert page.requests() == [reports[name].as_uri()]


def wider_than_their_parents(page: Page) -> list[str]:
    """Elements that stick out of the page, but for those in something that scrolls."""
    script = """
      const scrolls = (e) => e && (e.matches('.gallery, .scroll, .unseen, .skip, legend') || scrolls(e.parentElement));
      return [...document.body.querySelectorAll('*')]
        .filter((e) => !scrolls(e) && e.getBoundingClientRect().right > innerWidth + 1)
        .map((e) => e.outerHTML.slice(0, 120));
    """
    return list(page.ask(script))


def brightness(page: Page, color: str) -> float:
    """0 to 255 of a computed colour."""
    canvas = f"""
      const context = new OffscreenCanvas(1, 1).getContext('2d');
      context.fillStyle = {color};
      context.fillRect(0, 0, 1, 1);
      return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
    """
    return float(sum(page.ask(canvas)) / 3)


@pytest.mark.parametrize("name", NAMES)
def test_charts_and_gallery_are_there_and_named(page: Page, reports: dict[str, Path], name: str) -> None:
    page.open(reports[name])
    charts = page.all("svg[role=img]")
    assert {"class-area", "class-frequency", "confidence"} <= {chart.get_attribute("id") for chart in charts}
    for chart in charts:
        assert chart.accessible_name
        assert page.ask("return arguments[0].querySelector('desc').textContent", chart)
        assert page.ask("return arguments[0].querySelectorAll('rect').length", chart) >= 2
    assert len(page.all("table caption")) >= 2, "the same as tables"
    wait_for_pictures(page)
    broken = "return [...document.images].filter((image) => image.complete && !image.naturalWidth).length"
    assert page.ask(broken) == 0
    frames = page.all("button.frame")
    assert len(frames) >= 6
    assert all(frame.accessible_name for frame in frames[:6])
    assert page.all(".legend li svg rect")


def wait_for_pictures(page: Page) -> None:
    page.ask("for (const image of document.images) image.loading = 'eager'")
    deadline = time.monotonic() + 30
    while not page.ask("return [...document.images].every((image) => image.complete)"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def visible_layer(page: Page, frame: object) -> str:
    return str(page.ask("return arguments[0].querySelector('img:not(.under, .left)').dataset.layer", frame))


def test_a_click_turns_a_picture_over_and_goes_round(page: Page, reports: dict[str, Path]) -> None:
    page.resize(1600)
    page.open(reports["scenes"])
    frame = page.one("#pictures button.frame")
    seen = [visible_layer(page, frame)]
    for _ in range(3):
        page.ask("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", frame)
        frame.click()
        seen.append(visible_layer(page, frame))
        assert frame.accessible_name.split(": ")[1].startswith(seen[-1])
    assert seen == ["overlay", "photo", "mask", "overlay"]


def test_the_keyboard_alone_reaches_and_turns_a_picture(page: Page, reports: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(reports["scenes"])
    for _ in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        if page.ask("return document.activeElement.matches('button.frame')"):
            break
    frame = page.driver.switch_to.active_element
    assert visible_layer(page, frame) == "overlay"
    for key, layer in (
        (Keys.ENTER, "photo"),
        (Keys.SPACE, "mask"),
        (Keys.ARROW_LEFT, "photo"),
        (Keys.ARROW_RIGHT, "mask"),
    ):
        frame.send_keys(key)
        assert visible_layer(page, frame) == layer


def test_one_switch_turns_all_pictures(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["scenes"])
    frames = page.all("button.frame")
    for layer in ("mask", "photo", "overlay"):
        page.ask(f"document.querySelector('input[value={layer}]').click()")
        assert {visible_layer(page, frame) for frame in frames} == {layer}


@pytest.mark.parametrize("width", WIDTHS)
def test_what_changed_is_seen_before_and_now(page: Page, reports: dict[str, Path], width: int) -> None:
    page.resize(width)
    page.open(reports["scenes"])
    wait_for_pictures(page)
    changed = page.all("section[aria-labelledby=group-changed] button.frame")
    assert changed
    boxes = """
      return [...arguments[0].querySelectorAll('img.left, img:not(.under, .left)')].map((image) => {
        const box = image.getBoundingClientRect();
        return [box.left, box.top, box.right, box.bottom];
      });
    """
    for frame in changed:
        one, other = page.ask(boxes, frame)
        assert one[2] <= other[0] + 1 or other[2] <= one[0] + 1 or one[3] <= other[1] + 1 or other[3] <= one[1] + 1


def test_an_image_is_enlarged_with_as_much_of_its_mask_as_one_wants(page: Page, reports: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    page.resize(1600)
    page.open(reports["scenes"])
    button = page.one("#pictures .card:not(.wide) .enlarge")
    page.ask("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    called = button.accessible_name
    button.click()
    dialog = page.one("dialog.zoom")
    assert dialog.is_displayed()
    name = page.one("dialog .key").text
    assert called == f"Enlarge {name}"
    assert shown_pictures(page) == [["", "1"], ["mask", "0.55"]]
    slide = "const s = arguments[0]; s.value = 20; s.dispatchEvent(new Event('input'))"
    page.ask(slide, page.one("dialog input[type=range]"))
    assert shown_pictures(page) == [["", "1"], ["mask", "0.2"]]
    page.one("dialog .views button[data-layer=photo]").click()
    assert shown_pictures(page)[1] == ["mask", "0"]
    page.one("dialog").send_keys(Keys.ARROW_RIGHT)
    assert page.one("dialog .key").text != name
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert page.complaints() == []


def shown_pictures(page: Page) -> list[list[str]]:
    """Class and opacity of each picture in the enlarged view, from the lowest up."""
    script = (
        "return [...document.querySelectorAll('.stage > *')].map((e) => [e.className, getComputedStyle(e).opacity])"
    )
    return list(page.ask(script))


def test_a_press_on_a_class_shows_it_alone(page: Page, reports: dict[str, Path]) -> None:
    page.resize(1600)
    page.open(reports["scenes"])
    wait_for_pictures(page)
    chip = page.one(".chip")
    frames = page.all(".frame")
    chip.click()
    deadline = time.monotonic() + 30
    while len(page.all(".frame.isolated canvas")) < len(frames):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert chip.get_attribute("aria-pressed") == "true"
    # The strong pixels of a picture are those of its mask that have the class's colour.
    counts = """
      const [frame, color] = arguments;
      const pixels = (picture) => {
        const [width, height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext('2d');
        context.drawImage(picture, 0, 0);
        return context.getImageData(0, 0, canvas.width, canvas.height).data;
      };
      const wanted = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
      const mask = pixels(frame.querySelector('img[data-layer=mask]'));
      const alone = pixels(frame.querySelector('canvas'));
      let there = 0, strong = 0;
      for (let at = 0; at < mask.length; at += 4) {
        there += wanted.every((value, index) => mask[at + index] === value);
        strong += alone[at + 3] > 170;
      }
      return [there, strong];
    """
    for frame in frames[:4]:
        there, strong = page.ask(counts, frame, chip.get_attribute("data-color"))
        assert there == strong
    chip.click()
    deadline = time.monotonic() + 30
    while page.all(".frame canvas"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_theme_can_be_chosen_against_the_system(page: Page, reports: dict[str, Path]) -> None:
    page.prefer("light")
    page.open(reports["scenes"])
    button, background = page.one("#theme"), "getComputedStyle(document.body).backgroundColor"
    lights = []
    for _ in range(3):
        lights.append((button.text, brightness(page, background) > 128))
        button.click()
    assert lights == [("Theme: system", True), ("Theme: light", True), ("Theme: dark", False)]


def test_motion_is_left_out_where_it_is_not_wanted(page: Page, reports: dict[str, Path]) -> None:
    durations = []
    for motion in ("no-preference", "reduce"):
        page.prefer("light", motion)
        page.open(reports["scenes"])
        durations.append(page.ask("return getComputedStyle(document.querySelector('.frame img')).transitionDuration"))
    assert durations == ["0.15s", "0s"]


def test_hostile_keys_are_shown_and_do_nothing(page: Page, reports: dict[str, Path]) -> None:
    page.open(reports["hostile"])
    assert page.driver.title == "Run 20261122T101500Z-ab12"
    assert page.ask("return document.scripts.length") == 1
    assert page.ask("return document.querySelectorAll('main img:not(.frame img)').length") == 0
    text = page.ask("return document.body.textContent")
    assert "<script>document.title='owned'</script>.jpg" in text
    assert "emoji-\N{GRINNING FACE}.jpg" in text
    assert "\\u202egpj.exe" in text
    assert "line\\nbreak" in text


def test_the_policy_stops_what_would_reach_out(page: Page, reports: dict[str, Path]) -> None:
    asked: list[str] = []

    class Listens(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Listens)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        page.open(reports["scenes"])
        place = f"http://127.0.0.1:{server.server_port}"
        page.ask(
            """
            const place = arguments[0];
            new Image().src = `${place}/image`;
            fetch(`${place}/fetch`).catch(() => {});
            const inject = document.createElement('div');
            inject.innerHTML = `<img src="${place}/markup" onerror="document.title = 'owned'">`;
            const style = document.createElement('style');
            style.textContent = `body { background: url(${place}/style) }`;
            const script = document.createElement('script');
            script.textContent = "document.title = 'owned'";
            document.body.append(inject, style, script);
            """,
            place,
        )
        time.sleep(0.5)
        refused = page.complaints()
        assert len(refused) >= 4
        assert all("Content Security Policy" in message for message in refused)
        assert asked == []
        assert page.driver.title != "owned"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_without_scripts_there_is_still_something_to_see(page: Page, reports: dict[str, Path]) -> None:
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open(reports["scenes"])
        assert page.one("#pictures button.frame img[data-layer=overlay]").is_displayed()
        assert not page.one("#theme").is_displayed()
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
