"""What stands in a page of documentation that can be run or parsed: fenced and indented blocks, and code in lines."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("fcn", "python", "make", "pip", "duckdb", "export", "git", "cd", ".", "cat", "mkdir", "prefect", "ray")
SHELL = ("", "bash", "sh", "shell", "console")

_FENCE = re.compile(r" {0,3}```(\w*)\s*$")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*=")


@dataclass(frozen=True)
class Block:
    """A block of code. `language` is "" for an indented one; `line` is where it starts, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a shell block: its words, and the variables that are set for it."""

    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()


def pages() -> list[str]:
    """Every page that people read, relative to the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def blocks(page: str, text: str | None = None) -> list[Block]:
    """All blocks of a page, in order."""
    lines = ((ROOT / page).read_text() if text is None else text).splitlines()
    found, index = [], 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        start = index
        if fence:
            index += 1
            while index < len(lines) and lines[index].strip() != "```":
                index += 1
            found.append(Block(page, start + 1, fence[1] or "text", "\n".join(lines[start + 1 : index])))
        elif lines[index].startswith("    ") and (index == 0 or not lines[index - 1].strip()):
            while index + 1 < len(lines) and (lines[index + 1].startswith("    ") or not lines[index + 1].strip()):
                index += 1
            text_lines = [line[4:] for line in lines[start : index + 1]]
            found.append(Block(page, start + 1, "", "\n".join(text_lines).rstrip()))
        index += 1
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a shell block, without what they print. None for any other block."""
    if block.language not in SHELL:
        return []
    lines = block.text.replace("\\\n", " ").splitlines()
    prompted = any(line.startswith("$ ") for line in lines)
    found = []
    for line in lines:
        if prompted and not line.startswith("$ "):
            continue
        found += _split(line.removeprefix("$ "), strict=block.language != "" or prompted)
    return found


def _split(line: str, strict: bool) -> Iterator[Command]:
    """The commands in a line; `strict` means that whatever stands there is one."""
    reader = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    reader.whitespace_split = True
    try:
        words = list(reader)
    except ValueError:
        if strict:
            raise
        return
    parts: list[list[str]] = [[]]
    for word in words:
        if set(word) <= set("&|;"):
            parts.append([])
        else:
            parts[-1].append(word)
    for part in parts:
        variables = []
        while part and _VARIABLE.match(part[0]):
            name, _, value = part.pop(0).partition("=")
            variables.append((name, value))
        program = part[0].removeprefix(".venv/bin/") if part else ""
        if part and (strict or program in PROGRAMS):
            yield Command((program, *part[1:]), tuple(variables))


def lines_of_code(page: str) -> list[str]:
    """What stands between backticks in the page's prose."""
    kept, fenced = [], False
    for line in (ROOT / page).read_text().splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            kept.append(line)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", "\n".join(kept))]
