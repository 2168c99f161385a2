"""What changed between two runs: how far the areas moved and how sure that is, and where masks differ."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_core import LabelSet
from pipeline.cli.app import run as fcn
from pipeline.errors import InputError
from pipeline.insight.agreement import mask_agreement
from pipeline.insight.compare import compare
from pipeline.insight.shift import Distribution, divergence, key_marks, shift, weights
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.labellings import CAMVID, CAR, ROAD, SKY, Mask, striped, write_run
from tests.samples import jpeg

A, B = "20260101T000000Z-aaaa", "20260202T000000Z-bbbb"
OTHER_MODEL = "9999999999999999"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labels"))


def test_the_divergence_is_that_of_jensen_and_shannon() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    by_hand = 0.5 * (math.log2(0.5 / 0.375)) + 0.5 * (0.5 * math.log2(0.25 / 0.375) + 0.5 * math.log2(0.5 / 0.25))
    assert divergence(p, q) == pytest.approx(by_hand)
    assert divergence(p, p) == 0
    assert divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1)


def test_bootstrap_weights_are_poisson_of_mean_one_and_independent() -> None:
    drawn = weights(key_marks([str(k) for k in range(4000)]), 100, seed=3)
    assert drawn.mean() == pytest.approx(1, abs=0.01)
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn == 0).mean() == pytest.approx(math.exp(-1), abs=0.005)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.06
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.5
    assert (drawn != weights(key_marks([str(k) for k in range(4000)]), 100, seed=4)).any()


def test_the_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    shares, keys = rng.dirichlet(np.ones(4), 300), [str(k) for k in range(300)]
    whole, parts = Distribution(50, 1), Distribution(50, 1)
    whole.add(keys, shares)
    for start in (200, 100, 0):
        parts.add(keys[start : start + 100], shares[start : start + 100])
    assert np.allclose(whole.replicates(4), parts.replicates(4))
    assert shift(whole, parts, 4).value == pytest.approx(0, abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says_and_chance_is_foretold() -> None:
    rng = np.random.default_rng(1)
    alike, covered, seen, foretold = 0, 0, [], []
    near, far = np.array([6.0, 3.0, 1.0]), np.array([4.0, 4.0, 2.0])
    truth = float(divergence(near / near.sum(), far / far.sum()))
    for trial in range(60):
        first, second, other = (Distribution(100, trial) for _ in range(3))
        first.add([f"a{trial}-{k}" for k in range(80)], rng.dirichlet(near, 80))
        second.add([f"b{trial}-{k}" for k in range(60)], rng.dirichlet(near, 60))
        other.add([f"c{trial}-{k}" for k in range(60)], rng.dirichlet(far, 60))
        same, moved = shift(first, second, 3), shift(first, other, 3)
        alike += same.low <= 0.001
        covered += moved.low <= truth <= moved.high
        seen.append(same.value)
        foretold.append(same.chance)
    assert alike >= 50
    assert covered >= 50
    assert np.mean(foretold) == pytest.approx(np.mean(seen), rel=0.4)


def test_the_same_masks_have_not_shifted_at_all(store: Store) -> None:
    masks: dict[str, Mask | str] = {f"{k}.jpg": striped(SKY, *[ROAD] * (k % 3)) for k in range(9)}
    write_run(store, A, masks)
    write_run(store, B, dict(masks), model=OTHER_MODEL)
    found = compare(store, A, B)
    assert (found.shift.value, found.shift.low, found.shift.high, found.shift.chance) == (0, 0, 0, 0)
    assert (found.same.images, found.same.equal, found.same.pixels, found.same.mean_iou) == (9, 9, 1.0, 1.0)
    assert found.same.changed == ()


def test_images_in_both_are_compared_pixel_by_pixel(store: Store) -> None:
    before: dict[str, Mask | str] = {f"{k}.jpg": striped(SKY, ROAD) for k in range(6)}
    after: dict[str, Mask | str] = dict(before)
    after["1.jpg"] = striped(ROAD, SKY)
    after["4.jpg"] = striped(SKY, SKY, SKY, SKY, CAR)
    after["5.jpg"] = "truncated"
    after["9.jpg"] = striped(CAR)
    write_run(store, A, before)
    write_run(store, B, after, model=OTHER_MODEL)
    found = compare(store, "202601", "202602")
    assert found.images == (6, 6)
    assert (found.same.images, found.same.equal, found.same.compared) == (5, 3, 5)
    assert [(each.pair.key, each.pixels) for each in found.same.changed] == [("1.jpg", 0.0), ("4.jpg", 0.5)]
    assert found.same.pixels == pytest.approx((3 + 0 + 0.5) / 5)
    assert found.same.changed[1].mean_iou == pytest.approx((0.5 / 0.8 + 0 + 0) / 3)
    shares = {change.class_name: (change.mean_share_before, change.mean_share_after) for change in found.classes}
    assert shares["car"] == (0, pytest.approx((0.2 + 1) / 6))
    assert sum(after for _, after in shares.values()) == pytest.approx(1)


def test_runs_on_other_images_are_compared_by_area_alone(store: Store) -> None:
    write_run(store, A, {f"a{k}.jpg": striped(SKY, ROAD) for k in range(8)})
    write_run(store, B, {f"b{k}.jpg": striped(SKY, CAR) for k in range(8)})
    found = compare(store, A, B)
    assert found.shift.value == pytest.approx(0.5)
    assert found.shift.low == pytest.approx(0.5), "every image says the same, so nothing is uncertain"
    assert (found.same.images, found.same.pixels, found.same.changed) == (0, None, ())


def test_a_changed_photo_is_another_image(store: Store) -> None:
    write_run(store, A, {"a.jpg": striped(SKY)})
    write_run(store, B, {"a.jpg": striped(CAR)}, etags={"a.jpg": "newer"})
    assert compare(store, A, B).same.images == 0


def test_label_sets_that_differ_are_compared_by_name(store: Store) -> None:
    names = (*CAMVID.names[::-1][:-1], "roof")
    turned = LabelSet(name="turned", names=names, palette=CAMVID.palette[::-1])
    last = CAMVID.num_classes - 1
    write_run(store, A, {"a.jpg": striped(ROAD, CAR), "b.jpg": striped(SKY, ROAD)})
    write_run(
        store, B, {"a.jpg": striped(last - ROAD, last - CAR), "b.jpg": striped(last, last - ROAD)}, labels=turned,
        model=OTHER_MODEL,
    )  # fmt: skip
    found = compare(store, A, B)
    assert {each.pair.key: each.pixels for each in found.same.changed} == {"b.jpg": 0.5}
    assert {change.class_name: change.mean_share_after for change in found.classes}["roof"] == 0.25


def test_of_many_images_the_changed_and_a_random_part_are_looked_at(store: Store) -> None:
    before: dict[str, Mask | str] = {f"{k:03d}.jpg": striped(*[SKY] * 9, ROAD) for k in range(90)}
    after: dict[str, Mask | str] = {key: striped(*[SKY] * 8, ROAD, ROAD) for key in before}
    after["077.jpg"] = striped(CAR)
    write_run(store, A, before)
    write_run(store, B, after, model=OTHER_MODEL)
    found = compare(store, A, B, masks=20)
    assert found.same.images == 90
    assert found.same.compared == 10
    assert found.same.pixels == pytest.approx(0.9, abs=0.1)
    assert found.same.changed[0].pair.key == "077.jpg"
    assert compare(store, A, B, masks=20) == found, "the same sample every time"


def test_masks_that_are_gone_are_left_out(store: Store) -> None:
    recipe = write_run(store, A, {"a.jpg": striped(SKY), "b.jpg": striped(SKY)})
    write_run(store, B, {"a.jpg": striped(CAR), "b.jpg": striped(CAR)}, model=OTHER_MODEL)
    for info in store.list(f"masks/{recipe}/a.jpg"):
        store.delete(info.key)
    found = compare(store, A, B)
    assert [each.pair.key for each in found.same.changed] == ["b.jpg"]
    assert found.same.compared == 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_agreement_does_not_depend_on_which_mask_is_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 4, (5, 6), dtype=np.uint8) for _ in range(2))
    pixels, mean_iou = mask_agreement(first, second)
    assert (pixels, mean_iou) == pytest.approx(mask_agreement(second, first))
    assert pixels == pytest.approx((first == second).mean())


def test_the_gate_exits_3_and_says_by_how_much(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(store, A, {f"a{k}.jpg": striped(SKY, ROAD) for k in range(8)})
    write_run(store, B, {f"b{k}.jpg": striped(SKY, CAR) for k in range(8)})
    assert fcn(["compare", store.uri, A, B, "--fail-above", "0.6"]) == 0
    assert "shift of the class areas 0.5000" in capsys.readouterr().out
    assert fcn(["compare", store.uri, A, B, "--fail-above", "0.4", "--json"]) == 3
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["failed"], told["shift"]["value"]) == (True, pytest.approx(0.5))
    assert "shifted by 0.5000, more than --fail-above 0.4" in captured.err


def test_what_cannot_be_compared_is_said_in_one_sentence(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(store, A, {"a.jpg": striped(SKY)})
    write_run(store, B, {"a.jpg": "truncated"})
    assert "are the same run" in refused(capsys, "compare", store.uri, A, "202601")
    assert "there is no run 2031" in refused(capsys, "compare", store.uri, A, "2031")
    assert f"run {B} made no mask" in refused(capsys, "compare", store.uri, A, B)
    assert "--fail-above" in refused(capsys, "compare", store.uri, A, B, "--fail-above", "-1")
    with pytest.raises(InputError):
        compare(store, "", B)


def test_the_picture_shows_what_changed(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = open_store(str(tmp_path / "photos"))
    for name in ("a.jpg", "b.jpg", "c.jpg", "gone.jpg"):
        photos.put(name, jpeg(40, 30))
    etags = {info.key: info.etag for info in photos.list()}
    before: dict[str, Mask | str] = {key: striped(SKY, ROAD, height=30, width=40) for key in etags}
    after: dict[str, Mask | str] = {**before, **{k: striped(CAR, height=30, width=40) for k in ("a.jpg", "gone.jpg")}}
    write_run(store, A, before, etags=etags, source=photos.uri)
    write_run(store, B, after, etags=etags, source=photos.uri, model=OTHER_MODEL)
    photos.delete("gone.jpg")
    picture = tmp_path / "changed.png"
    assert fcn(["compare", store.uri, A, B, "--contact-sheet", str(picture)]) == 0
    with Image.open(picture) as image:
        assert image.width > 3 * 320, "image, before and after side by side"
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 24) or []}
    assert CAMVID.palette[CAR] in colors, "the legend at least"
    photos.delete("a.jpg")
    picture.unlink()
    assert fcn(["compare", store.uri, A, B, "--contact-sheet", str(picture)]) == 0
    assert not picture.exists()
    assert "no contact sheet" in capsys.readouterr().err
