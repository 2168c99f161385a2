"""Every command and snippet in README.md and docs/ is at least parsed, and run where it can be.

A page runs as a whole, in order, in a copy of the place that `site.py` makes. What does not run stands in NOT_RUN with
the reason; a page that neither runs nor stands there fails, so that a new page has to say how it is tested.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.help import EXAMPLES
from pipeline.outputs.query import open_tables, run_query
from pipeline.storage.opening import open_store
from tests.docs.blocks import ROOT, Block, Command, blocks, commands, lines_of_code, pages
from tests.docs.checks import all_options, check_command, check_in_prose, check_python, check_yaml
from tests.docs.site import copy_site, make_buckets, make_site
from tests.labellings import CAR, ROAD, striped, write_run
from tests.plugins.isolation import child_path

pytestmark = pytest.mark.timeout(900)  # a minute where nothing else runs

RUN = (
    "README.md",
    "docs/data.md",
    "docs/evaluation.md",
    "docs/masks.md",
    "docs/predictor.md",
    "docs/registry.md",
)
"""Pages whose commands and Python snippets run."""

NOT_RUN = {
    "CHANGELOG.md": "names commands, shows none",
    "CONTRIBUTING.md": "its commands are what CI runs",
    "SECURITY.md": "shows no commands",
    "docs/annotations.md": "trains; tests/pipeline/data/test_versions.py and test_data_import.py import and add",
    "docs/architecture.md": "shows no commands",
    "docs/compatibility.md": "its commands are of a site and of releases; tests/compatibility reads what it speaks of",
    "docs/audit.md": "test_audit_page.py runs it, on an output of its own",
    "docs/cli.md": "made from the commands themselves",
    "docs/cookbook.md": "test_cookbook.py runs it, on an output of its own",
    "docs/deploy.md": "wants containers and clusters; tests/deploy checks what it hands to them",
    "docs/extending.md": "test_extending.py applies its examples to a copy of the code, and runs them",
    "docs/exports.md": "tests/pipeline/exports/test_page.py runs it, on an output of its own",
    "docs/insight.md": "tests/pipeline/insight/test_rank.py, test_compare.py and test_query.py run these commands",
    "docs/launch.md": "wants a cluster; tests/pipeline/launch starts one and runs such jobs on it",
    "docs/loop.md": "wants people; test_tutorial.py goes round once, tests/flows/test_improve.py as flows",
    "docs/metrics.md": "shows no commands; tests/deploy/test_grafana.py and tests/e2e/test_metrics.py check it",
    "docs/models.md": "needs networks of other packages, and hours; tests/pipeline/distillation distils a small one",
    "docs/performance.md": "tests/pipeline/segmentation/test_estimate.py runs such commands",
    "docs/reliability.md": "shows no commands; test_named_tests.py looks for the tests that it names",
    "docs/report.md": "tests/pipeline/report run these commands",
    "docs/results.md": "test_results_page.py runs it, on an output of its own",
    "docs/retraining.md": "needs hours; tests/pipeline/cli/test_retrain.py and tests/flows run small ones",
    "docs/security.md": "its one command fuzzes for an hour; tests/fuzz does for a moment",
    "docs/schedules.md": "needs a whole site; tests/flows/test_deployments.py is one, and does what it says",
    "docs/sources.md": "needs lists that only S3 writes; test_sources.py and tests/e2e/test_key_lists.py run such",
    "docs/runbook.md": "speaks to sites in trouble; tests/faults and tests/deploy/test_local.py make such",
    "docs/scale.md": "tests/pipeline/cli/test_compact.py runs its command",
    "docs/training.md": "needs buckets of training data and hours; tests/e2e/test_train.py trains",
    "docs/tutorial.md": "test_tutorial.py runs it from beginning to end",
    "docs/upkeep.md": "tests/pipeline/outputs/test_verify.py and test_gc.py run these commands",
    "docs/weights.md": "needs the authors' files, half a gigabyte each, or a download; tests of imports make their own",
}

SKIPPED = {
    "make": "the demo and the tests have tests of their own; not inside one another",
    "pip": "what the tests run in is installed",
    "python": "flows need a Prefect server: tests/flows run them on one; benchmarks take minutes",
    ".": "the tests run in the environment that it turns on",
    "prefect": "tests/deploy/test_local.py triggers such a run on a site; that deployments exist is checked",
    "git": "the checkout is there",
}
"""Programs whose lines are parsed and not run."""

OF_OTHER_PROGRAMS = {"--build", "--build-arg", "--logdir", "--node-ip-address", "--param", "--shm-size"}
"""Options of docker, ray, tensorboard and prefect that the text mentions."""

SKIPPED_COMMANDS = {
    ("fcn", "model", "get"): "downloads; site.py makes what it would have made",
    ("fcn", "model", "quantize"): "tests/pipeline/cli/test_model_quantize.py",
    ("fcn", "train"): "test_tutorial.py trains; the one of a page would take a minute more",
    ("fcn", "evaluate", "training/table/model"): "that training is not there",
    ("fcn", "evaluate", "registry:road@champion"): "tests/pipeline/cli/test_evaluate.py",
    ("fcn", "doctor"): "test_doctor.py; a Ray is running here already",
}
"""Commands of `fcn` that are parsed and not run."""

SCORED = ["camvid", "--preset", "camvid", "--registry", "s3://company/registry"]
SETUP = {
    "docs/registry.md": (
        ["evaluate", "registry:road@champion", *SCORED, "--output", "s3://company/scores/champion"],
        ["evaluate", "model", *SCORED, "--output", "s3://company/scores/challenger"],
    )
}
"""Commands to run before a page's own."""

PLACEHOLDER = re.compile(r"\b(MODEL|DATASET|IMAGE|OUTPUT|FILE|BUNDLE)\b")
"""A line with such words shows a form, not a command."""

REGISTRY_IDS = ("8dea1ce9ddc03cae", "fd9ab54ead4adb80")
"""The versions that docs/registry.md speaks of; the first one and the second one published."""

RUNNABLE = [page for page in pages() if page in RUN]
MADE = "docs/cli.md"
BLOCKS = [block for page in pages() if page != MADE for block in blocks(page)]
COMMANDS = [(block, command) for block in BLOCKS for command in commands(block)]
PROSE = [(page, code) for page in pages() if page != MADE for code in lines_of_code(page)]


def test_every_page_says_how_it_is_tested() -> None:
    free = {page for page in pages() if page.startswith(("docs/decisions/", "docs/api/"))}
    assert set(pages()) - free <= set(RUN) | set(NOT_RUN)


@pytest.fixture
def in_a_place_with_a_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job.yaml").write_text("source: photos\noutput: labels\nmodel: model\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_a_place_with_a_job_file")
@pytest.mark.parametrize("page", sorted({block.page for block, _ in COMMANDS}))
def test_the_commands_of_a_page_could_work(page: str) -> None:
    wrong = []
    for block, command in COMMANDS:
        if block.page == page:
            try:
                check_command(command)
            except AssertionError as error:
                wrong.append(f"{block.where}: {' '.join(command.words)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.usefixtures("in_a_place_with_a_job_file")
def test_the_examples_of_the_help_could_work() -> None:
    for examples in EXAMPLES.values():
        for _, line in examples:
            for command in commands(Block("help", 1, "bash", line)):
                check_command(command)


def test_commands_and_options_that_the_text_mentions_exist() -> None:
    wrong = []
    options = all_options()
    for page, code in PROSE:
        try:
            if code.startswith("fcn ") and " " in code:
                check_in_prose(code)
            elif code.startswith("python benchmarks/"):
                check_command(Command(tuple(shlex.split(code))))
            elif re.match(r"--[a-z]", code) and page != "CONTRIBUTING.md":
                option = re.split(r"[ =]", code)[0]
                assert option in options | OF_OTHER_PROGRAMS, f"no command has {option}"
        except (AssertionError, ValueError) as error:
            wrong.append(f"{page}: `{code}`: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.where)
def test_python_is_python_and_imports_what_there_is(block: Block) -> None:
    check_python(block)


def _is_job(block: Block) -> bool:
    return block.language == "yaml" or (not block.language and bool(re.match(r"(# .*\n)?name: ", block.text)))


@pytest.mark.parametrize("block", [b for b in BLOCKS if _is_job(b)], ids=lambda block: block.where)
def test_job_files_are_jobs(block: Block) -> None:
    check_yaml(block)


def test_links_lead_somewhere() -> None:
    broken = []
    for page in pages():
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            if "://" in target or target.startswith("#"):
                continue
            if not ((ROOT / page).parent / target.split("#")[0]).exists():
                broken.append(f"{page}: {target}")
    assert not broken, "\n".join(broken)


def steps(page: str, ids: tuple[str, str]) -> list[dict[str, Any]]:
    """What of a page is to be run, in order."""
    found = [{"kind": "fcn", "where": f"before {page}", "words": words, "code": 0} for words in SETUP.get(page, ())]
    exports: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "python":
            found.append({"kind": "python", "where": block.where, "text": block.text})
        for command in commands(block):
            program, *words = command.words
            if program == "export":
                exports |= dict([words[0].split("=", 1)])
            elif any(command.words[: len(skipped)] == skipped for skipped in SKIPPED_COMMANDS):
                continue
            elif program == "fcn" and not PLACEHOLDER.search(" ".join(words)):
                found.append(_fcn_step(block, command, ids))
            else:
                assert program in SKIPPED or PLACEHOLDER.search(" ".join(words)), f"{block.where}: {program}"
    for step in found:
        step["exports"] = exports
    return found


def _fcn_step(block: Block, command: Command, ids: tuple[str, str]) -> dict[str, Any]:
    words = [word.replace(REGISTRY_IDS[0], ids[0]).replace(REGISTRY_IDS[1], ids[1]) for word in command.words[1:]]
    return {
        "kind": "fcn",
        "where": f"{block.where}: {' '.join(command.words)}",
        "words": words,
        "variables": dict(command.variables),
        "code": 0,
    }


def run_pages(plan: list[dict[str, Any]], folder: Path, seconds: float, **variables: str) -> list[dict[str, Any]]:
    """Run what is planned in a process of its own. `folder` is for its files."""
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FCN_"))}
    environment |= {"PYTHONPATH": child_path(), **variables}
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.runner", str(folder / "plan.json"), str(folder / "results.json")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert (folder / "results.json").exists(), done.stderr[-3000:]
    results: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    assert len(results) == sum(len(page["steps"]) for page in plan), done.stderr[-3000:]
    return results


@pytest.fixture(scope="module")
def results(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What became of every step of every page."""
    folder = tmp_path_factory.mktemp("docs")
    make_site(folder / "site")
    ids = make_buckets(folder)
    plan = []
    for page in RUNNABLE:
        place = copy_site(folder / "site", folder / page.replace("/", "-"))
        plan.append({"page": page, "folder": str(place), "steps": steps(page, ids)})
    credentials = str(folder / "credentials")
    return run_pages(plan, folder, 1150, AWS_SHARED_CREDENTIALS_FILE=credentials, OMP_NUM_THREADS="1")


@pytest.mark.long
@pytest.mark.parametrize("page", RUNNABLE)
def test_the_page_runs_as_it_stands(results: list[dict[str, Any]], page: str) -> None:
    mine = [step for step in results if step["page"] == page]
    assert mine
    wrong = [f"{step['where']}\n{step['wrong']}" for step in mine if step["wrong"]]
    assert not wrong, "\n\n".join(wrong)


def test_the_readmes_query_counts_each_image_once_after_a_second_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(str(tmp_path / "labels"))
    write_run(store, "20260101T000000Z-aaaa", {f"{k}.jpg": striped(ROAD, CAR) for k in range(3)})
    write_run(store, "20260102T000000Z-bbbb", {f"{k}.jpg": striped(CAR) for k in range(2)}, model="9" * 16)
    queries = [
        command.words[-1]
        for block, command in COMMANDS
        if block.page == "README.md" and command.words[:3] == ("fcn", "query", "labels/")
    ]
    assert queries
    for sql in queries:
        with open_tables(store) as connection:
            assert run_query(connection, sql).read_all().to_pylist() == [{"class_name": "car", "pixels": 160}]
