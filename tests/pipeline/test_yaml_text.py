"""YAML files of people: a key that stands twice is an error with both lines, wherever a file is read."""

from pathlib import Path

import pytest
import yaml

from pipeline.errors import InputError
from pipeline.jobs.job_file import read_job_file
from pipeline.launch.kuberay import read_template
from pipeline.yaml_text import read_yaml
from tests.commands import refused

TWICE = "source: photos\noutput: labels\nmodel: m\nsource: other\n"


@pytest.mark.parametrize(
    "text",
    [
        TWICE,
        "job:\n  a: 1\n  b: 2\n  a: 1\n",
        "- {a: 1, a: 2}",
        "yes: 1\ntrue: 2\n",
        "a: 1\n'a': 2\n",
        "job:\n  <<: {a: 1}\n  <<: {a: 2}\n",
    ],
)
def test_a_key_that_is_given_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"is given twice, in line \d and in line \d; take one out"):
        read_yaml(text)


def test_anchors_and_merges_work_as_ever() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: &more\n  <<: *base\n  b: 3\nlast:\n  <<: *more\n  <<: {c: 5}\n  c: 4\n"
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml(text)["more"] == {"a": 1, "b": 3}
    assert read_yaml("a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: [*a, *b]\n")["c"] == {"x": 1}
    assert read_yaml('1: a\n"1": b\n') == {1: "a", "1": "b"}


def test_every_command_that_reads_yaml_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(TWICE)
    said = "source is given twice, in line 1 and in line 4"
    assert said in refused(capsys, "segment", "--config", file)
    assert said in refused(capsys, "evaluate", "m", "data", "--config", file)
    with pytest.raises(InputError, match=said):
        read_job_file(file)
    with pytest.raises(InputError, match=said):
        read_template(str(file))


ALIASES = "".join(f"k{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))


MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested more than 100 deep"),
        ("- " * 500 + "1", "nested more than 100 deep"),
        ("&a [*a]", "nested more than 100 deep"),
        (f"k0: &a0 [1,1,1,1,1,1,1,1,1,1]\n{ALIASES}", "more than 100000 values"),
        (MERGES, "more than 100000 values"),
        ("a: &m\n  <<: *m", "nested more than 100 deep"),
    ],
    ids=["lists", "items", "itself", "aliases of aliases", "merges of merges", "a merge of itself"],
)
def test_more_than_a_person_writes_is_refused(text: str, message: str) -> None:
    with pytest.raises(yaml.YAMLError, match=message):
        read_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["2026-02-30", "1" * 5000, "!!bool maybe", "!!int ''", "!!timestamp today", "!!float x", "!!python/name:os.system"],
)
def test_a_value_that_is_none_is_refused_as_all_else_is(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as refused:
        read_yaml(f"since: {text}")
    assert len(str(refused.value)) < 500
