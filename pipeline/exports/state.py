"""What an export has done, kept beside its files so that the same command goes on with it.

    DEST/_fcn_export/about.json                what is exported in which format
    DEST/_fcn_export/begun/<part>.jsonl        files of these names may be there, and may be another part's
    DEST/_fcn_export/parts/<part>-<n>.jsonl    these files are there; then records; n images are still missing
    DEST/_fcn_export/finished.json             of which parts all is there

The one thing to know: a part is some images in a row, by key, and its name a digest of all that its files depend on. A
part that is there under its name is done; one that is not in the selection any more is undone before anything is
written. Names of files are in `begun` before the files are, so none is ever left over that nobody knows of.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError, ObjectMissing
from pipeline.storage.store import Store, create_or_read

FOLDER = "_fcn_export/"
_ABOUT, _FINISHED = FOLDER + "about.json", FOLDER + "finished.json"
_BEGUN, _PARTS = FOLDER + "begun/", FOLDER + "parts/"
_BEGUN_KEY = re.compile(re.escape(_BEGUN) + r"([0-9a-f]{32})\.jsonl")
_PART_KEY = re.compile(re.escape(_PARTS) + r"([0-9a-f]{32})-(\d+)\.jsonl")


@dataclass(frozen=True, slots=True)
class WrittenPart:
    """The names of a part's files, under the destination, and its records."""

    files: Sequence[str]
    records: Sequence[str]


class ExportState:
    """The state of an export under a destination. For one export at a time."""

    def __init__(self, target: Store) -> None:
        self._target = target
        self._parts: dict[str, int] = {}
        self._begun: set[str] = set()

    def open(self, format: str) -> None:
        """Read what is there. Raises InputError where another format was exported to the same place."""
        about = json.dumps({"format": format}).encode()
        there = create_or_read(self._target, _ABOUT, about)
        if there != about:
            found = _format_in(there)
            raise InputError(
                f"{self._target.uri} has masks as {found}, and one place holds one format; choose another DEST, or "
                "delete that one"
            )
        for info in self._target.list(FOLDER):
            if match := _PART_KEY.fullmatch(info.key):
                missing = int(match[2])
                self._parts[match[1]] = min(missing, self._parts.get(match[1], missing))
            elif match := _BEGUN_KEY.fullmatch(info.key):
                self._begun.add(match[1])

    def is_done(self, part: str) -> bool:
        """Whether all of a part is there."""
        return self._parts.get(part) == 0

    def finished(self) -> str | None:
        """The digest of the parts of which all is there; None where something is still to be written."""
        try:
            return str(json.loads(self._target.get(_FINISHED))["parts"])
        except (ObjectMissing, ValueError, TypeError, KeyError):
            return None

    def finish(self, digest: str, counts: dict[str, int]) -> None:
        """All is there."""
        self._target.put(_FINISHED, json.dumps({"parts": digest, **counts}).encode())

    def reopen(self) -> None:
        """Not all is there any more."""
        self._target.delete(_FINISHED)

    def undo(self, wanted: Collection[str]) -> Iterator[str]:
        """Forget the parts that are not `wanted`; yields the names of their files, to be deleted if nobody needs them.

        Whoever stops in between begins again with the same names.
        """
        for part in sorted(set(self._parts) - set(wanted)):
            missing = self._parts.pop(part)
            self._write(_begun(part), self.read(part, missing).files, ())
            self._begun.add(part)
            self._target.delete(_done(part, missing))
        for part in sorted(self._begun - set(wanted)):
            yield from self._read(_begun(part)).files
            self._target.delete(_begun(part))
            self._begun.remove(part)

    def begin(self, part: str, files: Sequence[str]) -> None:
        """Files of these names are going to be written."""
        if part not in self._begun:
            self._write(_begun(part), files, ())
            self._begun.add(part)

    def done(self, part: str, written: WrittenPart, missing: int) -> None:
        """All files of the part are there, but those of `missing` images."""
        self._write(_done(part, missing), written.files, written.records)
        before = self._parts.get(part)
        if before is not None and before != missing:
            self._target.delete(_done(part, before))
        self._parts[part] = missing
        self._target.delete(_begun(part))
        self._begun.discard(part)

    def read(self, part: str, missing: int | None = None) -> WrittenPart:
        """What `done` wrote."""
        return self._read(_done(part, self._parts[part] if missing is None else missing))

    def _write(self, key: str, files: Sequence[str], records: Sequence[str]) -> None:
        if any("\n" in record for record in records):
            raise ValueError("a record of an export is one line: JSON, for example, has no line breaks")
        self._target.put(key, "\n".join([json.dumps(list(files)), *records]).encode())

    def _read(self, key: str) -> WrittenPart:
        files, *records = self._target.get(key).decode().split("\n")
        return WrittenPart(json.loads(files), records)


def _begun(part: str) -> str:
    return f"{_BEGUN}{part}.jsonl"


def _done(part: str, missing: int) -> str:
    return f"{_PARTS}{part}-{missing}.jsonl"


def _format_in(about: bytes) -> str:
    try:
        return str(json.loads(about)["format"])[:40]
    except (ValueError, TypeError, KeyError):
        return "something else"
