"""Write docs/api/, a page per package, from the docstrings of what it exports, and docs/cli.md from the commands.

`make docs` runs it; a test fails when a page is not what the code says. Only what a package names in `__all__` is
described: that is what callers may rely on.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fcn_core.options import OPTIONS_FOLLOW

FOLDER = Path(__file__).parent / "api"
CLI_PAGE = Path(__file__).parent / "cli.md"
PACKAGES = ("fcn_core", "pipeline")
NOTICE = "<!-- Made by docs/make_api.py from the docstrings: change those, then run `make docs`. -->"
QUOTE = "'"  # around the name of a class that is used inside itself
WIDTH = 100
"""Signatures longer than this get a line an argument."""


def pages() -> dict[Path, str]:
    """What each page should hold, by path."""
    return {FOLDER / f"{name}.md": page(name) for name in PACKAGES} | {CLI_PAGE: cli_page()}


def cli_page() -> str:
    """The reference of `fcn`: every command with its options."""
    from pipeline.cli.app import app

    # Cyclopts writes into its usage lines how this very process was started: let it be as `fcn`.
    this, arguments = sys.modules["__main__"], sys.argv
    spec = this.__spec__
    this.__spec__, sys.argv = None, ["fcn"]
    try:
        text = app.generate_docs(usage_name="fcn").replace("## Table of Contents\n\n", "", 1)
    finally:
        this.__spec__, sys.argv = spec, arguments
    return f"{NOTICE}\n\n" + "\n".join(line.rstrip() for line in text.splitlines()).strip() + "\n"


def page(package: str) -> str:
    """The reference of one package."""
    module = import_module(package)
    names = list(module.__all__)
    classes = [name for name in names if isinstance(getattr(module, name), type) and not _is_error(module, name)]
    errors = [name for name in names if _is_error(module, name)]
    functions = [name for name in names if name not in classes and name not in errors]
    parts = [NOTICE, f"# {package}", _markdown(inspect.getdoc(module) or "")]
    for title, members in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        links = " · ".join(f"[{name}](#{name.lower()})" for name in members)
        parts.append(f"**{title}**: {links}")
    for title, members in (("Functions", functions), ("Classes", classes), ("Errors", errors)):
        parts.append(f"## {title}")
        for name in members:
            parts += _member(name, getattr(module, name))
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_error(module: types.ModuleType, name: str) -> bool:
    member = getattr(module, name)
    return isinstance(member, type) and issubclass(member, Exception)


def _member(name: str, member: Any) -> Iterator[str]:
    yield f"### {name}"
    where = f"`{member.__module__}`"
    if not isinstance(member, type):
        yield f"{_code(_signature(_node(member), name))}\n\n{_markdown(inspect.getdoc(member) or '')}"
        yield f"In {where}."
        return
    if issubclass(member, Exception):
        bases = ", ".join(base.__name__ for base in member.__bases__)
        yield f"{_markdown(inspect.getdoc(member) or '')} A kind of `{bases}`."
        return
    yield _markdown((inspect.getdoc(member) or "").split(OPTIONS_FOLLOW)[0])  # a table has the options
    yield f"In {where}."
    if issubclass(member, BaseModel):
        yield _fields_table(member)
    elif dataclasses.is_dataclass(member):
        yield _dataclass_table(member)
    else:
        for node in _node(member).body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                yield _code(_signature(node, name))
    for node, kind in methods(member):
        text = _markdown(inspect.getdoc(getattr(member, node.name)) or "")
        if kind == "property":
            returns = ast.unparse(node.returns) if node.returns else ""
            yield f"**`.{node.name}`**: `{returns}`. {text}".rstrip()
        else:
            prefix = f"{name}." if kind == "classmethod" else "."
            yield f"{_code(prefix + _signature(node, node.name))}\n\n{text}".rstrip()


def methods(cls: type) -> Iterator[tuple[ast.FunctionDef, Literal["method", "classmethod", "property"]]]:
    """The public methods and properties of a class, its own and those of its bases in this repository."""
    seen = set()
    for base in cls.__mro__:
        if base.__module__.split(".")[0] not in PACKAGES:
            continue
        for node in _node(base).body:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or node.name in seen:
                continue
            decorators = {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
            if decorators & {"field_validator", "model_validator", "field_serializer"}:
                continue
            seen.add(node.name)
            if decorators & {"property", "cached_property", "functools.cached_property"}:
                yield node, "property"
            else:
                yield node, "classmethod" if decorators & {"classmethod", "staticmethod"} else "method"


def _node(thing: Any) -> Any:
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def _signature(node: ast.FunctionDef, name: str) -> str:
    """`name(arguments) -> result`, without self, folded where it is long."""
    arguments = node.args
    for positional in (arguments.posonlyargs, arguments.args):
        if positional and positional[0].arg in ("self", "cls"):
            positional.pop(0)
    returns = f" -> {ast.unparse(node.returns).strip(QUOTE)}" if node.returns and node.name != "__init__" else ""
    given = list(_arguments(arguments))
    text = f"{name}({', '.join(given)}){returns}"
    if len(text) <= WIDTH:
        return text
    lines = "\n".join(f"    {argument}," for argument in given)
    return f"{name}(\n{lines}\n){returns}"


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    """Each argument with its annotation and default."""
    positional = arguments.posonlyargs + arguments.args
    none: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for argument, default in zip(positional, none + list(arguments.defaults), strict=True):
        yield _argument(argument) + (f" = {ast.unparse(default)}" if default else "")
    if arguments.vararg:
        yield f"*{ast.unparse(arguments.vararg)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument) + (f" = {ast.unparse(default)}" if default else "")
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _argument(argument: ast.arg) -> str:
    """With its annotation, without the quotes of one that is only evaluated by type checkers."""
    return f"{argument.arg}: {ast.unparse(argument.annotation).strip(QUOTE)}" if argument.annotation else argument.arg


def _fields_table(model: type[BaseModel]) -> str:
    notes = attribute_docs(model)
    described = any(field.description or name in notes for name, field in model.model_fields.items())
    rows = ["| field | type | default |" + " meaning |" * described, "|---|---|---|" + "---|" * described]
    for name, field in model.model_fields.items():
        if field.is_required():
            default = "required"
        elif field.default is PydanticUndefined:
            default = ""
        else:
            default = f"`{_cell(repr(field.default))}`"
        meaning = _cell(_markdown(field.description or notes.get(name, "")))
        rows.append(f"| {name} | {_cell(type_text(field.annotation))} | {default} |" + f" {meaning} |" * described)
    return "\n".join(rows)


def _dataclass_table(cls: type) -> str:
    notes = attribute_docs(cls)
    annotations = {
        node.target.id: ast.unparse(node.annotation)
        for base in reversed(cls.__mro__)
        if base.__module__.split(".")[0] in PACKAGES
        for node in _node(base).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    described = any(notes.get(field.name) for field in dataclasses.fields(cls))
    rows = ["| field | type | meaning |", "|---|---|---|"] if described else ["| field | type |", "|---|---|"]
    for field in dataclasses.fields(cls):
        meaning = f" {_cell(_markdown(notes.get(field.name, '')))} |" if described else ""
        rows.append(f"| {field.name} | `{_cell(annotations[field.name])}` |{meaning}")
    return "\n".join(rows)


def attribute_docs(cls: type) -> dict[str, str]:
    """What the strings below a class's attributes say of them, bases included."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.split(".")[0] not in PACKAGES:
            continue
        body = _node(base).body
        for node, following in itertools.pairwise(body):
            named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if named and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                found[node.target.id] = inspect.cleandoc(str(following.value.value))
    return found


def type_text(kind: Any) -> str:
    """A type as a reader of a table wants it: choices spelled out, None as such."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is None or kind is type(None):
        return "None"
    if origin is Literal:
        return ", ".join(str(part) for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(type_text(part) for part in parts)
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else type_text(part) for part in parts)
        return f"{origin.__name__}[{inner}]"
    return str(getattr(kind, "__name__", kind))


def _code(text: str) -> str:
    return f"```text\n{text}\n```"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _markdown(text: str) -> str:
    """A docstring as Markdown: what looks like a tag outside code is kept from being one."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("    "):
            pieces = re.split(r"(`[^`]*`)", line)
            line = "".join(piece if piece.startswith("`") else piece.replace("<", "\\<") for piece in pieces)
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Write the pages; say which ones changed."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}: written")
    for path in sorted(set(FOLDER.glob("*.md")) - set(pages())):
        print(f"{path} belongs to no package; delete it", file=sys.stderr)


if __name__ == "__main__":
    main()
