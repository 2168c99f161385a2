"""docs/audit.md runs from its first command to its last, and its example is what comes out."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.models.registry import open_registry
from pipeline.numbers import percent
from pipeline.storage.opening import open_store
from tests.pipeline.audit.sites import LABELS, make_site
from tests.pipeline.audit.test_audit import drawn_keys
from tests.samples import model

PAGE = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (fcn .*)$", PAGE, re.MULTILINE)]


def test_the_page_runs_and_its_example_is_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    monkeypatch.chdir(tmp_path)
    bundle = model(LABELS)
    (tmp_path / "registry").mkdir()
    monkeypatch.setenv("FCN_REGISTRY", str(tmp_path / "registry"))
    open_registry(None).publish("road", bundle)
    site = make_site(tmp_path, 400, model={"model_id": bundle.model_id})
    (example,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    first = True
    for words in ([bundle.model_id if word == "0123456789abcdef" else word for word in line] for line in COMMANDS):
        if words[:2] == ["audit", "estimate"]:
            site.annotate(drawn_keys(open_store("audit")))
        if words[:2] == ["audit", "extend"]:
            more = make_site(
                tmp_path, 100, model={"model_id": bundle.model_id}, run_id="20261129T101500Z-ab12", first=400
            )
            site = type(site)(site.root, site.output, {**site.truth, **more.truth})
        capsys.readouterr()
        assert fcn(words) == 0, words
        printed = capsys.readouterr().out
        if words[:2] == ["audit", "estimate"] and first:
            first = False
            assert [line.split() for line in printed.splitlines()] == [line.split() for line in example.splitlines()]
            truths = [f"{name} {percent(share, 2)}" for name, share in zip(LABELS.names, site.shares, strict=True)]
            assert ", ".join(truths) in " ".join(PAGE.split())
    assert not first
