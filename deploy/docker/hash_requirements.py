"""Requirements with hashes out of pip's report of what it would install: `make hashes` calls it.

The report is read from standard input; pip takes what is printed with --require-hashes. Files that are not of an index
(the project itself) are left out.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any


def lines(report: dict[str, Any]) -> Iterator[str]:
    """One requirement a line, by name. Raises ValueError for a file without a SHA-256."""
    for item in sorted(report["install"], key=lambda item: item["metadata"]["name"].lower()):
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        found = item["download_info"]
        if "dir_info" in found:
            continue
        digest = found.get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise ValueError(f"{name} {version} has no SHA-256 in the report")
        yield f"{name}=={version} --hash=sha256:{digest}"


if __name__ == "__main__":
    print("\n".join(lines(json.load(sys.stdin))))
