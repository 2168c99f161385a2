"""SQL on an output works with no setup, on a folder and on a bucket, and no image counts twice."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipeline.cli.app import run as fcn
from pipeline.outputs.current import current_rows
from pipeline.outputs.query import TABLES, open_tables, run_query, views_script
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.labellings import CAR, ROAD, SKY, striped, write_run

FIRST, SECOND = "20260101T000000Z-aaaa", "20260202T000000Z-bbbb"
OTHER_MODEL = "9999999999999999"


@pytest.fixture(params=["folder", "odd folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Two runs of one model and one of another; the second changed an image and failed on another."""
    names: dict[str, Callable[[], str]] = {
        "folder": lambda: str(tmp_path / "labels"),
        "odd folder": lambda: str(tmp_path / "it's [odd] *"),
        "s3": lambda: f"s3://{request.getfixturevalue('bucket')}/la'bels",
    }
    store = open_store(names[request.param]())
    write_run(store, FIRST, {f"cam/{k}.jpg": striped(SKY, ROAD) for k in range(6)})
    write_run(store, SECOND, {"cam/1.jpg": striped(CAR), "cam/2.jpg": "truncated"})
    write_run(store, "20260303T000000Z-cccc", {"cam/0.jpg": striped(SKY)}, model=OTHER_MODEL)
    return store


def ask(store: Store, sql: str) -> list[dict[str, object]]:
    with open_tables(store) as connection:
        rows: list[dict[str, object]] = run_query(connection, sql).read_all().to_pylist()
        return rows


def test_each_table_counts_what_it_says(store: Store) -> None:
    counts = {table: ask(store, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in TABLES}
    assert counts == {
        "results": 9, "all_variants": 7, "current": 1, "class_areas": 1, "runs": 3, "class_totals": 3 * 11, "audits": 0
    }  # fmt: skip


def test_areas_are_those_of_the_newest_variant_and_others_can_be_asked_for(store: Store) -> None:
    """The newest run is another model's, of one image; with both, areas would be added up twice."""
    assert ask(store, "SELECT key, class_name, pixels FROM class_areas") == [
        {"key": "cam/0.jpg", "class_name": "sky", "pixels": 80}
    ]
    others = ask(
        store,
        "SELECT recipe, count(*) AS images FROM all_variants WHERE recipe <> (SELECT any_value(recipe) FROM current) "
        "GROUP BY recipe",
    )
    assert [row["images"] for row in others] == [6]


def test_current_in_sql_is_current_in_python(store: Store) -> None:
    columns = ["key", "etag", "recipe", "run_id", "status", "mask_key", "areas", "confidence", "last_modified"]
    for variant, view in (("newest", "current"), ("all", "all_variants")):
        expected = [row for batch in current_rows(store, variant, columns=columns) for row in batch.to_pylist()]
        found = ask(store, f"SELECT {', '.join(columns)} FROM {view}")
        assert sorted(found, key=repr) == sorted(expected, key=repr)


def test_runs_tell_of_jobs_and_errors(store: Store) -> None:
    rows = ask(
        store,
        "SELECT run_id, counts.ok AS ok, counts.errors['truncated'] AS truncated, job->>'model' AS model, started "
        "FROM runs ORDER BY run_id",
    )
    assert [(row["run_id"], row["ok"], row["truncated"]) for row in rows[:2]] == [(FIRST, 6, None), (SECOND, 1, 1)]
    assert rows[0]["model"] == "m"
    assert str(rows[0]["started"]) == "2026-03-04 05:06:07+00:00"


def test_totals_join_runs_and_areas_by_recipe(store: Store) -> None:
    rows = ask(
        store,
        "SELECT DISTINCT run_id FROM class_totals JOIN runs USING (run_id, recipe) JOIN all_variants USING (recipe) "
        "ORDER BY ALL",
    )
    assert [row["run_id"] for row in rows][:2] == [FIRST, SECOND]


def test_a_table_without_files_is_empty(store: Store) -> None:
    for info in [*store.list("class_totals/"), *store.list("runs/")]:
        store.delete(info.key)
    assert ask(store, "SELECT run_id, class_name, recipe FROM class_totals") == []
    assert ask(store, "SELECT run_id, recipe FROM runs") == []
    assert ask(store, "SELECT count(*) AS n FROM all_variants") == [{"n": 7}]


@pytest.mark.parametrize("store", ["folder"], indirect=True)
class TestCommand:
    def test_rows_come_as_table_csv_json_and_parquet(
        self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sql = "SELECT key, confidence, areas FROM all_variants WHERE key = 'cam/1.jpg'"
        assert fcn(["query", store.uri, sql]) == 0
        assert "cam/1.jpg" in capsys.readouterr().out
        assert fcn(["query", store.uri, sql, "--csv"]) == 0
        (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
        assert (row["key"], json.loads(row["areas"])[0]["class_name"]) == ("cam/1.jpg", "car")
        assert fcn(["query", store.uri, sql, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["areas"][0]["pixels"] == 80
        assert fcn(["query", store.uri, sql, "--parquet", str(tmp_path / "rows.parquet")]) == 0
        assert pq.read_table(tmp_path / "rows.parquet").column("key").to_pylist() == ["cam/1.jpg"]

    def test_sums_and_means_are_numbers_on_the_screen_and_in_json(
        self, store: Store, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sql = "SELECT sum(range + 1234567) AS total, avg(1234567.5) AS mean, 'NaN'::DOUBLE AS none FROM range(1)"
        assert fcn(["query", store.uri, sql]) == 0
        assert capsys.readouterr().out.split()[-3:] == ["1234567", "1234568", "nan"]
        assert fcn(["query", store.uri, sql, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"total": 1234567, "mean": 1234567.5, "none": None}

    def test_no_rows_are_still_a_table(self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sql = "SELECT key, areas FROM current WHERE false"
        assert fcn(["query", store.uri, sql, "--csv"]) == 0
        assert capsys.readouterr().out == "key,areas\n"
        assert fcn(["query", store.uri, sql, "--parquet", str(tmp_path / "rows.parquet")]) == 0
        assert pq.read_table(tmp_path / "rows.parquet").column_names == ["key", "areas"]

    def test_a_long_answer_is_cut_on_the_screen_alone(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert fcn(["query", store.uri, "SELECT range AS n FROM range(250)"]) == 0
        captured = capsys.readouterr()
        assert "the first 100 rows" in captured.err
        assert "100" not in captured.out.split()
        assert fcn(["query", store.uri, "SELECT range AS n FROM range(25000)", "--csv"]) == 0
        assert capsys.readouterr().out.count("\n") == 25001

    def test_a_key_cannot_drive_the_terminal(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        write_run(store, "20260404T000000Z-dddd", {"\x1b[2J[red]x": striped(SKY)})
        assert fcn(["query", store.uri, "SELECT key FROM current WHERE key LIKE '%red%'"]) == 0
        assert r"\x1b[2J[red]x" in capsys.readouterr().out

    def test_what_cannot_be_asked_is_said_in_one_sentence(
        self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "Referenced column" in refused(capsys, "query", store.uri, "SELECT keey FROM current")
        assert "yntax error" in refused(capsys, "query", store.uri, "SELEC 1")
        assert "give a query" in refused(capsys, "query", store.uri)
        assert "exclude each other" in refused(capsys, "query", store.uri, "SELECT 1", "--csv", "--json")
        assert "does not end in .parquet" in refused(capsys, "query", store.uri, "SELECT 1", "--parquet", "x.txt")
        message = refused(capsys, "query", store.uri, "SELECT CAST(key AS INT) FROM current")
        assert "the query cannot be run" in message
        (tmp_path / "empty").mkdir()
        assert "there are no results under" in refused(capsys, "query", tmp_path / "empty", "SELECT 1")

    def test_the_views_work_in_a_duckdb_of_ones_own(self, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
        assert fcn(["query", store.uri, "--views"]) == 0
        script = capsys.readouterr().out
        assert script == views_script(store.uri)
        with duckdb.connect() as connection:
            connection.execute(script)
            for table in TABLES[:-1]:
                row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                assert row is not None
                assert row[0] > 0

    def test_a_missing_duckdb_is_named_with_its_remedy(
        self, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "duckdb", None)
        assert "pip install 'fcn-pipeline[query]'" in refused(capsys, "query", store.uri, "SELECT 1")

    def test_nothing_but_the_answer_is_printed(self, store: Store) -> None:
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "query",
            store.uri,
            "SELECT count(*) AS n FROM all_variants",
            "--csv",
        ]
        code = f"import sys; from pipeline.cli.app import main; main({command[3:]!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "n\n7\n", "")


def test_a_bucket_is_listed_and_fetched_once_a_query_needs_it(store: Store) -> None:
    from pipeline.storage.fsspec_files import ROOT, StoreFiles

    files = StoreFiles(store)
    found = files.glob(f"{ROOT}/results/*/*.parquet")
    assert len(found) == len(list(store.list("results/")))
    assert files.glob(f"{ROOT}/results/*.parquet") == [], "a star does not cross a slash"
    before = files.open(found[0]).read()
    assert files.size(found[0]) == len(before)
    store.delete(found[0].removeprefix(f"{ROOT}/"))
    assert files.open(found[0]).read() == before
    with pytest.raises(PermissionError):
        files.open(found[0], "wb")


@pytest.mark.parametrize(
    "sql",
    [
        "COPY current TO '{there}'",
        "COPY (SELECT 1) TO '{inside}'",
        "SELECT 1; COPY current TO '{there}'",
        "EXPLAIN ANALYZE COPY current TO '{there}'",
        "PREPARE p AS COPY current TO '{there}'",
        "EXPORT DATABASE '{there}'",
        "ATTACH '{there}'",
        "SET enable_external_access = true",
        "CREATE TABLE t AS SELECT 1",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM glob('/etc/*')",
        "",
    ],
)
def test_a_query_writes_nothing_and_reads_nothing_but_the_output(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], sql: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    inside = f"{store.uri}/results/run_id=x/shard-00000000.parquet"
    before = {info.key for info in store.list()}
    line = refused(
        capsys, "query", store.uri, sql.format(there=tmp_path / "written", inside=inside, secret=secret), "--json"
    )
    assert "query" in line
    assert not (tmp_path / "written").exists()
    assert {info.key for info in store.list()} == before


@pytest.mark.parametrize("damage", ["tail", "empty", "pages"])
@pytest.mark.parametrize("sql", ["SELECT * FROM current", "SELECT sum(len(areas)) FROM results"])
def test_a_damaged_parquet_file_is_named_and_not_a_traceback(
    store: Store, capsys: pytest.CaptureFixture[str], damage: str, sql: str
) -> None:
    (key, *_) = sorted(info.key for info in store.list("results/"))
    data = store.get(key)
    damaged = {
        "tail": data[:-4],
        "empty": b"",
        "pages": data[:4] + bytes(len(data) // 3) + data[4 + len(data) // 3 :],
    }[damage]
    store.put(key, damaged)
    line = refused(capsys, "query", store.uri, sql, "--json")
    assert key in line
    assert "fcn verify" in line
