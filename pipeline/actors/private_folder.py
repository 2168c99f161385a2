"""The folder of a private Ray: its sockets, logs and working directory, where no other user of the machine comes.

Ray makes every folder that it is told of writable for all, so that whoever gets there can take over its sockets. What
keeps others out is the folder above it, which is its owner's alone.
"""

import os
import stat
import tempfile
from pathlib import Path

LONGEST_SESSION = len("/ray/session_2026-11-29_06-50-05_123456_1234567/sockets/plasma_store")
"""Characters of a socket's path below the private folder, at most."""

LONGEST_SOCKET = 107
"""Bytes that Linux allows for the path of a socket."""

FILES = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "TMPDIR",
)
"""Variables that name a file. Where a path is relative, it is one from the user's current folder."""


def private_folder() -> Path:
    """This user's folder for private Rays, open to nobody else. Made where it is missing, and kept, for its logs.

    It lies where Ray would put its own (RAY_TMPDIR, TMPDIR, else /tmp), or below /tmp where that path is too long for
    sockets. What somebody else has put in its place is left alone, and another folder is used.
    """
    base = os.path.abspath(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    name = f"fcn-ray-{os.geteuid()}"
    # As long as what mkdtemp would make in its place.
    if len(os.fsencode(f"{base}/{name}-12345678")) + LONGEST_SESSION > LONGEST_SOCKET:
        base = "/tmp"
    Path(base).mkdir(parents=True, exist_ok=True)
    folder = Path(base) / name
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not _is_ours(folder):
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
    folder.chmod(0o700)
    return folder


def session_folder(private: Path) -> Path:
    """What Ray is told to use: it makes this writable for all, and nobody else can reach it."""
    return private / "ray"


def working_folder(private: Path) -> Path:
    """Where Ray's processes run. It is empty, for Python imports from where it runs: a file there must not be code."""
    folder = private / "empty"
    folder.mkdir(mode=0o500, exist_ok=True)
    return folder


def absolute_files() -> dict[str, str]:
    """What FILES say, with paths that hold wherever a process runs."""
    return {name: os.path.abspath(os.environ[name]) for name in FILES if os.environ.get(name)}


def _is_ours(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
