"""What a site consists of, as data: each part's command, what it waits for, and how one sees that it is ready."""

import base64
import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.local.settings import BUCKETS, ROOT, Site

POOL = "fcn"
"""The work pool of prefect.yaml."""

QUERY_SECONDS = 2
"""How often the worker asks for work. Prefect's 10 s are long where somebody waits in front of it."""

OBJECT_STORE_BYTES = 500_000_000
"""Ray's share of memory: jobs pass keys and a model's weights through it, no pixels."""


@dataclass(frozen=True)
class Part:
    """A process of the site, or a step that ends (`is_ready` None: it is ready when it has ended well).

    `needs` are names of parts that must be ready before it starts.
    """

    name: str
    command: tuple[str, ...]
    is_ready: Callable[[], bool] | None = None
    needs: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        return f"{self.name.lower().replace(' ', '-')}.log"


def parts(site: Site, images: int, model: Path) -> list[Part]:
    """All parts of `site`, in an order in which they can start."""
    python, programs = sys.executable, Path(sys.executable).parent
    prefect, ray = str(programs / "prefect"), str(programs / "ray")
    worker_pool = f"{site.prefect_url}/api/work_pools/{POOL}/workers/filter"
    return [
        Part("S3 server", (python, "-m", "flows.demo.s3", str(site.ports.s3_port)), lambda: answers(site.s3_url)),
        Part(
            "Prefect server",
            (python, "-m", "deploy.local.prefect_server", str(site.ports.prefect_port)),
            lambda: answers(f"{site.prefect_url}/api/health"),
        ),
        Part(
            "messages",
            (python, "-m", "deploy.local.messages"),
            lambda: answers(f"http://127.0.0.1:{site.messages_port}/"),
        ),
        Part("Ray head", (ray, "start", *ray_options(site)), lambda: answers(f"{site.ray_url}/api/version")),
        Part("buckets", (python, str(ROOT / "deploy/compose/make_buckets.py"), *BUCKETS), needs=("S3 server",)),
        Part("sample images", (python, "-m", "deploy.local.images", str(images), "--dataset"), needs=("buckets",)),
        Part("sample model", (python, "-m", "deploy.local.model", str(model)), needs=("buckets",)),
        # It makes the pool, too.
        Part(
            "Prefect worker",
            (prefect, "worker", "start", f"--pool={POOL}", "--type=process"),
            lambda: has_worker(worker_pool, site.prefect_auth),
            needs=("Prefect server",),
        ),
        Part("notifications", (python, "-P", "-m", "flows", "notify"), needs=("Prefect server", "messages")),
        Part("deployments", (prefect, "--no-prompt", "deploy", "--all"), needs=("Prefect worker",)),
    ]


def ray_options(site: Site) -> list[str]:
    """Of a head that does all the work. That only this machine can reach it is the doing of the site's environment."""
    return [
        "--head",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
        f"--port={site.ray_gcs}",
        f"--temp-dir={site.ray_folder}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={site.ports.ray_port}",
        f"--metrics-export-port={site.ports.metrics_port}",
        # Ray's defaults for these two are fixed ports, where another Ray of this machine may be.
        f"--dashboard-agent-listen-port={free_port()}",
        f"--ray-client-server-port={free_port()}",
    ]


def answers(url: str) -> bool:
    """Whether a server is there and well. A refusal for want of a token is an answer, too."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


def has_worker(url: str, auth: str) -> bool:
    """Whether a worker has told Prefect that it is there; `url` lists a pool's workers, `auth` is user:password."""
    basic = base64.b64encode(auth.encode()).decode()
    request = urllib.request.Request(
        url, b"{}", {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=2) as answer:
            return any(worker["status"] == "ONLINE" for worker in json.load(answer))
    except OSError:  # no pool yet is an HTTPError, which is one
        return False


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
