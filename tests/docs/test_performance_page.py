"""docs/performance.md has a block for each benchmark that `make bench` runs, and a block is replaced whole."""

import re
import shlex

import pytest

from benchmarks.write_tables import COMMANDS, HERE, PAGE, replaced

BLOCKS = re.findall(r"^<!-- (\w+) -->\n(?:.*\n)*?<!-- end -->$", PAGE.read_text(), re.MULTILINE)


def test_every_benchmark_of_the_bench_has_its_block() -> None:
    assert sorted(block for block in BLOCKS if block != "end") == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_bench_runs_is_there_and_takes_these_options(name: str) -> None:
    file, *options = shlex.split(COMMANDS[name])
    text = (HERE / file).read_text()
    for option in options:
        assert not option.startswith("--") or f'"{option}"' in text


def test_a_table_takes_the_place_of_the_one_before_and_nothing_else() -> None:
    page = "a\n<!-- one -->\nold\n\nolder\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n"
    changed = replaced(page, "one", "new \\1\n")
    assert changed == "a\n<!-- one -->\nnew \\1\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n"
    assert replaced(changed, "one", "new \\1\n") == changed


def test_a_page_without_the_block_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no block <!-- one -->"):
        replaced("<!-- two -->\n<!-- end -->\n", "one", "new\n")
