"""What is worth labelling comes first, in a list, a file, and a project that labelling tools really import."""

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn_core import LabelSet
from fcn_core.labels import VOID, decode_mask
from pipeline.cli.app import run as fcn
from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.errors import InputError
from pipeline.insight.labelling_export import copy_names
from pipeline.insight.rank import rank
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.labellings import CAMVID, CAR, CYCLIST, ROAD, SKY, Mask, striped, write_run
from tests.samples import jpeg

RUN = "20260101T000000Z-0000"
OTHER_MODEL = "9999999999999999"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labels"))


def keys(store: Store, *arguments: object, **options: object) -> list[str]:
    return [row.key for row in rank(store, *arguments, **options).ranked]  # type: ignore[arg-type]


def test_the_least_confident_come_first_and_only_as_current(store: Store) -> None:
    masks: dict[str, Mask | str] = {f"{k}.jpg": striped(SKY) for k in range(9)} | {"bad.jpg": "truncated"}
    write_run(store, RUN, masks, confidence={f"{k}.jpg": 0.9 - k / 20 for k in range(9)})
    write_run(store, "20260102T000000Z-0000", {"8.jpg": striped(SKY)}, confidence={"8.jpg": 0.95})
    ranking = rank(store, top=3)
    assert [row.key for row in ranking.ranked] == ["7.jpg", "6.jpg", "5.jpg"]
    assert ranking.images == 9
    assert [row.rank for row in ranking.ranked] == [1, 2, 3]
    assert ranking.ranked[0].priority == pytest.approx(0.45, abs=1e-6)
    assert ranking.ranked[0].reason == "confidence 0.550"
    assert (ranking.ranked[0].run_id, ranking.ranked[0].etag) == (RUN, "e")


def test_no_folder_fills_the_list(store: Store) -> None:
    sure = {
        f"{folder}/{k}.jpg": value + k / 100
        for folder, value in (("a", 0.1), ("b", 0.3), ("c/d", 0.5))
        for k in range(4)
    }
    write_run(store, RUN, {key: striped(SKY) for key in sure}, confidence=sure)
    assert keys(store, top=4) == ["a/0.jpg", "a/1.jpg", "a/2.jpg", "a/3.jpg"]
    assert keys(store, top=5, per_folder=2) == ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg", "c/d/0.jpg"]


def test_images_with_a_rare_class_come_first_and_specks_do_not_count(store: Store) -> None:
    masks: dict[str, Mask | str] = {f"{k:02d}.jpg": striped(SKY, ROAD) for k in range(12)}
    masks["03.jpg"] = striped(SKY, CAR)
    masks["07.jpg"] = striped(SKY, CYCLIST)
    masks["08.jpg"] = striped(SKY, CYCLIST, CYCLIST, SKY, SKY)
    speck = striped(SKY, ROAD, height=40, width=40)
    speck[0, 0] = CAMVID.names.index("fence")
    masks["09.jpg"] = speck
    write_run(store, RUN, masks)
    ranking = rank(store, "rare", top=4)
    assert [row.key for row in ranking.ranked][:3] == ["03.jpg", "07.jpg", "08.jpg"], "rarer, then more of it"
    assert ranking.ranked[0].reason == "car covers 50 %, visible in 8.3 % of the images"
    assert "fence" not in ranking.ranked[3].reason


def test_pixels_without_a_class_make_no_image_rare(store: Store) -> None:
    masks: dict[str, Mask | str] = {f"{k}.jpg": striped(SKY, ROAD) for k in range(6)}
    masks["unsure.jpg"] = striped(SKY, VOID)
    masks["car.jpg"] = striped(SKY, CAR, ROAD)
    masks["cars.jpg"] = striped(SKY, CAR)
    write_run(store, RUN, masks)
    ranking = rank(store, "rare", top=2)
    assert [row.key for row in ranking.ranked] == ["cars.jpg", "car.jpg"]
    assert "car covers" in ranking.ranked[0].reason


def test_images_on_which_two_models_disagree_come_first(store: Store) -> None:
    mine: dict[str, Mask | str] = {f"{k}.jpg": striped(SKY, ROAD) for k in range(6)}
    theirs: dict[str, Mask | str] = dict(mine)
    theirs["2.jpg"] = striped(ROAD, SKY)  # the same areas, and not one pixel the same
    theirs["4.jpg"] = striped(SKY, ROAD, CAR, CAR, CAR)
    theirs["5.jpg"] = "truncated"
    other = write_run(store, RUN, theirs, model=OTHER_MODEL)
    recipe = write_run(store, "20260102T000000Z-0000", mine)
    ranking = rank(store, "disagreement", top=3)
    assert [(row.key, row.priority) for row in ranking.ranked] == [("2.jpg", 1.0), ("4.jpg", 0.8), ("0.jpg", 0.0)]
    assert (ranking.record.recipe, ranking.images) == (recipe, 5)
    assert f"100 % of the pixels differ from recipe {other}" in ranking.ranked[0].reason
    turned = rank(store, "disagreement", top=1, recipe=other, against=recipe)
    assert turned.ranked[0].mask_key.startswith(f"masks/{other}/")


def test_a_changed_photo_is_no_disagreement(store: Store) -> None:
    write_run(store, RUN, {"a.jpg": striped(SKY)}, model=OTHER_MODEL)
    write_run(store, "20260102T000000Z-0000", {"a.jpg": striped(CAR)}, etags={"a.jpg": "newer"})
    with pytest.raises(InputError, match=r"no image under .* has masks of both"):
        rank(store, "disagreement")


def test_models_with_other_class_numbers_are_compared_by_name(store: Store) -> None:
    turned = LabelSet(name="turned", names=CAMVID.names[::-1], palette=CAMVID.palette[::-1])
    last = CAMVID.num_classes - 1
    write_run(store, RUN, {"a.jpg": striped(last - SKY, last - ROAD)}, labels=turned, model=OTHER_MODEL)
    write_run(store, "20260102T000000Z-0000", {"a.jpg": striped(SKY, ROAD)})
    assert rank(store, "disagreement").ranked[0].priority == 0


def test_of_many_pairs_those_with_the_largest_area_change_are_looked_at(store: Store) -> None:
    mine: dict[str, Mask | str] = {f"{k:03d}.jpg": striped(SKY) for k in range(60)}
    theirs: dict[str, Mask | str] = {key: striped(*[SKY] * 9, ROAD) for key in mine}
    theirs["042.jpg"] = striped(ROAD)
    write_run(store, RUN, theirs, model=OTHER_MODEL)
    write_run(store, "20260102T000000Z-0000", mine)
    ranking = rank(store, "disagreement", top=1, masks=10)
    assert ranking.ranked[0].key == "042.jpg"
    assert ranking.masks_compared is not None
    assert ranking.masks_compared <= 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--by", "disagreement"), "disagreement takes two"),
        (("--by", "disagreement", "--against", "deadbeef"), "no run under .* has recipe deadbeef"),
        (("--recipe", "deadbeef"), "no run under .* has recipe deadbeef"),
        (("--export", "list.txt"), "does not end in .parquet or .csv"),
        (("--top", "0"), "--top"),
        (("--by", "luck"), "--by"),
    ],
)
def test_what_cannot_be_ranked_is_said_in_one_sentence(
    store: Store, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    write_run(store, RUN, {"a.jpg": striped(SKY)})
    assert re.search(message, refused(capsys, "rank", store.uri, *arguments))


def test_an_output_with_errors_alone_has_nothing_to_rank(store: Store) -> None:
    write_run(store, RUN, {"a.jpg": "truncated"})
    with pytest.raises(InputError, match="has no masks of recipe"):
        rank(store)


def test_the_list_is_written_as_parquet_and_csv(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, RUN, {"a,'ä\n.jpg": striped(SKY), "[red]b[/].jpg": striped(SKY)}, confidence={"a,'ä\n.jpg": 0.4})
    assert fcn(["rank", store.uri, "--export", str(tmp_path / "list.parquet"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    rows = pq.read_table(tmp_path / "list.parquet").to_pylist()
    assert [row["key"] for row in rows] == [row["key"] for row in printed] == ["a,'ä\n.jpg", "[red]b[/].jpg"]
    assert fcn(["rank", store.uri, "--export", str(tmp_path / "list.csv")]) == 0
    shown = capsys.readouterr()
    assert "[red]b[/].jpg" in shown.out, "a key is shown as it is"
    assert r"a,'ä\n.jpg" in shown.out, "and cannot break the table"
    with (tmp_path / "list.csv").open(newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["a,'ä\n.jpg", "[red]b[/].jpg"]


# What the formats are is told here once more, from the tools' side: these readers share nothing with the writers.


def unpack(rle: list[int]) -> npt.NDArray[np.uint8]:
    """Label Studio's decoder, after the specification of @thi.ng/rle-pack: a string of bits, read from the left."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeat = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeat else [read(word) for _ in range(length)]
    assert len(values) == total
    return np.array(values, np.uint8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.integers(0, 99))
def test_brush_masks_read_back_by_label_studios_rule(height: int, width: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    picture = unpack(encode_brush(mask)).reshape(height, width, 4)
    assert (picture == np.where(mask, 255, 0)[:, :, None]).all()


def test_brush_masks_of_long_runs_read_back() -> None:
    mask = np.zeros((300, 250), bool)
    mask[260, 7] = True
    assert (unpack(encode_brush(mask)).reshape(300, 250, 4)[:, :, 3] > 0).tolist() == mask.tolist()


PHOTOS = {"cam one/0.jpg": (10, 8), "cam_one/0.jpg": (10, 8), "top.PNG": (12, 9), ".hidden: ü#.jpg": (10, 8)}


@pytest.fixture
def photos(tmp_path: Path) -> Store:
    source = open_store(str(tmp_path / "photos"))
    for key, (width, height) in PHOTOS.items():
        source.put(key, jpeg(width, height))
    return source


@pytest.fixture
def labelled(store: Store, photos: Store) -> dict[str, Mask]:
    """A run over real photos; returns its masks by key."""
    masks: dict[str, Mask] = {
        key: striped(SKY, ROAD, CAR, height=height, width=width) for key, (width, height) in PHOTOS.items()
    }
    masks["top.PNG"] = striped(SKY, height=9, width=12)
    etags = {info.key: info.etag for info in photos.list()}
    sure = {key: 0.1 + place / 10 for place, key in enumerate(PHOTOS)}
    write_run(store, RUN, masks, etags=etags, source=photos.uri, confidence=sure)
    return masks


def test_label_studio_gets_tasks_that_show_the_masks(
    store: Store, photos: Store, labelled: dict[str, Mask], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fcn(["rank", store.uri, "--copy-to", str(tmp_path / "project")]) == 0
    project = tmp_path / "project"
    config = ElementTree.fromstring((project / "label_config.xml").read_text())
    brush, image = config.find("BrushLabels"), config.find("Image")
    assert brush is not None
    assert image is not None
    assert [label.get("value") for label in brush] == list(CAMVID.names)
    assert brush[ROAD].get("background") == "#804080"
    tasks = json.loads((project / "tasks-001.json").read_text())
    assert [task["data"]["key"] for task in tasks] == list(PHOTOS), "least confident first"
    for task in tasks:
        data = task["data"]
        assert image.get("value") == "$image"
        root, _, name = data["image"].partition("?d=")
        assert root == "/data/local-files/"
        assert (project.parent / name.replace("%20", " ")).read_bytes() == photos.get(data["key"])
        (prediction,) = task["predictions"]
        mask = np.full(labelled[data["key"]].shape, 255, np.uint8)
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == (
                "brushlabels", brush.get("name"), brush.get("toName"),
            )  # fmt: skip
            assert (region["original_height"], region["original_width"]) == mask.shape
            (name,) = region["value"]["brushlabels"]
            layer = unpack(region["value"]["rle"]).reshape(*mask.shape, 4)[:, :, 3]
            mask[layer > 0] = CAMVID.names.index(name)
        assert mask.tolist() == labelled[data["key"]].tolist()
        assert 0 < prediction["score"] < 1
    with (project / "images.csv").open(newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == list(PHOTOS)


def read_labelmap(text: str) -> dict[str, tuple[int, int, int]]:
    """Name to colour, by CVAT's rule: '#' begins a comment, four fields between colons."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, color, _, _ = line.strip().split(":")
            red, green, blue = (int(part) for part in color.split(","))
            found[name] = (red, green, blue)
    return found


def test_cvat_gets_its_segmentation_mask_layout(
    store: Store, photos: Store, labelled: dict[str, Mask], tmp_path: Path
) -> None:
    assert fcn(["rank", store.uri, "--copy-to", str(tmp_path / "project"), "--format", "cvat"]) == 0
    project = tmp_path / "project"
    colors = read_labelmap((project / "labelmap.txt").read_text())
    assert list(colors) == list(CAMVID.names)
    with (project / "images.csv").open(newline="") as file:
        copies = {row["name"]: row["key"] for row in csv.DictReader(file)}
    listed = (project / "ImageSets" / "Segmentation" / "default.txt").read_text().split("\n")[:-1]
    assert [Path(name).stem for name in copies] == listed
    assert {path.name for path in (project / "JPEGImages").iterdir()} == set(copies)
    with zipfile.ZipFile(project / "annotations.zip") as archive:
        names = set(archive.namelist())
        for name, key in copies.items():
            assert (project / "JPEGImages" / name).read_bytes() == photos.get(key)
            path = f"SegmentationClass/{Path(name).stem}.png"
            painted = np.asarray(Image.open(io.BytesIO(archive.read(path))).convert("RGB"))
            expected = np.array([colors[CAMVID.names[index]] for index in range(CAMVID.num_classes)], np.uint8)
            assert painted.tolist() == expected[labelled[key]].tolist(), "read by colour"
            assert decode_mask((project / path).read_bytes()).tolist() == labelled[key].tolist(), "read by index"
    assert {"labelmap.txt", "ImageSets/Segmentation/default.txt"} <= names
    assert [label["name"] for label in json.loads((project / "labels.json").read_text())] == list(CAMVID.names)


def test_a_photo_that_changed_since_is_left_out_by_name(
    store: Store, photos: Store, labelled: dict[str, Mask], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.put("top.PNG", jpeg(30, 30))
    photos.delete("cam one/0.jpg")
    assert fcn(["rank", store.uri, "--copy-to", str(tmp_path / "project")]) == 0
    told = capsys.readouterr().err
    assert "left out top.PNG" in told
    assert "left out cam one/0.jpg" in told
    assert "2 images with their masks" in told


def test_a_project_is_written_to_a_bucket_and_names_it(
    store: Store, labelled: dict[str, Mask], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"s3://{bucket}/project"
    assert fcn(["rank", store.uri, "--copy-to", place, "--top", "2"]) == 0
    target = open_store(place)
    tasks = json.loads(target.get("tasks-001.json"))
    assert [task["data"]["image"].rpartition("/")[0] for task in tasks] == [f"{place}/images"] * 2
    capsys.readouterr()
    assert "is not empty" in refused(capsys, "rank", store.uri, "--copy-to", place)


def test_a_class_name_that_cvat_cannot_hold_is_refused(
    store: Store, photos: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = LabelSet(name="odd", names=("sky", "a:b"), palette=((0, 0, 0), (1, 1, 1)))
    etags = {info.key: info.etag for info in photos.list()}
    write_run(store, RUN, {"top.PNG": striped(0, 1)}, labels=odd, etags=etags, source=photos.uri)
    assert fcn(["rank", store.uri, "--copy-to", str(tmp_path / "project"), "--format", "cvat"]) == 2
    assert "cannot hold the class name 'a:b'" in capsys.readouterr().err


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), unique=True, max_size=12))
def test_copies_have_names_of_their_own_in_every_tool(names: list[str]) -> None:
    copies = copy_names(names)
    assert list(copies) == names
    assert len({name.lower() for name in copies.values()}) == len(names)
    for name in copies.values():
        assert name
        assert len(name) <= 200
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert name[0] not in ".-"
