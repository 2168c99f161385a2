"""Names of exported files, from the keys of images: all different, and safe on any file system.

The one thing to know: names are made in a database on this machine's disk, so memory does not grow with the number of
images.
"""

import sqlite3
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from pipeline.outputs.names import MAX_NAME_BYTES, abridged, safe_path

FILE_NAME_BYTES = 255
"""The longest file name that file systems allow."""

_TABLES = (
    "CREATE TABLE name (key BLOB PRIMARY KEY, short TEXT, folded TEXT, final TEXT) WITHOUT ROWID",
    "CREATE TABLE folder (folded TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE taken (folded TEXT PRIMARY KEY, name TEXT) WITHOUT ROWID",
)
_ROWS_AT_ONCE = 1 << 12


class Names:
    """The name of each key's file, safe for any store, also one that takes A and a for the same.

    The key's suffix becomes `suffix`. Where two keys would meet, or a name is another's folder, the suffix is added to
    the whole key, as often as it takes. What is longer than a file system allows ends in a hash.
    """

    def __init__(self, database: sqlite3.Connection, suffix: str) -> None:
        """`database`: an empty one; the table `name` has the results."""
        self._database = database
        self._suffix = suffix
        for statement in _TABLES:
            database.execute(statement)

    def add(self, keys: Iterable[str]) -> None:
        """Take some keys; each is given once."""
        rows = []
        folders: set[str] = set()
        for key in keys:
            short = self._fitting(str(PurePosixPath(safe_path(key)).with_suffix(self._suffix)))
            rows.append((key.encode(), short, _folded(short)))
            folders.update(_folded(str(parent)) for parent in PurePosixPath(short).parents)
        self._database.executemany("INSERT INTO name VALUES (?, ?, ?, NULL)", rows)
        self._database.executemany("INSERT OR IGNORE INTO folder VALUES (?)", [(folder,) for folder in folders])

    def finish(self) -> None:
        """Give every key its name, when all are there."""
        ask = self._database.execute
        ask("CREATE INDEX by_folded ON name (folded)")
        ask(
            "INSERT INTO taken SELECT folded, min(short) FROM name WHERE folded NOT IN (SELECT folded FROM folder) "
            "GROUP BY folded HAVING count(*) = 1"
        )
        ask("UPDATE name SET final = short WHERE folded IN (SELECT folded FROM taken)")
        # Those that meet, in the order of their keys.
        last = b""
        while met := ask(
            "SELECT key FROM name WHERE final IS NULL AND key >= ? ORDER BY key LIMIT ?", (last, _ROWS_AT_ONCE)
        ).fetchall():
            for (raw,) in met:
                name = self._free(raw.decode())
                ask("INSERT INTO taken VALUES (?, ?)", (_folded(name), name))
                ask("UPDATE name SET final = ? WHERE key = ?", (name, raw))
                last = raw

    def is_used(self, name: str) -> bool:
        """Whether this very name is that of one of the keys."""
        found = self._database.execute("SELECT name FROM taken WHERE folded = ?", (_folded(name),)).fetchone()
        return found is not None and found[0] == name

    def _free(self, key: str) -> str:
        whole = f"{PurePosixPath(safe_path(key))}{self._suffix}"
        while True:
            name = self._fitting(whole)
            folded = _folded(name)
            sql = "SELECT 1 FROM taken WHERE folded = ? UNION ALL SELECT 1 FROM folder WHERE folded = ?"
            if self._database.execute(sql, (folded, folded)).fetchone() is None:
                return name
            whole += self._suffix

    def _fitting(self, name: str) -> str:
        """`name`, which ends in the suffix, with what is too long cut and told apart by a hash."""
        *folders, file = name.split("/")
        parts = [*(_within(folder, "") for folder in folders), _within(file, self._suffix)]
        short = "/".join(parts)
        if len(short.encode()) <= MAX_NAME_BYTES:
            return short
        return abridged(name, FILE_NAME_BYTES - len(self._suffix), self._suffix)


def plain_names(keys: Iterable[str], suffix: str = ".png") -> dict[str, str]:
    """`Names` of a few keys."""
    database = sqlite3.connect(":memory:")
    try:
        names = Names(database, suffix)
        names.add(keys)
        names.finish()
        return {raw.decode(): name for raw, name in database.execute("SELECT key, final FROM name ORDER BY key")}
    finally:
        database.close()


def _within(part: str, suffix: str) -> str:
    return part if len(part.encode()) <= FILE_NAME_BYTES else abridged(part, FILE_NAME_BYTES - len(suffix), suffix)


def _folded(name: str) -> str:
    """The same for names that some file system takes for one: case and the way accents are composed differ."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
