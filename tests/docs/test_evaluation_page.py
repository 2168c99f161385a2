"""What docs/evaluation.md shows runs as it stands, on a real evaluation."""

import re
from pathlib import Path

import duckdb
import pytest
import torch

from pipeline.actors import shard_runner
from pipeline.evaluation.job import EvaluateReport, evaluate
from pipeline.jobs.evaluate import EvaluateJob
from tests.in_process import InProcess
from tests.labelled import LABELS, write_labelled

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
SQL = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def scored(ray_cluster: None, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluateReport]:
    """A folder with `scores/` in it."""
    folder = tmp_path_factory.mktemp("site")
    write_labelled(folder / "data", 8)
    job = EvaluateJob(
        model=str(model_dir), dataset=str(folder / "data"), labels="camvid", output=str(folder / "scores"),
        device="cpu", precision="float32", actors=1, cpus_per_actor=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_runner, "ShardPool", InProcess)
        return folder, evaluate(job)


def test_the_sql_answers_what_the_page_says(
    scored: tuple[Path, EvaluateReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, report = scored
    monkeypatch.chdir(folder)
    database = duckdb.connect()
    worst_for_class, by_group, sure_and_wrong = (database.execute(query).fetchall() for query in SQL)
    scores = [iou for _, iou, _ in worst_for_class]
    assert scores
    assert scores == sorted(scores)
    assert {group for group, _, _ in by_group} == {f"{index:03d}" for index in range(8)}
    assert {name for _, name, _ in by_group} <= set(LABELS.names)
    rows = {row["name"]: row for row in report.table.to_pylist()}
    for name, accuracy, confidence, _, _ in sure_and_wrong:
        row = rows.pop(name)
        assert (accuracy, confidence) == (row["pixel_accuracy"], row["confidence"])
    assert rows == {}


@pytest.mark.parametrize("index", range(len(PYTHON)))
def test_the_python_runs_as_it_stands(
    scored: tuple[Path, EvaluateReport],
    model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    index: int,
) -> None:
    (tmp_path / "camvid").symlink_to(scored[0] / "data")
    (tmp_path / "model").symlink_to(model_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shard_runner, "ShardPool", InProcess)
    threads = torch.get_num_threads()
    try:
        exec(compile(PYTHON[index], f"evaluation.md, python block {index}", "exec"), {})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.startswith("0.")
