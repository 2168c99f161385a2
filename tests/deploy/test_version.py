"""The version stands in pyproject.toml; what else names it says the same, and no program decides by it."""

import re
import tomllib

from tests.deploy.manifests import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TAG = re.compile(r"(?:fcn-pipeline:|newTag: )(\d+\.\d+\.\d+)\b")
"""An image's tag that begins with a version, as it is written in manifests, commands and pages."""


def test_the_changelog_begins_with_the_version_and_says_in_short_what_it_brings() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    newest = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    assert newest.splitlines()[0] == VERSION
    assert "### In short" in newest.splitlines()[:4]


def test_every_tag_of_an_image_is_that_of_the_version() -> None:
    files = [*(ROOT / "deploy").rglob("*"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    tags = {
        (path.relative_to(ROOT).as_posix(), tag)
        for path in files
        if path.is_file() and path.suffix in {".yaml", ".md", ".py", ""}
        for tag in TAG.findall(path.read_text())
    }
    assert len(tags) >= 4
    assert {tag for _, tag in tags} == {VERSION}, sorted(tags)


def test_the_packages_ask_their_metadata_and_name_no_version_themselves() -> None:
    for package in ("fcn_core", "pipeline", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            assert f'"{VERSION}"' not in path.read_text(), path
