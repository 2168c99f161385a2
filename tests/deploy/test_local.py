"""deploy/local: `make site` as a person runs it, on free ports, with a folder and a home of its own."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from deploy.local.__main__ import claimed
from deploy.local.parts import free_port
from deploy.local.settings import Ports
from pipeline.errors import InputError
from pipeline.storage.opening import open_store
from tests.docs.blocks import Block, commands
from tests.docs.checks import check_command
from tests.processes import descendants

ROOT = Path(__file__).parents[2]
PARTS = (
    "S3 server", "Prefect server", "Ray head", "Prefect worker", "deployments", "sample images", "sample model",
    "messages", "notifications",
)  # fmt: skip
IMAGES = 2

# Half a minute to start and one run; servers take longer on a busy machine.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


@dataclass
class RunningSite:
    """A site under way: its process, what it prints, its folder, and the user's home."""

    process: subprocess.Popen[bytes]
    output: Path
    folder: Path
    home: Path
    ports: dict[str, int]

    def printed(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, seconds: float = 500) -> str:
        """What is printed, once that stands in it."""
        until(lambda: text in self.printed() or self.process.poll() is not None, f"no {text!r}", seconds)
        printed = self.printed()
        assert text in printed, printed
        return printed

    def environment(self) -> dict[str, str]:
        """What a terminal has that sources the site's file."""
        script = f". {self.folder}/env && env -0"
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "AWS_PROFILE": "mine", "PREFECT_API_KEY": "mine"}
        done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, check=True, timeout=300)
        return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)

    def ask(self, path: str, **body: Any) -> Any:
        """An answer of Prefect's API."""
        url = f"http://127.0.0.1:{self.ports['prefect_port']}/api/{path}"
        user, _, password = (self.folder / "prefect-auth").read_text().partition(":")
        answer = httpx.post(url, json=body, auth=(user, password), timeout=300)
        answer.raise_for_status()
        return answer.json()


def until(holds: Callable[[], bool], otherwise: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


def command(folder: Path, ports: dict[str, int], *more: str) -> list[str]:
    words = [sys.executable, "-m", "deploy.local", "--folder", str(folder), *more]
    return words + [word for name, port in ports.items() for word in (f"--{name.replace('_', '-')}", str(port))]


def free_ports() -> dict[str, int]:
    return {name: free_port() for name, _ in Ports().items()}


def start(place: Path, *more: str) -> RunningSite:
    """A site that begins to start. Its ports were free a moment before; should somebody have been quicker, others."""
    for attempt in range(3):
        site = start_once(place / str(attempt), *more)
        if has_ports(site):
            return site
    raise AssertionError(site.printed())


def has_ports(site: RunningSite) -> bool:
    """Whether it begins to start. Raises AssertionError when it has ended for another reason than a taken port."""
    until(lambda: "starting a site" in site.printed() or site.process.poll() is not None, "it does not begin")
    assert site.process.poll() is None or "in use by another program" in site.printed(), site.printed()
    return site.process.poll() is None


def start_once(place: Path, *more: str) -> RunningSite:
    home, output, ports = place / "home", place / "output.txt", free_ports()
    home.mkdir(parents=True)
    # A user's own settings, which must neither reach the site nor keep it from anything.
    foreign = {"RAY_ADDRESS": "10.0.0.1:6379", "PREFECT_API_URL": "http://10.0.0.1/api", "AWS_PROFILE": "mine"}
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command(place / "site", ports, *more),
            cwd=ROOT,
            env={**os.environ, **foreign, "HOME": str(home), "OMP_NUM_THREADS": "1"},
            stdout=sink,
            stderr=sink,
        )
    return RunningSite(process, output, place / "site", home, ports)


def end(site: RunningSite) -> None:
    """For a test that failed: what is left must not stay."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if site.process.poll() is None:
            site.process.send_signal(number)
            try:
                site.process.wait(timeout=300)
            except subprocess.TimeoutExpired:
                continue


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[RunningSite]:
    started = start(tmp_path_factory.mktemp("local"), "--images", str(IMAGES), "--model", str(model_dir))
    try:
        started.wait_for("The site is ready")
        yield started
    finally:
        end(started)


def test_all_parts_are_ready_and_the_deployments_exist(site: RunningSite) -> None:
    printed = site.printed()
    assert all(f"  {part}  " in printed for part in PARTS), printed
    wanted = {each["name"] for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    assert {each["name"] for each in site.ask("deployments/filter")} == wanted
    assert "10.0.0.1" not in str(site.ask("deployments/filter"))


def test_what_prefect_has_to_say_is_in_a_log(site: RunningSite) -> None:
    automations = site.ask("automations/filter")
    assert {each["name"] for each in automations} == {
        "fcn: failed run", "fcn: late run", "fcn: new champion", "fcn: too many errors",
    }  # fmt: skip
    flow = site.ask("flows/filter")[0]["id"]
    failed = {"type": "FAILED", "name": "Failed", "message": "for a test"}
    site.ask("flow_runs/", flow_id=flow, name="one-that-fails", tags=["fcn"], state=failed)
    log = site.folder / "logs" / "messages.log"
    until(lambda: "for a test" in log.read_text(), "no message", 60)
    assert "one-that-fails" in log.read_text()


def test_what_it_tells_to_type_could_work(site: RunningSite) -> None:
    told = site.printed().partition("In another terminal:")[2].replace("\n  ", "\n    ")
    lines = [command for command in commands(Block("greeting", 1, "bash", told)) if command.words]
    assert len(lines) > 3
    for line in lines:
        check_command(line)


def test_secrets_are_for_their_owner_alone_and_homes_stay_clean(site: RunningSite) -> None:
    assert stat.S_IMODE(site.folder.stat().st_mode) == 0o700
    for name in ("ray-token", "prefect-auth", "env"):
        assert stat.S_IMODE((site.folder / name).stat().st_mode) == 0o600
    token = (site.folder / "ray-token").read_text()
    assert token not in (site.folder / "env").read_text()
    assert site.environment()["RAY_AUTH_TOKEN"] == token
    assert token not in str(list(descendants(site.process.pid).values()))
    assert not {".prefect", ".ray"} & {path.name for path in site.home.iterdir()}


def test_neither_another_user_nor_a_web_page_gets_prefect_to_do_anything(site: RunningSite) -> None:
    """Three requests without a password made a deployment of a shell command and ran it."""
    api = f"http://127.0.0.1:{site.ports['prefect_port']}/api"
    user, _, password = (site.folder / "prefect-auth").read_text().partition(":")
    page = {"Origin": "https://page.example"}
    for path in ("flows/", "deployments/", "deployments/filter", "work_pools/filter", "block_documents/filter"):
        assert httpx.post(f"{api}/{path}", json={}, headers=page, timeout=60).status_code == 401
    for wrong in ((user, "wrong"), ("", "")):
        assert httpx.post(f"{api}/flows/filter", json={}, auth=wrong, timeout=60).status_code == 401
    asked = httpx.options(f"{api}/flows/", headers={**page, "Access-Control-Request-Method": "POST"}, timeout=60)
    assert "access-control-allow-origin" not in asked.headers
    # A name of the page's own that points at this machine: the browser takes it for the page's own server.
    rebound = httpx.post(
        f"{api}/flows/filter", json={}, auth=(user, password), headers={"Host": "page.example"}, timeout=60
    )
    assert rebound.status_code == 400
    assert httpx.post(f"{api}/flows/filter", json={}, auth=(user, password), timeout=60).status_code == 200


def test_its_s3_server_asks_for_credentials(site: RunningSite) -> None:
    s3 = f"http://127.0.0.1:{site.ports['s3_port']}"
    assert httpx.get(f"{s3}/models", timeout=60).status_code == 403
    assert httpx.put(f"{s3}/models/registry/x", content=b"mine", timeout=60).status_code == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_nothing_of_it_listens_beyond_this_machine(site: RunningSite) -> None:
    heard = {}
    for process in psutil.Process(site.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    heard[f"{process.name()}:{each.laddr.port}"] = each.laddr.ip.removeprefix("::ffff:")
    assert any(name.startswith("gcs_server") for name in heard)
    assert set(heard.values()) == {"127.0.0.1"}, heard


def test_another_user_cannot_enter_its_folder(site: RunningSite) -> None:
    for name in ("env", "prefect-auth", "ray", "logs"):
        done = subprocess.run(["ls", str(site.folder / name)], user=65534, group=65534, extra_groups=[], check=False,
                              capture_output=True, text=True)  # fmt: skip
        assert "Permission denied" in done.stderr


def test_a_terminal_with_its_environment_finds_the_site(site: RunningSite) -> None:
    found = site.environment()
    assert "AWS_PROFILE" not in found
    assert "PREFECT_API_KEY" not in found
    for words in (["fcn", "registry", "champion", "street"], ["ray", "job", "list"]):
        done = subprocess.run(words, env=found, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.long  # a deployment's run of the same kind is tests/flows/test_deployments.py's
def test_a_triggered_run_labels_the_sample_images(site: RunningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    (nightly,) = [each for each in site.ask("deployments/filter") if each["name"] == "nightly"]
    run = site.ask(f"deployments/{nightly['id']}/create_flow_run")["id"]

    def state() -> dict[str, Any]:
        (found,) = site.ask("flow_runs/filter", flow_runs={"id": {"any_": [run]}})
        return dict(found["state"])

    until(lambda: state()["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), "it does not end", 500)
    assert state()["type"] == "COMPLETED", state()
    for name, value in site.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    assert len(list(open_store("s3://labels").list("masks/"))) == IMAGES


def test_a_taken_port_is_refused_by_name_before_anything_starts(tmp_path: Path) -> None:
    ports = free_ports()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", ports["s3_port"]))
        holder.listen()
        done = subprocess.run(
            command(tmp_path / "site", ports), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 2
    assert f"port {ports['s3_port']} (--s3-port)" in done.stderr
    assert "prefect-port" not in done.stderr
    assert not (tmp_path / "site").exists()


def test_only_a_sites_own_folder_is_replaced_and_never_one_in_use(site: RunningSite, tmp_path: Path) -> None:
    (tmp_path / "precious.jpg").write_bytes(b"...")
    for folder, why in ((tmp_path, "no site made it"), (site.folder, "a site runs in")):
        with pytest.raises(InputError, match=why), claimed(folder):
            pass
    assert (tmp_path / "precious.jpg").exists()
    assert (site.folder / "env").exists()


def test_a_part_that_dies_is_named_and_a_signal_ends_the_rest(site: RunningSite) -> None:
    (worker,) = [pid for pid, title in descendants(site.process.pid).items() if "worker start" in title]
    os.kill(worker, signal.SIGKILL)
    printed = site.wait_for("the Prefect worker has ended (killed by SIGKILL)")
    assert str(site.folder / "logs" / "prefect-worker.log") in printed
    assert "worker start --pool=fcn" in printed.partition("has ended")[2]
    stop_and_look(site, 1, signal.SIGTERM)


def test_it_can_be_stopped_while_it_starts_by_an_impatient_person(tmp_path: Path) -> None:
    starting = start(tmp_path)
    try:
        starting.wait_for("  S3 server  ")
        stop_and_look(starting, 0, signal.SIGINT, signal.SIGINT)
    finally:
        end(starting)


def stop_and_look(site: RunningSite, code: int, *signals: signal.Signals) -> None:
    """Ends with that exit code; no process is left, and no port taken."""
    below = descendants(site.process.pid)
    assert below
    for number in signals:
        site.process.send_signal(number)
        site.wait_for("stopping the site")
    assert site.process.wait(timeout=300) == code, site.printed()
    assert not [title for pid, title in below.items() if title and title_of(pid) == title]
    for port in site.ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


def title_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
