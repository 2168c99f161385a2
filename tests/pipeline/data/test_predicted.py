"""`dataset: output:URI`: an output's predictions as a data set, the same one every time, with the very images and masks
of the run."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fcn_core import preset
from fcn_core.labels import VOID, decode_mask
from pipeline.cli.app import run as fcn
from pipeline.data.check import check_dataset
from pipeline.data.datasets import open_catalog, open_dataset
from pipeline.data.predicted.references import of_run, parse_predicted
from pipeline.data.predicted.selection import COLUMNS, VISIBLE, PredictedImage, choose, split_images
from pipeline.data.references import is_meant, is_open, resolve
from pipeline.errors import InputError, ObjectChanged, StorageError
from pipeline.jobs.dataset import DatasetOptions, PredictedOptions
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.places import absolute_places
from pipeline.launch.work import Work
from pipeline.outputs.results import RESULTS_SCHEMA
from pipeline.outputs.runs import RunRecord, write_record
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.commands import refused
from tests.containers import opened, parquet_of
from tests.reports import labelled_run
from tests.samples import jpeg

LABELS = preset("camvid")
OLD, NEW = "20261120T000000Z-0001", "20261121T000000Z-0001"


def _mask(*classes: int) -> np.ndarray:
    return np.repeat(np.array(classes, np.uint8), 60 // len(classes))[np.newaxis].repeat(40, axis=0)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Store, Store]:
    """A source of twelve images in four folders, and an empty output."""
    source = open_store(str(tmp_path / "photos"))
    for index in range(12):
        source.put(f"cam{index % 4}/{index:02d}.jpg", jpeg(60, 40, seed=index))
    return source, open_store(str(tmp_path / "labels"))


def _run(places: tuple[Store, Store], **options: Any) -> RunRecord:
    source, output = places
    outcomes = {info.key: _mask(index % 3, VOID) for index, info in enumerate(source.list())}
    return labelled_run(output, source, outcomes, LABELS, **{"run_id": NEW, **options})


def _options(place: Store | str, **predicted: Any) -> DatasetOptions:
    dataset = place if isinstance(place, str) else f"output:{place.uri}"
    return DatasetOptions.model_validate({"dataset": dataset, "predicted": predicted})


def test_images_are_the_sources_and_masks_the_outputs(places: tuple[Store, Store]) -> None:
    source, output = places
    _run(places)
    catalog = open_catalog(_options(output, val_share=0.5))
    assert catalog.labels.names == LABELS.names
    assert catalog.labels.ignore_index == VOID
    found = {}
    for name in catalog.splits():
        pairs = open_dataset(_options(output, val_share=0.5), name)
        again = pickle.loads(pickle.dumps(pairs))
        for index, pair in enumerate(pairs.pairs):
            assert again.read(pair.image) == source.get(pair.image)
            found[pair.name] = again[index].mask
    assert sorted(found) == [info.key for info in source.list()]
    for index, key in enumerate(sorted(found)):
        assert (found[key] == _mask(index % 3, VOID)).all()


def test_folders_stay_together_and_a_grown_output_keeps_its_splits(places: tuple[Store, Store]) -> None:
    source, output = places
    _run(places, run_id=OLD)
    options = _options(output, val_share=0.5)

    def splits() -> dict[str, str]:
        catalog = open_catalog(options)
        return {pair.name: name for name in catalog.splits() for pair in catalog.split(name).pairs}

    before = splits()
    assert set(before.values()) == {"train", "val"}
    assert len({(key.split("/")[0], split) for key, split in before.items()}) == 4
    for index in range(12, 20):
        source.put(f"cam{index % 4}/{index:02d}.jpg", jpeg(60, 40, seed=index))
    _run(places)
    after = splits()
    assert len(after) == 20
    assert {key: after[key] for key in before} == before


def test_a_resolved_name_means_the_run_whatever_comes_after(places: tuple[Store, Store]) -> None:
    source, output = places
    first = _run(places, run_id=OLD)
    resolved = resolve(f"output:{output.uri}")
    assert resolved == f"output:{output.uri}@{OLD}"
    assert not is_open(resolved)
    assert resolve(resolved) == resolved
    before = [open_catalog(_options(resolved)).split(name) for name in ("train",)]
    key = next(iter(source.list())).key
    labelled_run(output, source, {key: _mask(5)}, LABELS, run_id=NEW)
    assert [open_catalog(_options(resolved)).split(name) for name in ("train",)] == before
    assert resolve(f"output:{output.uri}") == f"output:{output.uri}@{NEW}"
    assert is_meant(resolved, f"output:{output.uri}")
    assert is_meant(resolved, f"output:{output.uri}@{first.recipe}")
    assert not is_meant(resolved, f"output:{output.uri}@{'0' * 8}")
    assert not is_meant(resolved, "output:/elsewhere")


def test_a_variant_is_named_and_others_rows_are_not_its(places: tuple[Store, Store]) -> None:
    source, output = places
    first = _run(places, run_id=OLD)
    labelled_run(output, source, {"cam0/00.jpg": _mask(7)}, LABELS, run_id=NEW, params_id="1" * 16)
    newest = open_dataset(_options(output), "train")
    assert [pair.name for pair in newest.pairs] == ["cam0/00.jpg"]
    named = open_catalog(_options(f"output:{output.uri}@{first.recipe}"))
    assert sum(len(named.split(name).pairs) for name in named.splits()) == 12
    with pytest.raises(InputError, match=r"no run under .* has recipe 00000000"):
        open_catalog(_options(f"output:{output.uri}@00000000"))


def test_where_a_run_redid_some_images_the_variant_has_to_be_named(places: tuple[Store, Store]) -> None:
    source, output = places
    first = _run(places, run_id=OLD)
    output.put(f"runs/{NEW}/where.txt", b"confidence < 0.8")
    labelled_run(output, source, {"cam0/00.jpg": _mask(7)}, LABELS, run_id=NEW, params_id="1" * 16)
    with pytest.raises(InputError, match=f"name one, as in output:{output.uri}@{first.recipe}"):
        resolve(f"output:{output.uri}")
    assert resolve(f"output:{output.uri}@{first.recipe}") == f"output:{output.uri}@{OLD}"


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_images_that_changed_since_are_left_out_and_named_by_number(places: tuple[Store, Store], change: str) -> None:
    source, output = places
    _run(places)
    if change == "replaced":
        source.put("cam1/01.jpg", jpeg(60, 40, seed=99))
    else:
        source.delete("cam1/01.jpg")
    catalog = open_catalog(_options(output, val_share=0))
    split = catalog.split("train")
    assert "cam1/01.jpg" not in [pair.name for pair in split.pairs]
    assert len(split.pairs) == 11
    assert split.notes == ("1 images that were replaced or deleted since then are left out",)


def test_an_image_that_changes_later_is_not_read_with_the_old_mask(places: tuple[Store, Store]) -> None:
    source, output = places
    _run(places)
    pairs = open_dataset(_options(output, val_share=0), "train")
    source.put("cam1/01.jpg", jpeg(61, 41, seed=99))
    with pytest.raises(ObjectChanged):
        pairs.read("cam1/01.jpg")


def test_a_mask_that_is_not_the_committed_one_is_refused(places: tuple[Store, Store]) -> None:
    _, output = places
    _run(places)
    pairs = open_dataset(_options(output, val_share=0), "train")
    mask = pairs.pairs[0].mask.removeprefix("output:")
    output.put(mask, output.get(pairs.pairs[1].mask.removeprefix("output:")))
    with pytest.raises(StorageError, match="not the mask that was committed"):
        pairs.read(pairs.pairs[0].mask)
    output.delete(mask)
    with pytest.raises(FileNotFoundError):
        pairs.read(pairs.pairs[0].mask)
    assert not check_dataset(_options(output, val_share=0)).ok


def test_a_sound_output_passes_the_check_of_a_data_set(
    places: tuple[Store, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = places
    _run(places)
    assert fcn(["data", "check", f"output:{output.uri}", "--predicted.val-share", "0.5"]) == 0
    assert "train" in capsys.readouterr().out


def _unfinished(places: tuple[Store, Store]) -> str:
    record = _run(places)
    write_record(places[1], record.model_copy(update={"state": "interrupted"}))
    return f"output:{places[1].uri}"


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (lambda places: f"output:{places[1].uri}", "there are no runs under"),
        (lambda places: f"output:{places[0].uri}/nowhere", "nowhere"),
        (_unfinished, "is finished, so what it has predicted still changes"),
        (lambda places: f"{_unfinished(places)}@{NEW}", "is interrupted, so what it has predicted still changes"),
        (lambda places: f"output:{_run(places) and places[1].uri}@{OLD}", f"no run {OLD}"),
    ],
    ids=["no-runs", "no-folder", "unfinished", "unfinished-by-name", "no-such-run"],
)
def test_what_cannot_be_is_one_sentence(
    places: tuple[Store, Store],
    capsys: pytest.CaptureFixture[str],
    dataset: Callable[[tuple[Store, Store]], str],
    said: str,
) -> None:
    places[1].put("a/b", b"")
    assert said in refused(capsys, "data", "check", dataset(places))


def test_other_options_that_cannot_be_are_one_sentence(
    places: tuple[Store, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(places)
    name = f"output:{places[1].uri}"
    assert "lower predicted.min_confidence" in refused(capsys, "data", "check", name, "--predicted.min-confidence", "1")
    assert "classes of its own" in refused(capsys, "data", "check", name, "--preset", "camvid")
    assert "the label set of the model" in refused(capsys, "data", "check", name, "--labels", "voc")
    assert "is no regular expression" in refused(capsys, "data", "check", name, "--predicted.group", "(")


def test_one_folder_is_split_by_images_with_a_note(tmp_path: Path) -> None:
    source, output = open_store(str(tmp_path / "photos")), open_store(str(tmp_path / "labels"))
    for index in range(30):
        source.put(f"cam/{index:02d}.jpg", jpeg(60, 40, seed=index))
    _run((source, output))
    catalog = open_catalog(_options(output, val_share=0.3))
    assert catalog.splits() == ["train", "val"]
    assert "each was put into one by itself" in catalog.split("val").notes[0]


def test_packed_masks_are_read_too(
    places: tuple[Store, Store], model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.jobs.segment import SegmentJob
    from pipeline.outputs.masks import find_mask
    from pipeline.segmentation.job import segment
    from tests.in_process import segment_in_process

    source, output = places
    segment_in_process(monkeypatch)
    segment(
        SegmentJob(
            source=source.uri, output=output.uri, model=str(model_dir), masks="tar", device="cpu", actors=1,
            cpus_per_actor=1, engine="torch", no_report=True,
        )
    )  # fmt: skip
    pairs = open_dataset(_options(output, val_share=0), "train")
    for index, pair in enumerate(pairs.pairs):
        assert "mask_tars/" in pair.mask
        assert (pairs[index].mask == decode_mask(find_mask(output, pair.name).png)).all()


@pytest.mark.parametrize(
    ("dataset", "place", "variant", "run"),
    [
        ("output:labels", "labels", None, None),
        ("output:labels@12345678", "labels", "12345678", None),
        (f"output:s3://b/labels@{NEW}", "s3://b/labels", None, NEW),
        ("output:s3://b/labels@1a2b3c4d?region=eu", "s3://b/labels?region=eu", "1a2b3c4d", None),
        ("output:/a@b/labels", "/a@b/labels", None, None),
    ],
)
def test_references_are_read_as_they_are_written(
    dataset: str, place: str, variant: str | None, run: str | None
) -> None:
    found = parse_predicted(dataset)
    assert (found.place, found.variant, found.run_id) == (place, variant, run)


def test_the_run_of_a_whole_bucket_is_no_user_of_it() -> None:
    named = of_run("s3://labels", NEW)
    assert DatasetOptions(dataset=named).dataset == named
    assert parse_predicted(named).run_id == NEW
    assert is_meant(named, "output:s3://labels")


def test_secrets_behind_the_prefix_are_refused_and_relative_places_too() -> None:
    with pytest.raises((InputError, ValidationError), match="credentials"):
        DatasetOptions(dataset="output:s3://user:word@bucket/labels")
    job = EvaluateJob(dataset="output:labels", model="/model", output="/scores")
    with pytest.raises(InputError, match="relative path 'output:labels'"):
        Work.of(job)
    assert absolute_places(job).dataset == f"output:{Path.cwd()}/labels"


_rows = st.lists(
    st.tuples(
        st.booleans(),
        st.floats(0, 1, width=32),
        st.lists(st.sampled_from([0, 1, 2, VOID]), min_size=1, max_size=4),
        st.floats(0.0001, 1),
    ),
    max_size=40,
)


def _batch(rows: list[tuple[bool, float, list[int], float]]) -> pa.RecordBatch:
    schema = pa.schema([RESULTS_SCHEMA.field(name) for name in COLUMNS])
    data = []
    for index, (ok, confidence, classes, fraction) in enumerate(rows):
        areas = [
            {"class_id": c, "class_name": str(c), "pixels": 1, "fraction": fraction} for c in dict.fromkeys(classes)
        ]
        data.append(
            {
                "key": f"cam{index % 5}/{index}.jpg", "etag": "e", "size": 1,
                "last_modified": datetime(2026, 1, 1, tzinfo=UTC),
                "status": "ok" if ok else "error", "mask_key": "m" if ok else None, "mask_sha256": "s" if ok else None,
                "areas": areas if ok else None, "confidence": confidence if ok else None,
            }
        )  # fmt: skip
    return pa.RecordBatch.from_pylist(data, schema=schema)


@settings(max_examples=60, deadline=None)
@given(_rows, st.floats(0, 1), st.none() | st.integers(1, 4), st.randoms())
def test_the_choice_is_that_of_sorting_everything(
    rows: list[tuple[bool, float, list[int], float]], least: float, per_class: int | None, random: Any
) -> None:
    batch = _batch(rows)
    usable = [
        row
        for row in batch.to_pylist()
        if row["status"] == "ok"
        and row["confidence"] >= least
        and any(area["class_id"] != VOID for area in row["areas"])
    ]
    options = PredictedOptions(min_confidence=least, per_class=per_class)
    order = list(range(len(batch)))
    random.shuffle(order)
    found = choose([batch.take(pa.array(order[:7], pa.int64())), batch.take(pa.array(order[7:], pa.int64()))], options)
    keys = [each.image.key for each in found]
    assert keys == sorted(keys)
    if per_class is None:
        assert keys == sorted(row["key"] for row in usable)
        return
    shown = {
        c: [
            row["key"]
            for row in usable
            if any(area["class_id"] == c and area["fraction"] >= VISIBLE for area in row["areas"])
        ]
        for c in (0, 1, 2)
    }
    for of_class in shown.values():
        assert len(set(of_class) & set(keys)) >= min(per_class, len(of_class)), "rare classes keep what they have"
    assert len(keys) <= sum(min(per_class, len(of_class)) for of_class in shown.values())
    assert set(keys) <= {key for of_class in shown.values() for key in of_class}


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text("ab/é1", min_size=1, max_size=6), max_size=30), st.floats(0, 0.99))
def test_splits_hold_every_image_once(keys: set[str], share: float) -> None:
    info = [ObjectInfo(key, "e", 1, datetime(2026, 1, 1, tzinfo=UTC)) for key in sorted(keys)]
    images = [PredictedImage(each, "m", "s") for each in info]
    splits, _ = split_images(images, PredictedOptions(val_share=share))
    found = [each.image.key for of_split in splits.values() for each in of_split]
    assert sorted(found) == sorted(keys)
    if share == 0:
        assert set(splits) <= {"train"}


def test_rows_of_parquet_files_are_there_though_a_listing_has_their_mean_size(tmp_path: Path) -> None:
    photos, output = tmp_path / "photos", open_store(str(tmp_path / "labels"))
    photos.mkdir()
    images = [jpeg(60, 40, seed=index) for index in range(4)]
    table = {"key": [f"{index}.jpg" for index in range(4)], "image": images}
    source, entries = opened(photos, {"x.parquet": parquet_of(table)})
    exact = [replace(entry, size=len(data)) for entry, data in zip(entries, images, strict=True)]

    class Listed:
        uri = source.uri

        def list(self) -> list[ObjectInfo]:
            return exact

    labelled_run(output, cast(Store, Listed()), {entry.key: _mask(1, 2) for entry in exact}, LABELS, run_id=NEW)
    catalog = open_catalog(_options(output, val_share=0.0))
    assert [pair.image for pair in catalog.split("train").pairs] == [entry.key for entry in entries]
