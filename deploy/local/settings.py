"""Where everything of a site is: its ports, the files of its folder, and the environment in which programs find it."""

import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from flows.demo.s3 import SERVER_KEY, SERVER_SECRET, new_key_pair, pointing_to

ROOT = Path(__file__).parents[2]
"""The checkout: prefect.yaml is there."""

BUCKETS = ("cameras", "labels", "models")
SOURCE, OUTPUT = "s3://cameras", "s3://labels"
DATASET, TRAINING, REGISTRY = "s3://models/streets", "s3://models/training", "s3://models/registry"
MODEL_NAME = "street"

NOTIFY = "FCN_NOTIFY_WEBHOOK"
"""Where `python -m flows notify` has Prefect send its messages."""

PREFIXES = ("PREFECT_", "RAY_", "AWS_", "FCN_")
"""What the user has set for a site of their own is nothing to this one."""


@dataclass(frozen=True)
class Ports:
    """The ports that people and programs are told of, all on 127.0.0.1."""

    prefect_port: int = 4200
    s3_port: int = 9000
    ray_port: int = 8265
    """Ray's dashboard and its Jobs API."""
    metrics_port: int = 8266
    """Ray's metrics, for Prometheus."""

    def items(self) -> list[tuple[str, int]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


@dataclass(frozen=True)
class Site:
    """A site's folder and ports. Secrets and what is not in `ports` are chosen anew at every start."""

    folder: Path
    ports: Ports
    ray_gcs: int
    messages_port: int
    ray_folder: Path
    s3_key: tuple[str, str] = field(default_factory=new_key_pair, repr=False)
    """Id and secret of the one key that the S3 server takes."""
    prefect_auth: str = field(default_factory=lambda: f"fcn:{secrets.token_hex(16)}", repr=False)
    """What Prefect's server asks of everybody: user:password."""
    messages_path: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.prefect_port}"

    @property
    def ray_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ray_port}"

    @property
    def s3_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.s3_port}"

    @property
    def messages_file(self) -> Path:
        """Where one reads what Prefect's automations say."""
        return self.logs / "messages.log"

    @property
    def token_file(self) -> Path:
        return self.folder / "ray-token"

    @property
    def prefect_file(self) -> Path:
        return self.folder / "prefect-auth"

    @property
    def environment_file(self) -> Path:
        return self.folder / "env"

    @property
    def server_file(self) -> Path:
        """What a server needs besides `environment_file`, for starting one again by hand."""
        return self.folder / "server-env"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def settings(self) -> dict[str, str | None]:
        """What a program's environment needs to find the site, but for Ray's token; None removes a variable."""
        return pointing_to(self.s3_url, *self.s3_key) | {
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_API_AUTH_STRING": self.prefect_auth,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            # The address of the node for drivers, and that of its Jobs API, which else is asked of the node.
            "RAY_ADDRESS": f"127.0.0.1:{self.ray_gcs}",
            "RAY_API_SERVER_ADDRESS": self.ray_url,
            # With clusters, Ray puts the network's address in place of 127.0.0.1, and listens to every address.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            # A head reports even that it will report nothing; here that goes nowhere.
            "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
            "FCN_SOURCE": SOURCE,
            "FCN_OUTPUT": OUTPUT,
            "FCN_DATASET": DATASET,
            "FCN_TRAINING": TRAINING,
            "FCN_REGISTRY": REGISTRY,
            "FCN_MODEL_NAME": MODEL_NAME,
        }

    def server_settings(self) -> dict[str, str]:
        """What the servers need besides: whom they answer."""
        return {
            SERVER_KEY: self.s3_key[0],
            SERVER_SECRET: self.s3_key[1],
            NOTIFY: f"http://127.0.0.1:{self.messages_port}/{self.messages_path}",
            "PREFECT_SERVER_API_AUTH_STRING": self.prefect_auth,
            # Pages of others may not even read what the API answers them.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.prefect_url,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.ports.prefect_port),
            "PREFECT_SERVER_UI_API_URL": f"{self.prefect_url}/api",
        }

    def environment(self) -> dict[str, str]:
        """The environment of the site's own processes, its secrets included."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
        ours = {name: value for name, value in self.settings().items() if value is not None}
        return {
            **kept,
            **ours,
            **self.server_settings(),
            "PATH": _path(kept),
            "RAY_AUTH_TOKEN": self.token_file.read_text(),
        }

    def write_files(self) -> None:
        """The folder's files for people and their programs: a new token, and what to source in another terminal."""
        self.logs.mkdir()
        _write_private(self.token_file, secrets.token_hex(32))
        _write_private(self.prefect_file, self.prefect_auth)
        _write_private(self.environment_file, "".join(f"{line}\n" for line in self._environment_lines()))
        settings = (f"export {name}={shlex.quote(value)}\n" for name, value in self.server_settings().items())
        _write_private(self.server_file, "".join(settings))

    def _environment_lines(self) -> list[str]:
        here = shlex.quote(str(self.environment_file))
        lines = [f"# Lets a terminal find the site of this folder while it runs:  . {here}"]
        # What a profile or a session of the user's would add.
        foreign = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "PREFECT_PROFILE", "PREFECT_API_KEY")
        lines.append(f"unset {' '.join(foreign)} RAY_AUTH_TOKEN_PATH")
        for name, value in self.settings().items():
            lines.append(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
        lines.append(f'export RAY_AUTH_TOKEN="$(cat {shlex.quote(str(self.token_file))})"')
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
        return lines


def _path(environment: Mapping[str, str]) -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", os.defpath)))


def _write_private(file: Path, text: str) -> None:
    """For its owner alone, from the moment that it is there."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
