"""What older versions wrote is read by this one, and counts as done; what a newer one will write is told apart.

docs/compatibility.md promises it. A test here that fails means that somebody's bucket would: mend the reader, not the
kept files.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fcn_core import BundleError, ModelBundle
from fcn_core.labels import decode_mask
from pipeline.errors import StorageError
from pipeline.jobs.segment import SegmentJob
from pipeline.models.load import open_model
from pipeline.models.registry import Registry
from pipeline.outputs import runs
from pipeline.outputs.current import read_current
from pipeline.outputs.index import read_history
from pipeline.outputs.lease import Lease
from pipeline.outputs.plan import read_manifest, read_shards
from pipeline.outputs.results import read_class_totals
from pipeline.outputs.verify import Verified, verify
from pipeline.segmentation.job import segment
from pipeline.storage.opening import open_store
from tests.compatibility.make import HERE, JOB, LABELS, date_photos

VERSIONS = sorted(path.name for path in HERE.glob("v*"))
PHOTOS = ["gate.jpg", "north/shed.jpg"]
BROKEN = "notes.jpg"

pytestmark = pytest.mark.usefixtures("kept")


@pytest.fixture(params=VERSIONS)
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """In a copy of what that version left behind."""
    shutil.copytree(HERE / request.param, tmp_path / "site")
    date_photos(tmp_path / "site")
    monkeypatch.chdir(tmp_path / "site")
    return str(request.param)


def edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_tables_and_masks_are_read_and_agree() -> None:
    output = open_store("labels")
    checked = Verified()
    assert list(verify(output, checked)) == []
    rows = {row["key"]: row for row in read_current(output).to_pylist()}
    assert sorted(rows) == [*PHOTOS, BROKEN]
    assert (rows[BROKEN]["status"], rows[BROKEN]["error"]) == ("error", "not_an_image")
    for key in PHOTOS:
        mask = decode_mask(output.get(rows[key]["mask_key"]))
        assert mask.shape == (rows[key]["height"], rows[key]["width"]) == (48, 64)
        areas = {area["class_id"]: area["pixels"] for area in rows[key]["areas"]}
        assert areas == {k: n for k, n in enumerate(np.bincount(mask.ravel()).tolist()) if n}
    assert {total.class_name for total in read_class_totals(output, runs.run_ids(output)[0])} == set(LABELS.names)


def test_the_run_its_plan_and_its_index_are_read(kept: str) -> None:
    output = open_store("labels")
    (record,) = runs.records(output)
    assert (record.state, record.counts.ok, record.counts.errors) == ("finished", 2, {"not_an_image": 1})
    assert f"v{record.version}" == kept
    assert runs.read_progress(output, record.run_id) is not None
    manifest = read_manifest(output, record.run_id)
    assert manifest is not None
    (shard,) = read_shards(output, record.run_id, manifest)
    assert [entry.key for entry in shard.entries] == [*PHOTOS, BROKEN]
    history = read_history(output)
    assert history.index is not None, "the index is no longer read; then all results of all runs are, each time"
    assert history.late_files == 0


def test_a_registered_model_is_still_that_model() -> None:
    registry = Registry(open_store("registry"))
    (version,) = registry.versions("yard")
    champion = registry.champion("yard")
    assert champion is not None
    assert (champion.version, champion.scores) == (version.version, {"mean_iou": 0.5})
    # The id is a digest of all that prediction depends on: were it another, every bucket would be labelled anew.
    assert open_model("registry:yard@champion", "registry").bundle.model_id == version.version


def test_the_same_job_finds_its_work_done() -> None:
    """Under the same names: neither the model's id nor that of the settings may change."""
    report = segment(SegmentJob.model_validate(JOB))
    assert (report.counts.images, report.selection.done) == (0, 3)


def test_what_a_newer_version_adds_is_read_past() -> None:
    (run,) = Path("labels/runs").glob("*/run.json")
    (champion,) = Path("registry/models/yard/champions").iterdir()
    with Lease.acquire(open_store("labels")):
        pass
    (lease,) = Path("labels/lease").glob("*.json")
    for file in (run, champion, lease):
        edit(file, lambda values: values.update(a_later_field={"of": "some kind"}))
    assert [record.state for record in runs.records(open_store("labels"))] == ["finished"]
    assert Registry(open_store("registry")).champion("yard") is not None
    with Lease.acquire(open_store("labels")):
        pass


def test_what_a_newer_version_changes_is_refused_by_name() -> None:
    (results,) = Path("labels/results").rglob("*.parquet")
    table = pq.read_table(results)
    pq.write_table(table.replace_schema_metadata({"fcn_schema": "results/99"}), pa.OSFile(str(results), "wb"))
    with pytest.raises(StorageError, match=r"newer version of fcn-pipeline \(results/99\); upgrade"):
        read_current(open_store("labels"))
    (description,) = Path("registry").rglob("model.json")
    edit(description, lambda values: values.update(format_version=99))
    with pytest.raises(BundleError, match="format version 99"):
        ModelBundle.load(description.parent)
