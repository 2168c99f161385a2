"""The wheel and the source archive: all that the packages are, no more, and `fcn` runs from them."""

import email.message
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import ROOT, tool

PACKAGES = ("fcn_core", "pipeline", "flows")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW = ROOT / ".github/workflows/ci.yml"


def files(package: str) -> set[str]:
    """All files of a package, of whatever kind."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built as `make dist` builds them, from a copy: building leaves files beside the code."""
    copy, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in (*PACKAGES, "deploy"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, copy],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return target


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked where pip would put it."""
    place = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.fixture(scope="module")
def metadata(installed: Path) -> email.message.Message:
    (found,) = installed.glob("*.dist-info/METADATA")
    return BytesParser().parsebytes(found.read_bytes())


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(installed: Path) -> None:
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    code = {name for name in there if not name.partition("/")[0].endswith(".dist-info")}
    assert code == set().union(*(files(package) for package in PACKAGES))
    (licence,) = (name for name in there if name.endswith("licenses/LICENSE"))
    assert (installed / licence).read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_says_what_pyproject_says(metadata: email.message.Message, installed: Path) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("fcn-pipeline", PROJECT["version"])
    assert set(metadata["Requires-Python"].split(",")) == set(PROJECT["requires-python"].split(","))
    plain = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert len(plain) == len(PROJECT["dependencies"]), "a plain install pulls no extra"
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "fcn = pipeline.cli.entry:main" in points.read_text()


def test_the_source_archive_is_enough_to_build_and_to_deploy(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt", "prefect.yaml"} <= names
    assert "deploy/docker/Dockerfile" in names
    assert set().union(*(files(package) for package in PACKAGES)) <= names
    assert not any(name.startswith(("tests/", "docs/")) for name in names)


def test_fcn_runs_from_the_wheel_outside_any_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import pipeline.cli.app as app, flows.segment, fcn_core\n"
        f"assert all(module.__file__.startswith({str(installed)!r}) for module in (app, flows.segment, fcn_core))\n"
        "sys.exit(app.run(['--version']) or app.run(['segment', '--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert PROJECT["version"] in done.stdout
    assert "--model" in done.stdout


# What says which Pythons these are for


def test_makefile_metadata_and_workflow_name_the_same_pythons() -> None:
    (line,) = re.findall(r"^SUPPORTED := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    supported = [f"3.{minor}" for minor in sorted(map(int, line.split()))]
    declared = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if "Python :: 3." in each]
    tested = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert supported == declared == tested
    assert PROJECT["requires-python"] == f">={supported[0]},<3.{int(supported[-1][2:]) + 1}"


@pytest.mark.parametrize(
    ("pythons", "chosen"), [(("11",), "3.11"), (("11", "13"), "3.13"), (("12", "14"), "3.12")], ids=str
)
def test_make_takes_the_newest_supported_python_that_starts(
    tmp_path: Path, pythons: tuple[str, ...], chosen: str
) -> None:
    for minor in ("11", "12", "13", "14"):
        program = tmp_path / f"python3.{minor}"
        program.write_text(f"#!/bin/sh\nexit {0 if minor in pythons else 127}\n")  # 127: a version manager's shim
        program.chmod(0o755)
    assert f"python{chosen} -m venv" in setup(tmp_path).stdout


def test_make_names_what_is_missing_where_there_is_no_python(tmp_path: Path) -> None:
    done = setup(tmp_path)
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13 was found" in done.stderr


def setup(first: Path) -> subprocess.CompletedProcess[str]:
    """What `make setup` would do with only these Pythons."""
    for name in ("make", "sh"):
        program = shutil.which(name)
        assert program is not None
        (first / name).symlink_to(program)
    return subprocess.run(
        [first / "make", "--dry-run", "--always-make", "setup"],
        cwd=ROOT, env={"PATH": str(first)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"])
def test_the_workflow_is_what_github_takes(schema: str, tmp_path: Path) -> None:
    done = tool("check-jsonschema", "--builtin-schema", schema, str(WORKFLOW))
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "broken.yml").write_text(
        WORKFLOW.read_text().replace("runs-on:", "runs-upon:").replace("timeout-", "t")
    )
    assert tool("check-jsonschema", "--builtin-schema", schema, str(tmp_path / "broken.yml")).returncode != 0


def test_every_command_of_the_workflow_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [step for job in yaml.safe_load(WORKFLOW.read_text())["jobs"].values() for step in job["steps"]]
    made = [word for step in steps for word in step.get("run", "").split("make ")[-1].split() if "make " in step["run"]]
    assert made, "the workflow runs make"
    assert {word for word in made if "=" not in word} <= targets
