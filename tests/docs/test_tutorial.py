"""The tutorial works from beginning to end, as it stands: data, check, training, scores, masks, report."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.data.versioned.versions import open_version
from pipeline.outputs.current import current_variants, read_current
from pipeline.outputs.runs import records
from pipeline.storage.opening import open_store
from tests.docs.blocks import Block, blocks, commands
from tests.docs.test_snippets import run_pages

PAGE = "docs/tutorial.md"

pytestmark = pytest.mark.timeout(900)  # a minute and a half where nothing else runs


def _steps(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in blocks(PAGE):
        if block.language == "yaml":
            name = block.text.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(block.text)
        elif block.language == "python":
            found.append({"kind": "python", "where": block.where, "text": block.text})
        elif block.language == "bash":
            found += _commands(block)
    return found


def _commands(block: Block) -> list[dict[str, Any]]:
    found = []
    for command in commands(block):
        program, *words = command.words
        where = f"{block.where}: {' '.join(command.words)}"
        if program == "fcn":
            words += ["--no-ray"] if words == ["doctor"] else []  # a Ray is running here already
            found.append({"kind": "fcn", "where": where, "words": words, "code": 0})
        elif program == "python":
            text = f"import runpy, sys\nsys.argv = {words[1:]!r}\nrunpy.run_module({words[1]!r}, run_name='__main__')"
            found.append({"kind": "python", "where": where, "text": text})
        else:
            assert program == ".", f"{where}: who runs this?"
    return found


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The reader's folder at the end of the page, and what became of each step."""
    folder = tmp_path_factory.mktemp("tutorial")
    place = folder / "place"
    place.mkdir()
    return place, run_pages(
        [{"page": PAGE, "folder": str(place), "steps": _steps(place)}], folder, 1150, OMP_NUM_THREADS="1"
    )


@pytest.mark.long
def test_every_step_works(walked: tuple[Path, list[dict[str, Any]]]) -> None:
    _, results = walked
    wrong = [f"{step['where']}\n{step['wrong']}" for step in results if step["wrong"]]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.long
def test_the_model_has_learned_the_ten_classes(walked: tuple[Path, list[dict[str, Any]]]) -> None:
    place, _ = walked
    scores = json.loads((place / "scores" / "scores.json").read_text())["scores"]
    assert scores["mean_iou"] > 0.5, scores


@pytest.mark.long
def test_the_reader_ends_with_masks_and_a_report(walked: tuple[Path, list[dict[str, Any]]]) -> None:
    place, _ = walked
    photos = list((place / "mydata-new").iterdir())
    assert len(read_current(open_store(str(place / "labels")))) == len(photos)
    reports = list((place / "labels" / "reports").glob("*/index.html"))
    assert reports
    assert all(report.stat().st_size > 10_000 for report in reports)


@pytest.mark.long
def test_what_a_person_corrected_is_in_the_data_and_only_unsure_images_were_redone(
    walked: tuple[Path, list[dict[str, Any]]],
) -> None:
    place, _ = walked
    first, second = (open_version(f"{place}/sets/table@{number}")[1] for number in (1, 2))
    assert {row.key for row in second.rows} - {row.key for row in first.rows} == {
        row["key"] for row in csv.DictReader((place / "tasks" / "images.csv").open())
    }
    output = open_store(str(place / "labels"))
    first_variant = read_current(output, ["confidence"], variant=current_variants(output)[-1])
    mean = sum(first_variant["confidence"].to_pylist()) / len(first_variant)
    sure = {row["key"]: row["confidence"] >= mean for row in first_variant.to_pylist()}
    by_model = {row["key"]: row["model_id"] for row in read_current(output, ["status"]).to_pylist()}
    newest = next(records(output)).model_id
    assert {key: model != newest for key, model in by_model.items()} == sure


def test_there_is_a_step_for_each_command_of_the_page(tmp_path: Path) -> None:
    shown = [command.words[0] for block in blocks(PAGE) if block.language == "bash" for command in commands(block)]
    assert len(_steps(tmp_path)) >= len(shown) - shown.count(".") > 5
    assert list(tmp_path.glob("*.yaml")), "and a file for each that is shown"


def test_the_jobs_of_the_page_are_small_enough_for_a_laptop() -> None:
    jobs = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]
    assert [job["name"] for job in jobs] == ["table", "table-2"]
    assert sum(job["train"]["steps"] for job in jobs) <= 500
