"""The demo, small: every step of it on real S3, Ray and Prefect, with few images and hardly any training."""

import io
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from fcn_core.bundle import ModelBundle
from fcn_core.labels import decode_mask
from flows.demo.__main__ import MARKER, claim_folder, print_outcome
from flows.demo.run import DemoPlan, DemoReport, run_demo
from flows.demo.training import RUN_NAME
from pipeline.errors import InputError
from pipeline.outputs.current import read_current
from pipeline.storage.opening import open_store
from pipeline.training.store import TrainStore

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

SCENES, ADDED, READABLE_UPLOADS = 5, 2, 3
BUCKET = f"demo-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def finished(
    s3_endpoint: str, ray_cluster: None, prefect_server: object, tmp_path_factory: pytest.TempPathFactory
) -> tuple[DemoReport, Path, str]:
    """The report of a small demo, its folder, and all that it printed."""
    folder, paper = tmp_path_factory.mktemp("demo") / "demo-output", io.StringIO()
    console = Console(file=paper, width=120)
    claim_folder(folder, console)
    plan = DemoPlan(
        output=folder,
        bucket=BUCKET,
        scenes=SCENES,
        added=ADDED,
        training=range(4),
        held_out=range(10_000, 10_001),
        training_options={"workers": 1, "cpus_per_worker": 1, "train": {"steps": 2, "max_seconds": None}},
        options={"device": "cpu", "actors": 1, "cpus_per_actor": 1},
    )
    report = run_demo(plan, console, s3_endpoint)
    print_outcome(console, folder, report, 12.0)
    return report, folder, paper.getvalue()


def test_files_that_are_no_pictures_are_refused_with_a_reason(finished: tuple[DemoReport, Path, str]) -> None:
    report, _, printed = finished
    refused = {row.key: row.reason for row in report.findings.refused}
    assert refused == {"uploads/cut-short.jpg": "truncated", "uploads/notes.jpg": "not_an_image"}
    assert report.first.counts.errors == {"truncated": 1, "not_an_image": 1}
    assert all(row.message in " ".join(printed.split()) or row.reason in printed for row in report.findings.refused)


def test_the_second_run_does_exactly_the_added_images(finished: tuple[DemoReport, Path, str]) -> None:
    report, _, _ = finished
    assert report.first.counts.images == SCENES + READABLE_UPLOADS + 2
    assert (report.second.counts.ok, report.second.counts.failed) == (ADDED, 0)
    assert report.second.already_done == report.first.counts.images


def test_every_readable_image_is_measured_against_its_truth(finished: tuple[DemoReport, Path, str]) -> None:
    report, _, printed = finished
    findings = report.findings
    assert len(findings.labelled) == SCENES + ADDED + READABLE_UPLOADS
    assert findings.scores.pixels == sum(total.pixels for total in findings.totals)
    assert findings.scores.pixels == sum(item.mask.size for item in findings.labelled)
    assert 0 < (findings.scores.mean_iou or 0) < 1
    assert f"mean IoU {findings.scores.mean_iou:.3f}" in printed


def test_the_best_model_of_a_training_in_the_bucket_is_what_labels(finished: tuple[DemoReport, Path, str]) -> None:
    report, folder, printed = finished
    kept = TrainStore(open_store(f"s3://{BUCKET}/training/{RUN_NAME}"))
    model = kept.load_model()
    run = kept.load_run()
    assert run is not None
    assert (run.plan.train.examples, run.plan.val and run.plan.val.examples) == (4, 1)
    assert run.plan.dataset == f"s3://{BUCKET}/labelled"
    assert kept.checkpoint_steps() == [], "of a finished run none stay"
    assert model.scores == report.held_out.model_dump(mode="json")
    assert ModelBundle.load(folder / "model").model_id == model.model_id
    rows = read_current(open_store(f"s3://{BUCKET}/labels"), ["status", "model_id"]).to_pylist()
    assert {row["model_id"] for row in rows if row["status"] == "ok"} == {model.model_id}
    assert "4 in split train and 1 in split val, nothing wrong" in printed


def test_masks_tables_and_model_are_in_the_folder(finished: tuple[DemoReport, Path, str]) -> None:
    report, folder, printed = finished
    masks = {str(path.relative_to(folder / "masks")): path for path in (folder / "masks").rglob("*.png")}
    assert len(masks) == len(report.findings.labelled)
    photo = Image.open(folder / "images" / "phone-portrait.jpg")
    mask = decode_mask(masks["uploads/phone-portrait.png"].read_bytes())
    assert mask.shape == photo.size  # turned: the photo is stored lying on its side
    rows = [pq.read_table(path).num_rows for path in sorted((folder / "tables" / "results").rglob("*.parquet"))]
    assert sum(rows) == report.first.counts.images + report.second.counts.images
    for path in (report.sheet, folder / "masks", folder / "tables", folder / "model", folder / "images"):
        assert path.exists()
        assert str(path) in printed


def test_the_contact_sheet_shows_every_image_of_so_small_a_demo(finished: tuple[DemoReport, Path, str]) -> None:
    report, _, _ = finished
    with Image.open(report.sheet) as sheet:
        assert sheet.format == "PNG"
        assert 1000 < sheet.width < 2000
        assert 700 < sheet.height < 2000
        assert len(sheet.convert("RGB").getcolors(1 << 24) or ()) > 1000


def test_only_a_demos_own_folder_is_replaced(tmp_path: Path) -> None:
    console, folder = Console(file=io.StringIO()), tmp_path / "out"
    claim_folder(folder, console)
    (folder / "old.txt").write_text("of the first demo")
    claim_folder(folder, console)
    assert [path.name for path in folder.iterdir()] == [MARKER]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "precious.jpg").write_bytes(b"...")
    (tmp_path / "link").symlink_to(folder)
    for other in (photos, photos / "precious.jpg", tmp_path / "link"):
        with pytest.raises(InputError, match="no demo made it"):
            claim_folder(other, console)
    assert (photos / "precious.jpg").read_bytes() == b"..."
