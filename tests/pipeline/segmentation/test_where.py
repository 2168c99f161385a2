"""`where`: another model redoes only images that fit, and every image has one current mask all the same."""

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core import LabelSet
from fcn_core.labels import VOID, decode_mask
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from pipeline.errors import InputError
from pipeline.exports.job import export_masks
from pipeline.insight.rank import rank
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.current import current_variants, read_current
from pipeline.outputs.features import read_features
from pipeline.outputs.gc import collect
from pipeline.outputs.identity import Recipe
from pipeline.outputs.masks import find_mask
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.redo import redid_some, write_where
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation import where as where_module
from pipeline.segmentation.estimate import estimate
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import check_places
from pipeline.segmentation.run_report import RunReport
from pipeline.segmentation.where import check_where, kept_images
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.labellings import CAMVID, CAR, RECIPE, ROAD, SKY, Mask, striped, write_run
from tests.onnx_nets import small_onnx, written
from tests.requires import requires
from tests.samples import fill, model

FIRST, SECOND, THIRD = (f"2026010{day}T000000Z-0000" for day in (1, 2, 3))
OTHER = "9" * 16
NEW = Recipe(OTHER, RECIPE.params_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labels"))


def kept(store: Store, where: str, keys: list[str], etags: list[str] | None = None, **options: bool) -> list[str]:
    """Which keys a job of another model with `where` leaves as they are."""
    retry = options.get("retry_errors", False)
    with kept_images(store, NEW, CAMVID.names, where, retry_errors=retry) as found:
        mask = found.look_up(pa.array(keys), pa.array(etags or ["e"] * len(keys)))
    return [key for key, is_kept in zip(keys, mask, strict=True) if is_kept]


def test_images_that_fit_new_ones_and_changed_ones_are_not_kept(store: Store) -> None:
    masks: dict[str, Mask | str] = {"a.jpg": striped(SKY), "b.jpg": striped(CAR, ROAD), "c.jpg": striped(ROAD)}
    masks |= {"bad.jpg": "truncated", "away.jpg": "missing"}
    write_run(store, FIRST, masks, confidence={"a.jpg": 0.9, "b.jpg": 0.5, "c.jpg": 0.7})
    keys = [*masks, "new.jpg"]
    assert kept(store, "confidence < 0.6", keys) == ["a.jpg", "c.jpg", "bad.jpg"]
    assert kept(store, "confidence < 0.6", keys, retry_errors=True) == ["a.jpg", "c.jpg"]
    assert kept(store, "confidence < 0.6", keys, ["changed"] * 6) == []
    cars = "key IN (SELECT key FROM class_areas WHERE class_name = 'car' AND fraction > 0.1)"
    assert kept(store, cars, keys) == ["a.jpg", "c.jpg", "bad.jpg"]
    assert kept(store, "last_modified < '2020-01-01'", keys) == ["a.jpg", "b.jpg", "c.jpg", "bad.jpg"]
    assert kept(store, "false", keys) == ["a.jpg", "b.jpg", "c.jpg", "bad.jpg"]
    assert kept(store, "true -- all of them", keys) == []
    assert kept(store, "taken_at > '2026-01-01'", keys)[0] == "a.jpg", "null is not true"


def test_an_empty_output_keeps_nothing_and_a_condition_is_checked_all_the_same(store: Store) -> None:
    assert kept(store, "confidence < 0.6", ["a.jpg"]) == []
    with pytest.raises(InputError, match="where cannot be asked"):
        check_where(store, "confidance < 0.6")


@settings(max_examples=25, deadline=None)
@given(st.sets(st.text("ab/ä\U0001f600\n", min_size=1, max_size=4), max_size=40), st.integers(1, 7), st.randoms())
def test_any_order_of_any_keys_gives_the_same_however_they_are_spilled(
    keys: set[str], at_once: int, random: object
) -> None:
    """What is kept lies in sorted files; keys are looked up as listings have them."""
    import tempfile

    listed = sorted(keys)
    gone = set(listed[::3])
    rows = pa.record_batch({"key": [key for key in listed if key not in gone][::-1]}, pa.schema([("key", pa.string())]))
    rows = rows.append_column("etag", pa.array(["e"] * len(rows), pa.string()))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(where_module, "SORTED_AT_ONCE", at_once)
        patch.setattr(where_module, "_BATCH_ROWS", 2)
        batches = [rows.slice(start, 3) for start in range(0, len(rows), 3)]
        images = where_module.KeptImages(list(where_module._sorted_files(batches, Path(folder))))
        asked = [*listed, "not there"]
        random.shuffle(asked)  # type: ignore[attr-defined]
        found = images.look_up(pa.array(asked, pa.string()), pa.array(["e"] * len(asked)))
        assert {key for key, is_kept in zip(asked, found, strict=True) if is_kept} == keys - gone
        assert not images.look_up(pa.array(asked, pa.string()), pa.array(["other"] * len(asked))).any()


def test_masks_of_other_classes_are_not_mixed(store: Store) -> None:
    write_run(store, FIRST, {"a.jpg": striped(SKY)})
    names = ["heaven", *CAMVID.names[1:]]
    with (
        pytest.raises(InputError, match=r"class 0 is 'sky', and for the model it is 'heaven'"),
        kept_images(store, NEW, names, "false", retry_errors=False),
    ):
        pass


def test_void_pixels_are_no_class_that_a_model_could_lack(store: Store) -> None:
    write_run(store, FIRST, {"a.jpg": striped(SKY, VOID), "b.jpg": striped(CAR)})
    assert kept(store, "false", ["a.jpg", "b.jpg"]) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("confidance < 1", "confidance"),
        ("confidence <", "syntax error"),
        ("1; DROP VIEW current", "syntax error"),
        ("key", "no condition"),
        ("EXISTS (SELECT * FROM read_csv('/etc/passwd'))", "where cannot be asked"),
    ],
)
def test_what_is_no_condition_is_refused_before_any_work(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, message: str
) -> None:
    write_run(store, FIRST, {"a.jpg": striped(SKY)})
    fill(tmp_path / "photos", 1)
    model().save(tmp_path / "model")
    arguments = ["segment", str(tmp_path / "photos"), store.uri, "--model", str(tmp_path / "model"), "--where", where]
    assert message in refused(capsys, *arguments)
    job = SegmentJob(source=str(tmp_path / "photos"), output=store.uri, model="m", where=where)
    with pytest.raises(InputError):
        check_places(job, where=where)


def both_views(store: Store) -> dict[str, str]:
    """The run of each key's current row, which is the same in Python and in SQL."""
    rows = read_current(store, ["status"]).select(["key", "run_id"]).to_pylist()
    with open_tables(store) as connection:
        asked = run_query(connection, "SELECT key, run_id FROM current ORDER BY key").read_all().to_pylist()
    assert asked == rows
    return {row["key"]: row["run_id"] for row in rows}


def test_a_run_that_redid_some_lies_over_the_ones_before(store: Store) -> None:
    before = write_run(store, FIRST, dict.fromkeys(["a.jpg", "b.jpg", "c.jpg"], striped(SKY)))
    over = write_run(store, SECOND, {"b.jpg": striped(CAR)}, model=OTHER)
    assert both_views(store) == {"b.jpg": SECOND}, "a run without `where` is its variant alone"
    write_where(store, SECOND, "confidence < 0.6")
    assert both_views(store) == {"a.jpg": FIRST, "b.jpg": SECOND, "c.jpg": FIRST}
    assert current_variants(store) == (over, before)
    assert rank(store).images == 3
    assert rank(store, recipe=over).images == 1
    third = write_run(store, THIRD, {"c.jpg": striped(ROAD)}, model="8" * 16)
    write_where(store, THIRD, "confidence < 0.6")
    assert both_views(store) == {"a.jpg": FIRST, "b.jpg": SECOND, "c.jpg": THIRD}
    assert current_variants(store) == (third, over, before)
    write_run(store, "20260104T000000Z-0000", {"a.jpg": striped(SKY)}, model=OTHER)
    assert both_views(store) == {"a.jpg": "20260104T000000Z-0000", "b.jpg": SECOND}, "as after any new model"


def test_an_audit_of_two_models_at_once_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(store, FIRST, dict.fromkeys(["a.jpg", "b.jpg"], striped(SKY)))
    write_run(store, SECOND, {"b.jpg": striped(CAR)}, model=OTHER)
    write_where(store, SECOND, "confidence < 0.6")
    assert "an audit is of one model" in refused(
        capsys, "audit", "plan", store.uri, "-o", store.uri + "-audit", "-n", "50"
    )


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SegmentJob:
    """A labelling of six images by a first model, which is done; and the job for a second model."""
    segment_in_process(monkeypatch)
    fill(tmp_path / "photos", 6)
    for seed in (0, 1):
        model(seed=seed).save(tmp_path / f"model-{seed}")
    first = SegmentJob(
        source=str(tmp_path / "photos"), output=str(tmp_path / "out"), model=str(tmp_path / "model-0"), device="cpu",
        actors=1, cpus_per_actor=1, codec_workers=1, engine="torch", no_report=True,
    )  # fmt: skip
    assert segment(first).counts.ok == 6
    return first.model_copy(update={"model": str(tmp_path / "model-1")})


def redo(job: SegmentJob, **changes: object) -> RunReport:
    return segment(job.model_copy(update=changes))


def test_a_new_model_redoes_what_fits_and_the_same_command_nothing(job: SegmentJob, tmp_path: Path) -> None:
    output = open_store(job.output)
    first = {row["key"]: row for row in read_current(output).to_pylist()}
    unsure = sorted(first, key=lambda key: first[key]["confidence"])[:2]
    limit = (first[unsure[1]]["confidence"] + sorted(row["confidence"] for row in first.values())[2]) / 2
    where = f"confidence < {limit!r}"
    fill(tmp_path / "photos", 1, start=6)
    assert estimate(job.model_copy(update={"where": where})).images == 3, "two that are unsure and a new one"
    report = redo(job, where=where)
    assert (report.selection.selected, report.selection.done, report.counts.ok) == (3, 4, 3)
    (record,) = report.runs
    assert record.job["where"] == where
    assert redid_some(output, record.run_id)
    current = {row["key"]: row for row in read_current(output).to_pylist()}
    assert {key for key, row in current.items() if row["model_id"] != first["0000.jpg"]["model_id"]} == {
        *unsure,
        "0006.jpg",
    }
    assert len(current) == 7
    for key, row in current.items():
        assert find_mask(output, key).mask_key == row["mask_key"]
    exported = export_masks(job.output, str(tmp_path / "plain"))
    assert (exported.images, exported.variants) == (7, current_variants(output))
    assert decode_mask((tmp_path / "plain" / "0006.png").read_bytes()).shape == (72, 96)
    assert list(verify(output, Verified())) == []
    assert collect(output, timedelta(0), delete=True).kinds.keys() <= {"leases"}
    again = redo(job, where=where)
    assert (again.runs, again.selection.done) == ((), 7)
    assert redo(job, where="false").runs == ()
    whole = redo(job)
    assert whole.counts.ok == 4
    assert {row["model_id"] for row in read_current(output).to_pylist()} == {record.model_id}


def test_features_are_written_on_demand_and_change_neither_masks_nor_what_is_done(
    job: SegmentJob, tmp_path: Path
) -> None:
    output = open_store(job.output)
    plain = redo(job, output=str(tmp_path / "plain"))
    assert list(output.list("features/")) == []
    report = redo(job, features=True)
    assert report.counts.ok == 6
    assert report.runs[0].recipe == plain.runs[0].recipe
    kept_columns = ["key", "mask_sha256", "confidence", "params_id"]
    other = read_current(open_store(str(tmp_path / "plain"))).select(kept_columns)
    rows = read_current(output)
    assert rows.select(kept_columns).equals(other)
    images = dict(zip(rows["key"].to_pylist(), rows["etag"].to_pylist(), strict=True))
    assert read_features(output, report.runs[0].model_id, images).keys() == images.keys()
    assert redo(job).runs == ()
    ranking = rank(output, top=1, diverse=True)
    assert ranking.diversity is not None
    assert "by their features" in ranking.diversity


def test_features_of_an_imported_graph_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requires("onnx", install="'fcn-pipeline[onnx]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    fill(tmp_path / "photos", 1)
    labels = LabelSet(name="five", names=tuple("abcde"), palette=((0, 0, 0),) * 5)
    import_onnx(written(small_onnx(), tmp_path / "net.onnx"), labels, IMAGENET).bundle.save(tmp_path / "model")
    arguments = ["segment", str(tmp_path / "photos"), str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    assert "leave --features out" in refused(capsys, *arguments, "--features")
