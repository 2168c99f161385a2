"""`python -m deploy.local` (or `make site`): Prefect, Ray and S3 on this machine, until Ctrl-C.

This file claims the folder and the ports, tells a person what stands and how to use it, and handles signals.
"""

import contextlib
import errno
import fcntl
import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import IO, Annotated

from cyclopts import App, Parameter

from deploy.local.parts import free_port, parts
from deploy.local.processes import Processes
from deploy.local.settings import BUCKETS, MODEL_NAME, OUTPUT, ROOT, SOURCE, Ports, Site
from pipeline.errors import InputError, PipelineError

MARKER = ".made-by-make-site"
"""A file of this name says that a folder is a site's. It is locked for as long as one runs there."""

SAMPLE_IMAGES = 24

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app = App(name="python -m deploy.local", result_action="return_value", suppress_keyboard_interrupt=False)


class Wish:
    """What signals ask for: the first one to stop, another one not to wait for anything."""

    def __init__(self) -> None:
        self._signals = 0
        for number in STOP_SIGNALS:
            signal.signal(number, self._heard)

    def stop(self) -> bool:
        return self._signals > 0

    def hurry(self) -> bool:
        return self._signals > 1

    def fulfil(self) -> None:
        """All is stopped: a late signal must not turn a good end into a death."""
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _heard(self, number: int, frame: object) -> None:
        self._signals += 1


@app.default
def site(
    *,
    folder: Path = Path("site"),
    ports: Annotated[Ports | None, Parameter(name="*")] = None,
    images: int = SAMPLE_IMAGES,
    model: Path = Path("demo-output/model"),
) -> int:
    """Run a site on this machine until Ctrl-C: a Prefect server and worker, a Ray head, an S3 server.

    The S3 server keeps everything in memory, and nothing once it stops.

    Parameters
    ----------
    folder
        For logs, Prefect's database, Ray's token. That of an earlier site is replaced.
    ports
        Where people and programs find the parts, all on 127.0.0.1.
    images
        How many sample images are in s3://cameras at first.
    model
        What to register as champion; where it is not there, a model with random weights.
    """
    wish = Wish()
    ports = ports or Ports()
    if importlib.util.find_spec("moto") is None:
        raise InputError("the S3 server needs moto: pip install 'fcn-pipeline[demo]'")
    refuse_taken(ports)
    folder = folder.resolve()
    with claimed(folder), short_name(folder / "ray") as ray_folder:
        place = Site(folder, ports, free_port(), free_port(), ray_folder)
        place.write_files()
        return run(place, wish, images, model.resolve())


def run(place: Site, wish: Wish, images: int, model: Path) -> int:
    """Start the site, stay until told to stop, stop it. Returns the exit code: 1 when a part ended by itself."""
    started = time.monotonic()
    print(f"starting a site; logs are in {place.logs}", flush=True)
    processes = Processes(place.environment(), place.logs, wish.hurry)
    failed = False
    try:
        if processes.start(parts(place, images, model), _tell_ready, wish.stop):
            _tell(greeting(place, time.monotonic() - started))
        while not wish.stop():
            for sentence, command in processes.ended():
                failed = True
                again = restart_line(place, command)
                _tell(f"\n{sentence}\nThe rest goes on. To start it again, in another terminal:\n\n  {again}\n")
            time.sleep(0.2)
    finally:
        _tell("\nstopping the site; Ctrl-C again to wait for nothing")
        processes.stop()
        wish.fulfil()
    _tell(f"the site has stopped; its logs are in {place.logs}")
    return int(failed)


def restart_line(place: Site, command: str) -> str:
    """What starts a part again in any terminal: its command, where the site starts it and with the site's environment.

    Secrets are not in it: it names the files that hold them.
    """
    files = (place.environment_file, place.server_file)
    sourced = " && ".join(f". {shlex.quote(str(file))}" for file in files)
    return f"(cd {shlex.quote(str(ROOT))} && {sourced} && exec {command})"


def greeting(place: Site, seconds: float) -> str:
    """What stands, where, and what to type next."""
    model = (place.logs / "sample-model.log").read_text().strip()
    return f"""
The site is ready ({seconds:.0f} s). Ctrl-C stops it; the S3 server keeps nothing after that.

  Prefect      {place.prefect_url}   deployments, schedules, runs; asks for what {place.prefect_file} holds
  Ray          {place.ray_url}   asks for the token in {place.token_file}
  S3           {place.s3_url}   buckets {", ".join(BUCKETS)}
  metrics      http://127.0.0.1:{place.ports.metrics_port}/metrics
  messages     {_shown(place.messages_file)}   runs that fail or are late, new champions
  model        {model}

In another terminal:

  . {_shown(place.environment_file)}
  prefect deployment run segment/nightly --watch    # tonight's labelling, now
  fcn runs {OUTPUT}
  python -m deploy.local.images 5                # five more images in {SOURCE}; run it again
  fcn registry show {MODEL_NAME}
"""


def refuse_taken(ports: Ports) -> None:
    """Raise InputError that names each port that another program has, before anything is started."""
    taken = [f"{port} (--{name.replace('_', '-')})" for name, port in ports.items() if not _is_free(port)]
    if len({port for _, port in ports.items()}) < len(ports.items()):
        raise InputError(f"every part needs a port of its own; given are {', '.join(str(p) for _, p in ports.items())}")
    if taken:
        raise InputError(
            f"in use by another program: port {', '.join(taken)}. Perhaps a site runs already; `ss -ltnp` tells whose "
            'it is. Choose another with the option, as in `make site OPTIONS="--s3-port 9100"`'
        )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder`, empty, and ours until the end. Raises InputError where a site runs, or for what no site made."""
    marker = folder / MARKER
    if folder.exists() and not marker.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and no site made it; choose another place with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # Ray makes its own folder in it writable for all
    with marker.open("a") as lock:
        _lock(lock, folder)
        for old in folder.iterdir():
            if old.is_dir() and not old.is_symlink():
                rmtree(old)
            elif old != marker:
                old.unlink()
        yield


@contextlib.contextmanager
def short_name(folder: Path) -> Iterator[Path]:
    """Another name for `folder`, below /tmp: Ray makes sockets there, whose names must be shorter than 108 bytes."""
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="fcn-site-") as place, _removed_even_after_a_kill(place):
        name = Path(place) / "ray"
        name.symlink_to(folder)
        yield name


@contextlib.contextmanager
def _removed_even_after_a_kill(place: str) -> Iterator[None]:
    """A process that removes `place`, with the name in it, where this one is killed: its standard input ends then."""
    reader, writer = os.pipe()
    remover = subprocess.Popen(
        ["sh", "-c", 'cat; rm -f "$0/ray"; rmdir "$0"', place],
        stdin=reader, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    os.close(reader)
    try:
        yield
    finally:
        remover.kill()
        remover.wait()
        os.close(writer)


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"a site runs in {folder} already; stop it, or choose another place with --folder") from None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _shown(file: Path) -> Path:
    """As a person in the checkout would type it."""
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def _tell_ready(name: str, seconds: float) -> None:
    _tell(f"  {name:16}{seconds:5.1f} s")


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed
        print(text, flush=True)


def main() -> None:
    try:
        sys.exit(app())
    except InputError as error:
        print(f"site: {error}", file=sys.stderr)
        sys.exit(2)
    except PipelineError as error:
        sys.exit(f"site: {error}")


if __name__ == "__main__":
    main()
