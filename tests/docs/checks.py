"""What can be known of a command or snippet without running it: that programs, options, imports and files exist."""

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib

import duckdb
import pydantic
import yaml
from cyclopts import App, CycloptsError

from flows.__main__ import app as flows_app
from pipeline import EvaluateJob, SegmentJob, TrainJob
from pipeline.cli.app import app as fcn_app
from pipeline.jobs.distil import DistilJob
from pipeline.jobs.retrain import RetrainJob
from tests.docs.blocks import ROOT, Block, Command

STANDS_FOR = {"ARCH": "fcn8s", "[RUN]": "20260101T000000Z-00000000"}
"""What to put where a page writes a placeholder that no option would take."""

OURS = ("fcn_core", "pipeline", "flows")
NO_CHECK = ("export", "git", "cd", ".", "cat", "mkdir", "unzip", "ls", "prefect", "ray")


def check_command(command: Command) -> None:
    """Raises AssertionError for a command that could not work as it is written."""
    program, *words = command.words
    words = [STANDS_FOR.get(word, word) for word in words]
    if program == "fcn":
        _parse(fcn_app, words)
    elif program == "python" and words[:3] == ["-P", "-m", "flows"]:
        _parse(flows_app, words[3:])
    elif program == "python" and words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"there is no module {words[1]}"
    elif program == "python":
        script = ROOT / words[0]
        assert script.is_file(), f"there is no {words[0]}"
        for option in (word for word in words[1:] if word.startswith("--")):
            name = option[2:].split("=")[0]
            assert re.search(rf"{name}|{name.replace('-', '_')}", script.read_text()), f"{words[0]} has no {option}"
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets), f"make {words}"
        for variable in (word.partition("=")[0] for word in words if "=" in word):
            assert f"$({variable})" in makefile, f"the Makefile has no {variable}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for asked in re.findall(r"fcn-pipeline\[([\w,]+)\]", " ".join(words)):
            assert set(asked.split(",")) <= set(extras), f"there is no extra {asked}"
    elif program == "prefect" and words[:2] == ["deployment", "run"]:
        _check_deployment(words[2])
    elif program == "duckdb":
        assert duckdb.extract_statements(words[words.index("-c") + 1])
    else:
        assert program in NO_CHECK, f"no test knows how to check {program!r}"


def _check_deployment(name: str) -> None:
    """That prefect.yaml has it: "flow/deployment", where a flow is called as its function."""
    there = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {f"{each['entrypoint'].rpartition('.')[2]}/{each['name']}" for each in there}
    assert name in names, f"prefect.yaml has no {name}"


def check_in_prose(code: str) -> None:
    """A command that the text mentions, perhaps without all that it needs: its name and options must exist."""
    words = [word for word in shlex.split(code)[1:] if "..." not in word]
    chain, apps, rest = fcn_app.parse_commands(words)
    # `fcn registry` alone is fine; `fcn registry lst` is not.
    assert _runs(apps[-1]) or not rest, f"there is no command {code!r}"
    if not _runs(apps[-1]):
        return
    names = {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}
    names |= {"--help", "--version"}
    for option in (word.split("=")[0] for word in rest if word.startswith("--")):
        assert option in names, f"fcn {' '.join(chain)} has no option {option}"


def all_options() -> set[str]:
    """Every option of every command."""
    found, open_apps = {"--help", "--version", "--install-completion"}, [fcn_app, flows_app]
    while open_apps:
        app = open_apps.pop()
        if _runs(app):
            found |= {name for argument in app.assemble_argument_collection() for name in argument.names}
        open_apps += [app[name] for name in app if not name.startswith("-")]
    return found


def _runs(app: App) -> bool:
    """Whether it is a command, and not only a group of them."""
    return app.default_command is not None and app.default_command.__name__ not in ("help_print", "version_print")


def check_python(block: Block) -> None:
    """That it is Python, and that what it imports from here is there."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    importlib.import_module(f"{node.module}.{name.name}")


def check_yaml(block: Block) -> None:
    """That it is a job which one of the commands would take."""
    options = yaml.safe_load(block.text)
    assert isinstance(options, dict)
    kind: type[pydantic.BaseModel] = SegmentJob
    if "teacher" in options:
        kind = DistilJob
    elif "registry_name" in options:
        kind = RetrainJob
    elif {"name", "dataset"} <= set(options):
        kind = TrainJob
    elif "dataset" in options:
        kind = EvaluateJob
    kind.model_validate(options)


def _parse(app: object, words: list[str]) -> None:
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)  # type: ignore[attr-defined]
    except CycloptsError as error:
        raise AssertionError(" ".join(str(error).split())) from error
