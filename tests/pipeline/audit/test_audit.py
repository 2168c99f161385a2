"""`fcn audit` from the plan to the estimate, on outputs whose truth is known."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

from fcn_core.labels import encode_mask
from pipeline.audit.estimate import EstimateOptions, estimate_audit
from pipeline.audit.files import read_waves
from pipeline.audit.plan import PlanOptions, extend_audit, plan_audit
from pipeline.audit.results import ClassEstimate, Estimate
from pipeline.cli.app import run as fcn
from pipeline.errors import InputError
from pipeline.outputs.query import open_tables, run_query
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.pipeline.audit.sites import CAR, LABELS, POLE, ROAD, Site, faulty, make_site
from tests.reports import labelled_run


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def drawn_keys(audit: Store) -> list[str]:
    return [key for _, sample in read_waves(audit) for key in sample["key"].to_pylist()]


def plan(site: Site, n: int = 40, place: str = "audit", **options: Any) -> Store:
    audit = open_store(str(site.root / place))
    plan_audit(site.output, audit, PlanOptions(n, **options))
    return audit


def named(found: Estimate, name: str) -> ClassEstimate:
    return next(each for each in found.classes if each.name == name)


def test_plan_annotate_estimate(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    place = site.root / "audit"
    assert fcn(["audit", "plan", str(site.root / "labels"), "-n", "40", "-o", str(place)]) == 0
    tasks = sorted(file.name for file in (place / "tasks/0001").iterdir())
    assert tasks == ["images", "label_config.xml", "tasks-001.json"]
    written = json.loads((place / "tasks/0001/tasks-001.json").read_text())
    assert len(written) == 40
    assert all(set(task) == {"data"} and set(task["data"]) == {"image", "key"} for task in written), "no proposals"
    annotated = site.annotate(drawn_keys(open_store(str(place))))
    capsys.readouterr()
    assert fcn(["audit", "estimate", str(place), annotated.uri, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["class"] for each in found["classes"]] == ["road", "sky", "car", "pole"]
    for each, truth in zip(found["classes"], site.shares, strict=True):
        assert each["low"] <= truth <= each["high"]
        assert 0 <= each["low"] <= each["share"] <= each["high"] <= 1
    pole = found["classes"][POLE]
    assert pole["model_share"] == 0
    assert pole["low"] > 0, "a class that is never predicted is found all the same"
    assert pole["recall"]["value"] == 0
    assert pole["precision"]["value"] is None
    page = (place / "index.html").read_text()
    assert "pole" in page
    assert json.loads((place / "estimate.json").read_text())["annotated"] == 40


def test_the_same_seed_draws_the_same_images_and_another_does_not(site: Site) -> None:
    first, again, other = plan(site, place="a"), plan(site, place="b"), plan(site, place="c", seed=1)
    assert drawn_keys(first) == drawn_keys(again)
    assert drawn_keys(first) != drawn_keys(other)


def test_probabilities_are_those_of_the_strata(site: Site) -> None:
    ((wave, sample),) = read_waves(plan(site))
    for stratum in wave.strata:
        here = sample.filter(pc.equal(sample["stratum"], stratum.number))
        assert len(here) == stratum.drawn
        assert set(here["probability"].to_pylist()) <= {stratum.drawn / stratum.images}
    assert sum(1 / p for p in sample["probability"].to_pylist()) == pytest.approx(80)


def test_a_dry_run_tells_widths_and_writes_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["audit", "plan", str(site.root / "labels"), "-n", "40", "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["expected_half_width"]) == set(LABELS.names)
    assert all(width > 0 for width in list(found["expected_half_width"].values())[:2])
    assert found["expected_half_width"]["pole"] is None, "it is never predicted"
    assert not (site.root / "audit").exists()
    assert fcn(["audit", "plan", str(site.root / "labels"), "-n", "40", "--dry-run"]) == 0
    assert "half width to expect" in capsys.readouterr().out


def test_the_whole_output_annotated_is_the_truth_without_an_interval(site: Site) -> None:
    audit = plan(site, n=1000)
    found = estimate_audit(audit, site.annotate(site.truth))
    np.testing.assert_allclose([each.share for each in found.classes], site.shares, atol=1e-12)
    for each in found.classes:
        assert each.low == pytest.approx(each.high, abs=1e-9)


def test_the_bias_is_what_the_model_is_off_by(site: Site) -> None:
    audit = plan(site, n=1000)
    found = estimate_audit(audit, site.annotate(site.truth))
    for each, truth in zip(found.classes, site.shares, strict=True):
        assert each.bias == pytest.approx(each.model_share - truth, abs=1e-9)


def test_images_without_an_annotation_are_named_and_their_strata_stand_for_them(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    annotated = site.annotate(keys[3:])
    found = estimate_audit(audit, annotated)
    assert [each.key for each in found.not_used] == keys[:3]
    assert all("not annotated" in each.reason for each in found.not_used)
    assert found.response == pytest.approx(37 / 40)
    for each, truth in zip(found.classes, site.shares, strict=True):
        assert each.low - 0.01 <= truth <= each.high + 0.01
    assert fcn(["audit", "estimate", audit.uri, annotated.uri]) == 0
    captured = capsys.readouterr()
    assert keys[0] in captured.err


def test_a_mostly_void_annotation_is_partial_and_little_void_counts_as_no_class(site: Site) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    annotated = site.annotate(keys)
    half, little = site.truth[keys[0]].copy(), site.truth[keys[1]].copy()
    half[:12] = 255
    little[:2] = 255
    annotated.put(f"{keys[0][:-4]}.png", encode_mask(half, LABELS))
    annotated.put(f"{keys[1][:-4]}.png", encode_mask(little, LABELS))
    found = estimate_audit(audit, annotated)
    assert [(each.key, "only partly" in each.reason) for each in found.not_used] == [(keys[0], True)]
    assert 0 < found.void < 0.02
    assert len(estimate_audit(audit, annotated, EstimateOptions(most_void=0.9)).not_used) == 0


def test_masks_of_another_size_or_of_no_class_are_not_used(site: Site) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    annotated = site.annotate(keys)
    annotated.put(f"{keys[0][:-4]}.png", encode_mask(np.zeros((5, 5), np.uint8), LABELS))
    annotated.put(f"{keys[1][:-4]}.png", b"no PNG")
    reasons = {each.key: each.reason for each in estimate_audit(audit, annotated).not_used}
    assert "5x5 pixels, the image 24x18" in reasons[keys[0]]
    assert "no readable PNG" in reasons[keys[1]]


def test_annotations_that_no_plan_drew_give_no_estimate(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    annotated = site.annotate(site.truth, "training")
    line = refused(capsys, "audit", "estimate", site.root / "training", annotated.uri)
    assert "were not drawn by a plan" in line
    audit = plan(site)
    strangers = open_store(str(site.root / "strangers"))
    strangers.put("x/y.png", encode_mask(site.truth["cam0/0000.jpg"], LABELS))
    assert "is of an image that the audit drew" in refused(capsys, "audit", "estimate", audit.uri, strangers.uri)
    assert "of no format that is recognised" in refused(capsys, "audit", "estimate", audit.uri, site.root / "photos")


def test_masks_beyond_the_sample_are_left_out_and_named(site: Site) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    expected = estimate_audit(audit, site.annotate(keys, "only"))
    found = estimate_audit(audit, site.annotate(site.truth, "all"))
    assert len(found.not_sampled) == 40
    assert found.classes == expected.classes


def test_a_task_may_be_called_as_in_the_tool_or_as_the_image(site: Site) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    by_key = estimate_audit(audit, site.annotate(keys))
    place = open_store(str(site.root / "cvat"))
    for key in keys:
        mask = site.truth[key]
        colours = np.array(LABELS.palette, np.uint8)[mask]
        place.put(f"SegmentationClass/{key[:-4].replace('/', '_')}.png", _rgb(colours))
    by_task = estimate_audit(audit, place)
    assert by_task.classes == by_key.classes
    place.put(f"SegmentationClass/{keys[0]}.png", encode_mask(site.truth[keys[0]], LABELS))
    with pytest.raises(InputError, match="two masks of"):
        estimate_audit(audit, place)


def test_what_cvat_exports_is_read_by_its_own_colours(site: Site) -> None:
    audit = plan(site, tasks="cvat")
    keys = drawn_keys(audit)
    by_key = estimate_audit(audit, site.annotate(keys))
    colours = np.array([(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)], np.uint8)
    lines = [
        f"{name}:{','.join(map(str, color))}::" for name, color in zip(LABELS.names, colours.tolist(), strict=True)
    ]
    path = site.root / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", "background:0,0,0::", *lines]))
        names = [key[:-4].replace("/", "_") for key in keys]
        archive.writestr("ImageSets/Segmentation/default.txt", "\n".join(names))
        for key, name in zip(keys, names, strict=True):
            archive.writestr(f"SegmentationClass/{name}.png", _rgb(colours[site.truth[key]]))
    assert estimate_audit(audit, open_store(str(path))).classes == by_key.classes


def _rgb(colours: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(colours).save(data, "PNG")
    return data.getvalue()


def test_an_audit_is_not_planned_twice_in_one_place(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    audit = plan(site)
    assert "there is an audit under" in refused(capsys, "audit", "plan", site.root / "labels", "-o", audit.uri)


def test_domains_have_estimates_of_their_own(site: Site) -> None:
    audit = plan(site, n=60, by="folder")
    found = estimate_audit(audit, site.annotate(drawn_keys(audit)))
    assert [each.name for each in found.domains] == ["cam0", "cam1", "cam2", "cam3"]
    assert sum(each.images for each in found.domains) == 80
    held = 0
    for domain in found.domains:
        masks = [mask for key, mask in site.truth.items() if key.startswith(domain.name)]
        truth = np.bincount(np.concatenate([mask.ravel() for mask in masks]), minlength=4) / (20 * 24 * 18)
        held += sum(each.low <= share <= each.high for each, share in zip(domain.classes, truth, strict=True))
    assert held >= 14, "of 16 intervals of 95 %"


def test_where_limits_the_population(site: Site) -> None:
    pytest.importorskip("duckdb")
    audit = plan(site, n=1000, where="key LIKE 'cam1/%'")
    found = estimate_audit(audit, site.annotate(site.truth))
    masks = np.concatenate([mask.ravel() for key, mask in site.truth.items() if key.startswith("cam1/")])
    np.testing.assert_allclose([each.share for each in found.classes], np.bincount(masks, minlength=4) / len(masks))
    with pytest.raises(InputError, match="cannot be run"):
        plan(site, place="other", where="no such column")


def test_query_joins_the_estimate_to_the_results(site: Site) -> None:
    pytest.importorskip("duckdb")
    audit = plan(site)
    assert fcn(["audit", "estimate", audit.uri, site.annotate(drawn_keys(audit)).uri]) == 0
    sql = (
        "SELECT class_name, a.share, sum(pixels) / (SELECT sum(pixels) FROM class_areas) AS model "
        "FROM audits a JOIN class_areas USING (recipe, class_name) GROUP BY ALL ORDER BY class_name"
    )
    with open_tables(site.output) as connection:
        rows = run_query(connection, sql).read_all().to_pylist()
    assert [row["class_name"] for row in rows] == ["car", "road", "sky"]
    assert all(0 < row["share"] < 1 for row in rows)


def test_a_biased_model_fails_the_gate_and_so_does_a_wide_interval(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = plan(site)
    annotated = site.annotate(drawn_keys(audit)).uri
    assert fcn(["audit", "estimate", audit.uri, annotated, "--fail-bias", "0.01"]) == 3
    assert "failed: sky: the model is off by +" in capsys.readouterr().err
    assert fcn(["audit", "estimate", audit.uri, annotated, "--fail-bias", "0.2", "--fail-width", "0.5"]) == 0
    assert fcn(["audit", "estimate", audit.uri, annotated, "--fail-width", "0.001"]) == 3


def test_images_that_a_model_was_trained_on_do_not_audit_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    audit = plan(site)
    keys = drawn_keys(audit)
    other = next(key for key in site.truth if key not in keys)
    photos = open_store(str(site.root / "photos"))
    for name, key in (("seen", keys[0]), ("unseen", other)):
        data = open_store(str(site.root / name))
        data.put("JPEGImages/renamed.jpg", photos.get(key))
        data.put("SegmentationClass/renamed.png", encode_mask(site.truth[key], LABELS))
        data.put("ImageSets/Segmentation/train.txt", b"renamed\n")
        data.put("labels.json", LABELS.model_dump_json().encode())
    annotated = site.annotate(keys).uri
    line = refused(capsys, "audit", "estimate", audit.uri, annotated, "--trained-on", site.root / "seen")
    assert keys[0] in line
    assert fcn(["audit", "estimate", audit.uri, annotated, "--trained-on", str(site.root / "unseen")]) == 0


def test_extend_draws_from_what_was_added_and_the_estimate_covers_both(site: Site) -> None:
    audit = plan(site, n=40)
    before = drawn_keys(audit)
    with pytest.raises(InputError, match="nothing was added"):
        extend_audit(audit, 20)
    more = make_site(site.root, 60, run_id="20261123T101500Z-ab12", first=80)
    both = Site(site.root, site.output, {**site.truth, **more.truth})
    assert fcn(["audit", "extend", audit.uri, "-n", "30"]) == 0
    keys = drawn_keys(audit)
    assert keys[:40] == before
    assert set(keys[40:]) <= set(more.truth)
    found = estimate_audit(audit, both.annotate(keys))
    assert found.images == 140
    assert found.annotated == 70
    for each, truth in zip(found.classes, both.shares, strict=True):
        assert each.low <= truth <= each.high


def test_images_that_were_replaced_since_leave_the_first_draw_and_can_be_drawn_anew(site: Site) -> None:
    audit = plan(site, n=40)
    replaced = drawn_keys(audit)[:10]
    masks = {key: faulty(np.full((18, 24), CAR, np.uint8), 1) for key in replaced}
    source = open_store(str(site.root / "empty"))
    labelled_run(site.output, source, masks, LABELS, run_id="20261124T101500Z-ab12")
    drawn = extend_audit(audit, 10)
    (revision,) = drawn.wave.earlier
    assert revision.gone == tuple(sorted(replaced))
    assert sum(stratum.images for stratum in revision.strata) == 70
    assert set(drawn.sample["key"].to_pylist()) <= set(replaced)
    keys = set(drawn_keys(audit)) - set(replaced)
    found = estimate_audit(audit, site.annotate(keys))
    assert found.images == 80
    assert found.annotated == 30


def test_whole_folders_are_drawn_and_named(tmp_path: Path) -> None:
    site = make_site(tmp_path, 200, folders=20)
    audit = plan(site, n=40, cluster="folder", per_cluster=5)
    ((wave, sample),) = read_waves(audit)
    assert sum(stratum.drawn for stratum in wave.strata) == 8
    assert len(set(sample["cluster"].to_pylist())) == 8
    assert len(sample) == 40
    found = estimate_audit(audit, site.annotate(drawn_keys(audit)))
    assert found.cluster == "folder"
    held = [each.low <= truth <= each.high for each, truth in zip(found.classes, site.shares, strict=True)]
    assert sum(held) >= 3


def test_an_interval_with_cluster_is_never_narrower(site: Site) -> None:
    audit = plan(site)
    annotated = site.annotate(drawn_keys(audit))
    plain, clustered = (estimate_audit(audit, annotated, EstimateOptions(cluster=each)) for each in (None, "folder"))
    for one, other in zip(plain.classes, clustered.classes, strict=True):
        assert other.high - other.low >= one.high - one.low - 1e-12
        assert other.design_effect >= 1


@pytest.mark.parametrize("images", [1, 2, 3, 12])
def test_tiny_outputs(tmp_path: Path, images: int) -> None:
    site = make_site(tmp_path, images)
    audit = plan(site, n=8)
    if images == 1:
        with pytest.raises(InputError, match="an interval takes 2 or more"):
            estimate_audit(audit, site.annotate(site.truth))
        return
    found = estimate_audit(audit, site.annotate(drawn_keys(audit)))
    for each, truth in zip(found.classes, site.shares, strict=True):
        assert each.low - 1e-9 <= truth <= each.high + 1e-9


def test_a_model_that_is_wrong_everywhere(tmp_path: Path) -> None:
    site = make_site(tmp_path, 0)
    truth = {f"{index}.jpg": np.full((6, 6), CAR, np.uint8) for index in range(50)}
    wrong = {key: np.full((6, 6), ROAD, np.uint8) for key in truth}
    labelled_run(site.output, open_store(str(tmp_path / "photos")), wrong, LABELS)
    site = Site(tmp_path, site.output, truth)
    audit = plan(site, n=20, tasks="none")
    found = estimate_audit(audit, site.annotate(drawn_keys(audit)))
    assert found.accuracy.value == 0
    assert found.accuracy.high is not None
    assert 0 < found.accuracy.high < 0.2
    assert named(found, "car").share == pytest.approx(1)
    assert named(found, "car").low < 1
    assert named(found, "road").share == pytest.approx(0)
    assert named(found, "road").bias == pytest.approx(1)


def test_a_class_that_is_predicted_everywhere(tmp_path: Path) -> None:
    site = make_site(tmp_path, 80)
    everywhere = {key: np.full(mask.shape, ROAD, np.uint8) for key, mask in site.truth.items()}
    output = open_store(str(tmp_path / "everywhere"))
    labelled_run(output, open_store(str(tmp_path / "photos")), everywhere, LABELS)
    site = Site(tmp_path, output, site.truth)
    audit = plan(site, n=40)
    found = estimate_audit(audit, site.annotate(drawn_keys(audit)))
    road = named(found, "road")
    assert road.model_share == 1
    assert road.recall is not None
    assert road.recall.value == 1
    assert road.precision is not None
    assert road.precision.value == pytest.approx(road.share, abs=0.02)
    for each, truth in zip(found.classes, site.shares, strict=True):
        assert each.low <= truth <= each.high
