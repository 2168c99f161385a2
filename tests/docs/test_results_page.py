"""The queries in docs/results.md run as they stand, on a real output."""

import re
from pathlib import Path

import duckdb
import pytest

from fcn_core.labels import decode_mask
from pipeline.jobs.segment import SegmentJob
from pipeline.segmentation.job import segment
from tests.in_process import segment_in_process
from tests.samples import fill

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def output(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `labels/` in it: two runs, one image changed in between, one unreadable."""
    folder = tmp_path_factory.mktemp("site")
    fill(folder / "photos" / "north", 3)
    fill(folder / "photos" / "south", 3)
    (folder / "photos" / "north" / "bad.jpg").write_bytes(b"no image")
    job = SegmentJob(
        source=str(folder / "photos"), output=str(folder / "labels"), model=str(model_dir), device="cpu", actors=1,
        cpus_per_actor=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        segment(job)
        fill(folder / "photos" / "south", 1, size=(50, 40))
        segment(job.model_copy(update={"masks": "tar"}))
    return folder


def test_the_sql_answers_what_the_page_says(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output)
    database = duckdb.connect()
    view, per_camera, least_sure, packed, errors, totals = SQL
    database.execute(view)
    assert database.execute("SELECT count(*) FROM current").fetchone() == (7,), "two runs, and no image counted twice"
    cameras = {row[0] for row in database.execute(per_camera).fetchall()}
    assert cameras == {"north", "south"}
    confidences = [row[1] for row in database.execute(least_sure).fetchall()]
    assert len(confidences) == 6
    assert confidences == sorted(confidences)
    ((key, tar, first_byte, size),) = database.execute(packed).fetchall()
    mask = (output / "labels" / tar).read_bytes()[first_byte : first_byte + size]
    assert (key, decode_mask(mask).shape) == ("south/0000.jpg", (40, 50))
    assert database.execute(errors).fetchall()[0][:3] == ("not_an_image", 1, "north/bad.jpg")
    by_class = database.execute(totals).fetchall()
    assert sum(pixels for _, pixels, _, _ in by_class) == 50 * 40, "the newest run did the one changed image"


@pytest.mark.parametrize("index", range(len(PYTHON)))
def test_the_python_runs_as_it_stands(
    output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], index: int
) -> None:
    monkeypatch.chdir(output)
    exec(compile(PYTHON[index], f"results.md, python block {index}", "exec"), {})
    assert capsys.readouterr().out.strip()
