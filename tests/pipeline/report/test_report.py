"""The run report: what it says, what it chooses, and that nothing in it comes from or goes anywhere else."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fcn_core import LabelSet, ModelBundle, preset
from pipeline.cli.app import run as fcn
from pipeline.outputs.runs import Attempt, RunRecord, RunState, write_record
from pipeline.report.changes import compare, earlier_runs
from pipeline.report.make import make_report, report_key, write_report
from pipeline.report.overview import make_overview
from pipeline.report.samples import RandomRows
from pipeline.report.summary import Commit, Summary, summarize
from pipeline.report.throughput import Throughput, throughput
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.reports import SETTINGS, Outcome, labelled_run
from tests.samples import encode, fill, jpeg

LABELS = preset("camvid")

HOSTILE = (
    "<script>document.title='owned'</script>.jpg",
    '"><img src=x onerror="document.title=\'owned\'">.jpg',
    "'quotes' and \"quotes\".jpg",
    "emoji-\N{GRINNING FACE}.jpg",
    "deep/" + "k" * 240 + "/" + "l" * 240 + "/" + "m" * 240 + "/" + "n" * 160 + ".jpg",
    "line\nbreak\ttab.jpg",
    "\u202egpj.exe\u2066\u200f.jpg",
    "</style></title><svg onload=alert(1)>.jpg",
    "&lt;b&gt;&amp;.jpg",
)


class Elements(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its text outside script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data


def stripes(width: int, height: int, classes: tuple[int, ...]) -> np.ndarray:
    """A mask of vertical stripes of equal width, uint8 [height, width]."""
    return np.repeat(np.array(classes, np.uint8), width // len(classes))[np.newaxis].repeat(height, axis=0)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Store, Store]:
    """An empty source and output."""
    (tmp_path / "photos").mkdir()
    return open_store(str(tmp_path / "photos")), open_store(str(tmp_path / "labels"))


def photos(source: Store, keys: list[str], width: int = 60, height: int = 40) -> None:
    for index, key in enumerate(keys):
        source.put(key, jpeg(width, height, seed=index))


def summary_of(output: Store, run_id: str) -> Summary:
    return summarize(output, run_id, shown=3, sampled=10)


def test_counts_areas_and_errors_are_those_of_the_rows(places: tuple[Store, Store]) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {
        "a.jpg": stripes(60, 40, (0, 1)),
        "b.jpg": stripes(60, 40, (1, 2, 3)),
        "c.jpg": ("truncated", "The file ends early."),
        "d.jpg": ("truncated", "The file ends early, too."),
        "e.jpg": ("storage", "No answer."),
    }
    record = labelled_run(output, source, outcomes, LABELS, shard_size=2)
    summary = summary_of(output, record.run_id)
    assert (summary.images, summary.ok, summary.pixels) == (5, 2, 2 * 60 * 40)
    assert [(group.reason, group.images) for group in summary.errors] == [("truncated", 2), ("storage", 1)]
    assert [example.key for example in summary.errors[0].examples] == ["c.jpg", "d.jpg"]
    assert {total.class_name: (total.pixels, total.images) for total in summary.classes if total.pixels} == {
        "sky": (1200, 1),
        "building": (1200 + 800, 2),
        "pole": (800, 1),
        "road": (800, 1),
    }
    assert int(summary.confidence.sum()) == 2


def test_the_least_confident_and_the_rarest_are_what_sorting_everything_would_give(places: tuple[Store, Store]) -> None:
    source, output = places
    rng = np.random.default_rng(3)
    outcomes: dict[str, Outcome] = {
        f"{index:03d}.jpg": rng.integers(0, 4, (6, 8)).astype(np.uint8) for index in range(200)
    }
    record = labelled_run(output, source, outcomes, LABELS, shard_size=7)
    summary = summary_of(output, record.run_id)
    confidence = [candidate.confidence for candidate in summary.least_confident]
    everything = sorted(0.5 + 0.5 * ((index * 7919) % 101) / 101 for index in range(200))
    assert confidence == pytest.approx(everything[: len(confidence)])
    for class_id, chosen in summary.rare.items():
        shares = [dict(candidate.shares)[LABELS.names[class_id]] for candidate in chosen]
        best = sorted((float(np.mean(mask == class_id)) for mask in outcomes.values()), reverse=True)  # type: ignore[arg-type]
        assert shares == pytest.approx(best[: len(shares)])


def test_the_random_sample_is_the_same_each_time_and_another_for_another_run(places: tuple[Store, Store]) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {f"{index:03d}.jpg": stripes(8, 6, (0, 1)) for index in range(300)}
    first = labelled_run(output, source, outcomes, LABELS, run_id="20261122T000000Z-0001", shard_size=20)
    other = labelled_run(output, source, outcomes, LABELS, run_id="20261122T000000Z-0002", shard_size=20)

    def drawn(run_id: str) -> list[str]:
        sample = summary_of(output, run_id).sample
        assert sample is not None
        return sample.column("key").to_pylist()

    assert drawn(first.run_id) == drawn(first.run_id)
    assert len(set(drawn(first.run_id))) == 10
    assert drawn(first.run_id) != drawn(other.run_id)


def test_every_row_is_as_likely_as_another_to_be_drawn() -> None:
    parts = [pa.table({"row": list(range(first, min(first + 7, 20)))}) for first in range(0, 20, 7)]
    drawn = [0] * 20
    for seed in range(400):
        sample = RandomRows(5, seed)
        for part in parts:
            sample.offer(part)
        rows = sample.rows()
        assert rows is not None
        for row in rows.column("row").to_pylist():
            drawn[row] += 1
    # 400 x 5 / 20 = 100 each, give or take 9; six times that is chance for nobody.
    assert sum(drawn) == 2000
    assert min(drawn) > 46
    assert max(drawn) < 154


def test_a_run_of_another_recipe_is_compared_photo_by_photo(places: tuple[Store, Store]) -> None:
    source, output = places
    photos(source, ["a.jpg", "b.jpg", "c.jpg"])
    same, half = stripes(60, 40, (0, 0)), stripes(60, 40, (0, 3))
    old: dict[str, Outcome] = {"a.jpg": same, "b.jpg": half, "c.jpg": same, "gone.jpg": same}
    before = labelled_run(output, source, old, LABELS, run_id="20261121T000000Z-0001", params_id="1" * 16)
    source.put("c.jpg", jpeg(60, 40, seed=77))  # a new photo under the old name: not the same image
    new: dict[str, Outcome] = {"a.jpg": half, "b.jpg": half, "c.jpg": half, "new.jpg": half}
    record = labelled_run(output, source, new, LABELS, run_id="20261122T000000Z-0001")
    assert earlier_runs(output, before) == []
    found = earlier_runs(output, record)
    assert [run.run_id for run in found] == [before.run_id]
    sample = summary_of(output, record.run_id).sample
    changes = compare(output, found, sample, 4, 8)
    assert changes.compared == 2
    assert changes.mean == pytest.approx(0.25)
    assert [(item.candidate.key, item.change) for item in changes.most] == [("a.jpg", pytest.approx(0.5))]
    page = make_report(output, record.run_id)
    assert "50 % of the pixels changed" in page
    assert 'data-layer="before"' in page


def test_recipes_with_other_label_sets_are_compared_by_name(places: tuple[Store, Store]) -> None:
    source, output = places
    photos(source, ["a.jpg"])
    other = LabelSet(name="two", names=("road", "sky"), palette=((1, 2, 3), (4, 5, 6)))
    labelled_run(
        output, source, {"a.jpg": stripes(60, 40, (0, 1))}, other, run_id="20261121T000000Z-0001", params_id="1" * 16
    )
    # The same halves in camvid's indices: sky is 0 and road is 3.
    record = labelled_run(output, source, {"a.jpg": stripes(60, 40, (3, 0))}, LABELS, run_id="20261122T000000Z-0001")
    before = earlier_runs(output, record)
    changes = compare(output, before, summary_of(output, record.run_id).sample, 1, 8)
    assert (changes.compared, changes.mean, changes.most) == (1, 0.0, ())


def test_a_run_of_the_same_recipe_or_another_source_is_not_compared_with(places: tuple[Store, Store]) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {"a.jpg": stripes(60, 40, (0, 1))}
    labelled_run(output, source, outcomes, LABELS, run_id="20261120T000000Z-0001")
    labelled_run(
        output,
        source,
        outcomes,
        LABELS,
        run_id="20261121T000000Z-0001",
        params_id="1" * 16,
        job={"source": "elsewhere"},
    )
    assert earlier_runs(output, labelled_run(output, source, outcomes, LABELS)) == []


def test_an_incremental_run_before_hides_no_image_from_the_comparison(places: tuple[Store, Store]) -> None:
    source, output = places
    keys = [f"{index:02d}.jpg" for index in range(12)]
    photos(source, keys)
    rng = np.random.default_rng(0)
    old = {key: rng.integers(0, 4, (8, 8), np.uint8) for key in keys}
    labelled_run(output, source, old, LABELS, run_id="20261120T000000Z-0001", params_id="1" * 16)
    newer = {key: rng.integers(0, 4, (8, 8), np.uint8) for key in keys[:2]}
    labelled_run(output, source, newer, LABELS, run_id="20261121T000000Z-0001", params_id="1" * 16)
    now = {key: rng.integers(2, 6, (8, 8), np.uint8) for key in keys}
    record = labelled_run(output, source, now, LABELS, run_id="20261122T000000Z-0001")
    sample = summarize(output, record.run_id, shown=8, sampled=20).sample
    changes = compare(output, earlier_runs(output, record), sample, 12, 8)
    current = {**old, **newer}
    each = [
        np.abs(np.bincount(current[key].ravel(), minlength=11) - np.bincount(now[key].ravel(), minlength=11)).sum()
        / 2 / now[key].size
        for key in keys
    ]  # fmt: skip
    assert (changes.looked_at, changes.compared) == (12, 12)
    assert changes.mean == pytest.approx(np.mean(each))
    assert (
        "12 of 12 images had a mask then and have the same bytes now"
        in Elements(make_report(output, record.run_id)).text
    )


def test_the_page_is_one_file_that_names_nothing_outside(places: tuple[Store, Store]) -> None:
    source, output = places
    photos(source, ["a.jpg", "b.jpg"])
    record = labelled_run(output, source, {key: stripes(60, 40, (0, 1, 3)) for key in ("a.jpg", "b.jpg")}, LABELS)
    elements = Elements(make_report(output, record.run_id))
    loads = [
        (tag, name, value)
        for tag, attributes in elements.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "style") or name.startswith("on")
    ]
    assert loads
    for tag, name, value in loads:
        assert str(value).startswith(("data:image/", "#")), (tag, name, value)
    assert not {tag for tag, _ in elements.tags} & {"iframe", "object", "embed", "base", "form"}
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in elements.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"data:[^\"]+", "", str(policy))


def test_the_page_says_what_happened(places: tuple[Store, Store], model_dir: Path) -> None:
    source, output = places
    photos(source, ["a.jpg"])
    bundle = ModelBundle.load(model_dir)
    record = labelled_run(
        output,
        source,
        {"a.jpg": stripes(60, 40, (0, 3)), "b.jpg": ("truncated", "The file ends early.")},
        LABELS,
        model=str(model_dir),
        model_id=bundle.model_id,
        job={"max_error_rate": 0.25},
    )
    text = Elements(make_report(output, record.run_id)).text
    for words in (
        record.run_id, bundle.model_id, "fcn8s", "truncated", "The file ends early.", "b.jpg", "road", "50 %",
        "max_error_rate", "0.25", "--retry-errors", "fcn verify",
    ):  # fmt: skip
        assert words in text, words


def test_a_page_made_again_is_the_same_page(places: tuple[Store, Store]) -> None:
    source, output = places
    keys = [f"{index:02d}.jpg" for index in range(30)]
    photos(source, keys)
    record = labelled_run(output, source, {key: stripes(60, 40, (0, 1, 3)) for key in keys}, LABELS)
    assert make_report(output, record.run_id) == make_report(output, record.run_id)


def test_hostile_keys_and_messages_stay_text(places: tuple[Store, Store]) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {key: stripes(60, 40, (0, 1)) for key in HOSTILE}
    outcomes |= {f"bad/{key}": ("damaged", key) for key in HOSTILE}
    record = labelled_run(
        output, source, outcomes, LABELS, job={"include": list(HOSTILE), "model": HOSTILE[0]}, model=HOSTILE[1]
    )
    page = make_report(output, record.run_id)
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 1
    assert not [attributes for _, attributes in elements.tags if any(name.startswith("on") for name in attributes)]
    assert "<script>document.title='owned'</script>.jpg" in elements.text
    assert "line\\nbreak\\ttab.jpg" in elements.text
    assert "\\u202egpj.exe\\u2066\\u200f.jpg" in elements.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200f]", page)


def test_without_the_photos_the_masks_are_shown_and_it_says_why(places: tuple[Store, Store], tmp_path: Path) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {f"{index}.jpg": stripes(60, 40, (0, 1)) for index in range(4)}
    record = labelled_run(output, source, outcomes, LABELS)
    (tmp_path / "photos").rename(tmp_path / "moved")
    elements = Elements(make_report(output, record.run_id))
    assert "masks are shown alone" in elements.text
    layers = {attributes.get("data-layer") for tag, attributes in elements.tags if tag == "img"}
    assert layers == {"mask"}


def test_a_photo_that_changed_is_not_shown_with_its_old_mask(places: tuple[Store, Store]) -> None:
    source, output = places
    keys = [f"{index}.jpg" for index in range(6)]
    photos(source, keys)
    record = labelled_run(output, source, {key: stripes(60, 40, (0, 1)) for key in keys}, LABELS)
    source.put("3.jpg", jpeg(60, 40, seed=99))
    source.put("4.jpg", b"no longer an image")
    source.delete("5.jpg")
    text = Elements(make_report(output, record.run_id)).text
    assert "0.jpg" in text
    for gone in ("3.jpg", "4.jpg", "5.jpg"):
        assert gone not in text


def test_colours_and_names_survive_the_model(places: tuple[Store, Store]) -> None:
    source, output = places
    record = labelled_run(output, source, {"a.jpg": stripes(60, 40, (0, 3))}, LABELS, model="/no/such/model")
    page = make_report(output, record.run_id)
    assert "could not be read" in page
    road = "#" + bytes(LABELS.palette[LABELS.names.index("road")]).hex()
    assert f'fill="{road}"' in page


def test_the_page_stays_under_10_megabytes(places: tuple[Store, Store]) -> None:
    source, output = places
    rng = np.random.default_rng(0)
    keys = [f"{index:02d}.png" for index in range(40)]
    old: dict[str, Outcome] = {}
    new: dict[str, Outcome] = {}
    for key in keys:  # noise: nothing compresses worse
        noise = rng.integers(0, 256, (520, 520, 3), dtype=np.uint8)
        source.put(key, encode(Image.fromarray(noise), "PNG", compress_level=1))
        old[key], new[key] = (rng.integers(0, 11, (520, 520), dtype=np.uint8) for _ in range(2))
    labelled_run(output, source, old, LABELS, run_id="20261121T000000Z-0001", params_id="1" * 16)
    record = labelled_run(output, source, new, LABELS, run_id="20261122T000000Z-0001")
    page = make_report(output, record.run_id).encode()
    assert 3_000_000 < len(page) < 10_000_000


def test_an_output_with_nothing_committed_has_a_report_too(places: tuple[Store, Store]) -> None:
    source, output = places
    record = labelled_run(output, source, {}, LABELS)
    page = make_report(output, record.run_id)
    assert 'class="state empty">finished: there was no image to segment</span>' in page, "neither good nor bad"
    elements = Elements(page)
    assert "No image was segmented, so there is none to show." in elements.text
    assert "None: there was no image to segment." in elements.text
    assert "every image has a mask" not in elements.text
    overview = Elements(make_overview(output, links=False))
    assert "there was no image to segment" in overview.text
    assert "every image has a mask" not in overview.text


@pytest.mark.parametrize(("planned", "words"), [(1, "every image has a mask"), (3, "so far")])
def test_no_failure_so_far_is_not_a_mask_for_every_image(places: tuple[Store, Store], planned: int, words: str) -> None:
    source, output = places
    record = labelled_run(output, source, {"a.jpg": stripes(60, 40, (0, 1))}, LABELS)
    write_record(output, record.model_copy(update={"state": "interrupted", "images": planned}))
    assert f"None: {words}." in Elements(make_report(output, record.run_id)).text


def test_before_the_first_commit_no_image_is_said_to_have_a_mask(places: tuple[Store, Store]) -> None:
    source, output = places
    record = labelled_run(output, source, {}, LABELS)
    write_record(output, record.model_copy(update={"state": "interrupted", "images": 9}))
    for page in (make_report(output, record.run_id), make_overview(output, links=False)):
        assert "None: no image is done yet." in Elements(page).text


@pytest.mark.parametrize(("failed", "first"), [(2, False), (4, True)])
def test_the_page_of_an_output_whose_images_mostly_failed_begins_with_the_errors(
    places: tuple[Store, Store], failed: int, first: bool
) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {
        f"{index}.jpg": ("truncated", "It is cut off.") if index < failed else stripes(60, 40, (0, 1))
        for index in range(5)
    }
    labelled_run(output, source, outcomes, LABELS)
    page = make_overview(output, links=False)
    assert (page.index('id="errors"') < page.index('id="pictures"')) == first


def commit(seconds: float, images: int = 10) -> Commit:
    return Commit(START + timedelta(seconds=seconds), images)


START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def run_of(*attempts: tuple[float, float], state: RunState = "finished") -> RunRecord:
    """A record whose attempts began and ended so many seconds after START."""
    ends = [(START + timedelta(seconds=begin), START + timedelta(seconds=end)) for begin, end in attempts]
    return RunRecord(
        run_id="r", state=state, job={}, job_digest="", model_id="", params_id="", recipe="", settings=SETTINGS,
        images=0, shards=0, started=START, finished=ends[-1][1], version="0",
        attempts=tuple(Attempt(started=begin, finished=end) for begin, end in ends),
        seconds=sum(end - begin for begin, end in attempts),
    )  # fmt: skip


def test_throughput_adds_up_to_the_images_over_the_time_that_the_run_took() -> None:
    found = throughput([commit(second) for second in range(10, 1010, 10)], run_of((0, 1000)))
    assert isinstance(found, Throughput)
    assert found.paused == ()
    assert sum(found.rates) * found.step == pytest.approx(1000)
    assert found.rates == pytest.approx([1.0] * len(found.rates))


def test_the_chart_of_a_resumed_run_is_as_long_as_its_attempts_together() -> None:
    commits = [commit(second) for second in (4, 8, 12)] + [commit(second) for second in (104, 110)]
    found = throughput(commits, run_of((0, 14), (100, 110)))
    assert isinstance(found, Throughput)
    assert found.step * len(found.rates) == pytest.approx(24)
    assert sum(found.rates) * found.step == pytest.approx(50)
    assert found.paused == ((pytest.approx(14), pytest.approx(86)),)


def test_a_night_without_a_commit_is_a_pause_in_a_run_of_0_1_which_has_no_attempts() -> None:
    commits = [commit(second) for second in range(10, 510, 10)] + [commit(36_000 + at) for at in range(0, 500, 10)]
    record = run_of((0, 1), state="interrupted").model_copy(update={"attempts": ()})
    found = throughput(commits, record)
    assert isinstance(found, Throughput)
    ((at, length),) = found.paused
    assert (at, length) == (pytest.approx(500), pytest.approx(35_500))
    assert found.rates == pytest.approx([1.0] * len(found.rates))


def test_dates_of_copied_files_are_not_taken_for_the_runs() -> None:
    commits = [commit(86_400 + second) for second in range(0, 100, 10)]
    assert "copied" in str(throughput(commits, run_of((0, 3600))))


def test_a_report_that_cannot_be_made_is_a_note_and_is_made_later(
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(tmp_path / "photos", 4)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "reports").write_text("a file where the folder should be")
    job = ["segment", str(tmp_path / "photos"), str(tmp_path / "labels"), "--model", str(model_dir), "--actors", "1"]
    segment_in_process(monkeypatch)
    assert fcn([*job, "--device", "cpu", "--cpus-per-actor", "1", "--engine", "torch"]) == 0
    assert "could not be made" in capsys.readouterr().err

    (tmp_path / "labels" / "reports").unlink()
    assert fcn(["report", str(tmp_path / "labels")]) == 0
    (page,) = (tmp_path / "labels" / "reports").glob("*/index.html")
    assert capsys.readouterr().out.strip() == str(page)
    text = Elements(page.read_text()).text
    assert "not_an_image" in text
    assert "fcn8s" in text
    # Made again, it is the same.
    made = page.read_bytes()
    page.unlink()
    assert fcn(["report", str(tmp_path / "labels")]) == 0
    assert page.read_bytes() == made


def test_the_command_takes_a_run_and_a_file(
    places: tuple[Store, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = places
    labelled_run(output, source, {"a.jpg": stripes(6, 4, (0, 1))}, LABELS, run_id="20261121T000000Z-0001")
    labelled_run(output, source, {"b.jpg": stripes(6, 4, (0, 1))}, LABELS, run_id="20261122T000000Z-0001")
    target = tmp_path / "page.html"
    assert fcn(["report", output.uri, "20261121T000000Z-0001", "--file", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert "20261121T000000Z-0001" in Elements(target.read_text()).text
    assert fcn(["report", output.uri]) == 0
    assert (tmp_path / "labels" / report_key("20261122T000000Z-0001")).exists()


def test_a_run_that_is_not_there_is_bad_input(
    places: tuple[Store, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = places
    (tmp_path / "labels").mkdir()
    assert "there is no run under" in refused(capsys, "report", output.uri)
    labelled_run(output, source, {"a.jpg": stripes(6, 4, (0, 1))}, LABELS)
    assert "there is no run nonsense" in refused(capsys, "report", output.uri, "nonsense")
    assert "cannot write" in refused(capsys, "report", output.uri, "--file", tmp_path / "no" / "page.html")


def test_a_report_is_written_to_a_bucket(bucket: str, tmp_path: Path) -> None:
    source, output = open_store(f"s3://{bucket}/photos"), open_store(f"s3://{bucket}/labels")
    photos(source, ["a.jpg", "b.jpg"])
    record = labelled_run(output, source, {key: stripes(60, 40, (0, 1)) for key in ("a.jpg", "b.jpg")}, LABELS)
    page = output.get(write_report(output, record.run_id)).decode()
    assert page.count('data-layer="overlay"') >= 2


def test_a_small_run_shows_each_image_once(places: tuple[Store, Store]) -> None:
    source, output = places
    keys = [f"{index:02d}.jpg" for index in range(15)]
    photos(source, keys)
    before = {key: stripes(60, 40, (0, 1)) for key in keys}
    now: dict[str, Outcome] = {key: stripes(60, 40, (0, 3) if index < 3 else (0, 1)) for index, key in enumerate(keys)}
    labelled_run(output, source, before, LABELS, run_id="20261121T000000Z-0001", params_id="1" * 16)
    record = labelled_run(output, source, now, LABELS, run_id="20261122T000000Z-0001")
    elements = Elements(make_report(output, record.run_id))
    frames = [attributes for _, attributes in elements.tags if "frame" in str(attributes.get("class", "")).split()]
    assert sorted(str(frame["data-name"]) for frame in frames) == keys
    assert [str(frame["class"]) for frame in frames].count("frame compared") == 3
    changed = [attributes for tag, attributes in elements.tags if tag == "img" and attributes["data-layer"] == "before"]
    assert len(changed) == 3, "what changed is shown before and now"


@pytest.mark.parametrize(
    ("failed", "words"), [(3, None), (9, "but 9 of 15 images failed"), (15, "but every image failed")]
)
def test_a_run_whose_images_mostly_failed_does_not_look_well(
    places: tuple[Store, Store], failed: int, words: str | None
) -> None:
    source, output = places
    outcomes: dict[str, Outcome] = {
        f"{index:02d}.jpg": ("truncated", "It is cut off.") if index < failed else stripes(60, 40, (0, 1))
        for index in range(15)
    }
    page = make_report(output, labelled_run(output, source, outcomes, LABELS).run_id)
    state = page[page.index('class="state') :].split("</span>")[0]
    assert (words or 'class="state finished">finished') in state
    assert ("alarming" in state) == (words is not None)
    assert (page.index('id="errors"') < page.index('id="pictures"')) == (words is not None), "then errors come first"
    assert f'<a href="#errors">{failed}</a>' in page, "the tile leads there"


def test_the_page_says_where_the_time_went(places: tuple[Store, Store]) -> None:
    source, output = places
    record = labelled_run(output, source, {"a.jpg": stripes(60, 40, (0, 1))}, LABELS)
    assert 'id="stages"' not in make_report(output, record.run_id), "older records do not have it"
    write_record(output, record.model_copy(update={"stage_seconds": {"fetch": 2.0, "predict": 75.0}}))
    page = make_report(output, record.run_id)
    assert "Longest: predict 1 min 15 s, fetch 2 s." in page
    assert "75000.0" in Elements(page).text, "milliseconds per image"


def test_the_whole_output_has_a_page_with_its_runs(places: tuple[Store, Store], tmp_path: Path) -> None:
    source, output = places
    photos(source, [f"{index}.jpg" for index in range(4)])
    first = {f"{index}.jpg": stripes(60, 40, (0, 1)) for index in range(3)}
    labelled_run(output, source, first, LABELS, run_id="20261121T000000Z-0001")
    second: dict[str, Outcome] = {"2.jpg": ("truncated", "It is cut off."), "3.jpg": stripes(60, 40, (0, 3))}
    newest = labelled_run(output, source, second, LABELS, run_id="20261122T000000Z-0001")
    write_report(output, newest.run_id)
    assert fcn(["report", str(tmp_path / "labels"), "--all"]) == 0
    elements = Elements((tmp_path / "labels" / "reports" / "index.html").read_text())
    assert "4 images by the newest variant" in elements.text
    assert "25 % of the images" in elements.text, "the newest row of each image counts, over all runs"
    assert "20261121T000000Z-0001" in elements.text
    links = [str(attributes["href"]) for tag, attributes in elements.tags if tag == "a" and "href" in attributes]
    assert [link for link in links if not link.startswith("#")] == [f"{newest.run_id}/index.html"]
    assert fcn(["report", str(tmp_path / "labels"), "--all", "--file", str(tmp_path / "all.html")]) == 0
    assert f"{newest.run_id}/index.html" not in (tmp_path / "all.html").read_text(), "there it would lead nowhere"


def test_the_page_is_opened_in_a_browser(
    places: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = places
    record = labelled_run(output, source, {"a.jpg": stripes(60, 40, (0, 1))}, LABELS)
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > "{opened}.new" && mv "{opened}.new" "{opened}"\n')
    browser.chmod(0o755)
    monkeypatch.setattr("webbrowser._tryorder", None)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    assert fcn(["report", str(tmp_path / "labels"), "--open"]) == 0
    assert opened.read_text() == (tmp_path / "labels" / report_key(record.run_id)).as_uri()
    capsys.readouterr()
    assert "give --file FILE as well" in refused(capsys, "report", "s3://bucket/labels", "--open")
