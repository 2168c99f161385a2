"""Tables that say what the colours or numbers of mask pictures mean, as data sets bring them along."""

import csv
import io
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fcn_core.labels import RGB, LabelSet, parse_labels
from pipeline.data.annotations.cvat_mask import read_labelmap
from pipeline.data.annotations.source_files import SourceFiles, short
from pipeline.errors import InputError

_COLOR_LISTS = ("label_colors.txt", "labelmap.txt", "class_dict.csv", "colormap.csv")
_MOST_BYTES = 8 << 20


@dataclass(frozen=True)
class ClassTable:
    """Names by colour, or by number; `place` says where this is written."""

    place: str
    by_color: Mapping[RGB, str] = field(default_factory=dict)
    by_number: Mapping[int, str] = field(default_factory=dict)


def find_table(files: SourceFiles) -> ClassTable | None:
    """The table that lies in the source, nearest to its root. Raises InputError for one that cannot be read."""
    for place in sorted(files.names, key=lambda name: (name.count("/"), name)):
        base = posixpath.basename(place).lower()
        if base in _COLOR_LISTS or base in ("_classes.csv", "labels.json", "classes.txt"):
            return read_table(files.text(place, _MOST_BYTES), place, f"{files.uri}: {place}")
    return None


def read_table(text: str, place: str, where: str) -> ClassTable:
    """A table by the name of its file. Raises InputError.

    labels.json: a label set, with numbers and colours. classes.txt: a name per line, numbered from 0. _classes.csv:
    "Pixel Value, Class", as Roboflow writes it. .csv otherwise: name, red, green, blue with a header. labelmap.txt:
    CVAT's. .txt otherwise: red, green, blue, name, as CamVid has it.
    """
    base = posixpath.basename(place).lower()
    if base.endswith(".json"):
        labels = parse_labels(text.encode(), where)
        return ClassTable(place, _colors_of(labels), dict(enumerate(labels.names)))
    if base == "classes.txt":
        return ClassTable(place, {}, dict(enumerate(line.strip() for line in text.splitlines() if line.strip())))
    if base == "_classes.csv":
        return ClassTable(place, {}, dict(_roboflow(text, where)))
    if base == "labelmap.txt":
        return ClassTable(place, read_labelmap(text, where))
    table: dict[RGB, str] = {}
    for color, name in _csv(text, where) if base.endswith(".csv") else _camvid(text, where):
        if table.setdefault(color, name) != name:
            raise InputError(f"{where}: {short(table[color])} and {short(name)} have one colour; give each its own")
    if not table:
        raise InputError(f"{where} names no class; give a name and three numbers 0..255 per line")
    return ClassTable(place, table)


def _colors_of(labels: LabelSet) -> dict[RGB, str]:
    colors = dict(zip(labels.palette, labels.names, strict=True))
    return colors if len(colors) == labels.num_classes else {}


def _roboflow(text: str, where: str) -> Iterator[tuple[int, str]]:
    rows = [[cell.strip() for cell in row] for row in _rows(text, where)]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != 2 or not row[0].isascii() or not row[0].isdecimal() or len(row[0]) > 3 or int(row[0]) > 255:
            raise InputError(f"{where}: line {number} is not a number 0..255 and a name")
        yield int(row[0]), row[1]


def _csv(text: str, where: str) -> Iterator[tuple[RGB, str]]:
    rows = _rows(text, where)
    for number, row in enumerate(rows[1:], 2):
        if len(row) < 4:
            raise InputError(f"{where}: line {number} is not name, red, green, blue")
        yield _color(row[1:4], number, where), row[0].strip()


def _camvid(text: str, where: str) -> Iterator[tuple[RGB, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            parts = line.split(maxsplit=3)
            if len(parts) != 4:
                raise InputError(f"{where}: line {number} is not red, green, blue, name")
            yield _color(parts[:3], number, where), parts[3].strip()


def _rows(text: str, where: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise InputError(f"{where} is not CSV ({error})") from error


def _color(cells: list[str], number: int, where: str) -> RGB:
    values = [
        int(cell) if cell.strip().isascii() and cell.strip().isdecimal() and len(cell) < 9 else 256 for cell in cells
    ]
    if max(values) > 255:
        raise InputError(f"{where}: line {number} has a colour that is not three numbers 0..255")
    return values[0], values[1], values[2]
