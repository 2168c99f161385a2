"""Messages that Prefect's server sends by itself, on a real one, to a web server of the test's."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from prefect import flow, tags
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.server.utilities.user_templates import render_user_template_sync
from prefect.states import Scheduled

from flows.events import champion_promoted
from flows.notify import WEBHOOK_BLOCK, body, deploy, notifications, remove
from flows.segment import TooManyErrors, segment
from pipeline.errors import InputError
from pipeline.jobs.segment import SegmentJob
from tests.flows.reading import runs_of
from tests.in_process import segment_in_process
from tests.prefect_site import PrefectServer
from tests.samples import jpeg

TAG = "test-notify"
HOSTILE = "<!channel>`[click](https://evil.example)\x1b[31m\u202e"
KINDS = ("failed", "late", "too_many_errors", "champion")
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web server, and the objects that were posted there."""
    messages: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-path", messages
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def messages(
    inbox: tuple[str, list[dict[str, Any]]],
    prefect_server: PrefectServer,
    model_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, dict[str, Any]]]:
    """One message of each kind, after all four have happened, and no other has come."""
    address, received = inbox
    assert len(deploy(address, None, TAG)) == len(KINDS)

    @flow(name="promoting")
    def promoting() -> None:
        champion_promoted("street", "0123456789abcdef", 7, f"better {HOSTILE}", "fedcba9876543210")

    folder = tmp_path_factory.mktemp("photos")
    (folder / "good.jpg").write_bytes(jpeg(40, 30, seed=1))
    (folder / "bad.jpg").write_bytes(b"no image")
    job = SegmentJob(
        source=str(folder), output=str(folder.parent / "labels"), model=str(model_dir), device="cpu", max_error_rate=0.1
    )
    with pytest.MonkeyPatch.context() as patch, tags(TAG):
        segment_in_process(patch)
        with pytest.raises(InputError):
            segment(job.model_copy(update={"source": f"/nowhere/{HOSTILE}"}))
        with pytest.raises(TooManyErrors):
            segment(job)
        promoting()
        with get_client(sync_client=True) as client:
            due = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=1))
            client.create_flow_run(segment, parameters={"job": {"source": "late"}}, name="due", state=due, tags=[TAG])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(received) < len(KINDS):
        assert time.monotonic() < deadline, received
        time.sleep(0.1)
    time.sleep(1.0)  # a second message about one of them would have come
    yield {message["kind"]: message for message in received} | {"count": {"of": len(received)}}
    remove()


def test_each_of_the_four_is_told_once(messages: dict[str, dict[str, Any]]) -> None:
    assert messages.keys() == {*KINDS, "count"}
    assert messages["count"]["of"] == len(KINDS)


def test_a_message_says_which_run_what_is_wrong_and_where_to_look(
    messages: dict[str, dict[str, Any]], prefect_server: PrefectServer
) -> None:
    runs = {str(run.id) for run in runs_of("segment")}
    for kind in ("failed", "late", "too_many_errors"):
        assert messages[kind]["run_id"] in runs
    for kind in KINDS:
        page = f"{prefect_server.api.removesuffix('/api')}/runs/flow-run/{messages[kind]['run_id']}"
        assert messages[kind]["url"] == page
        assert messages[kind]["text"].endswith(page)
    assert "InputError" in messages["failed"]["text"]
    assert "Retry" in messages["failed"]["text"]
    assert "50 % of 2 images failed" in messages["too_many_errors"]["text"]
    assert "`due` has not started" in messages["late"]["text"]
    assert "promotion 7" in messages["champion"]["text"]
    assert "`fcn registry promote street fedcba9876543210 --reason ...`" in messages["champion"]["text"]


def test_nothing_from_outside_is_more_than_text(messages: dict[str, dict[str, Any]]) -> None:
    for kind in ("failed", "champion"):
        text = messages[kind]["text"]
        assert "[click](https://evil.example)" in text
        assert text.replace("\n", "").isprintable()
        assert "<" not in text
        assert text.count("`") % 2 == 0
        codes = text.split("`")[1::2]
        assert any("click" in code for code in codes)
        assert "click" not in "".join(text.split("`")[::2])


def test_slack_shows_what_came_from_outside_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slack itself is not to be had: what would be posted there."""
    posted = []

    def request(_method: str, _url: str, data: str, **_: object) -> requests.Response:
        posted.append(json.loads(data))
        answer = requests.Response()
        answer.status_code, answer._content = 200, b"ok"
        return answer

    monkeypatch.setattr(requests, "request", request)
    (failed,) = (each for each in notifications("fcn") if each.kind == "failed")
    resource = {"name": HOSTILE, "id": "prefect.flow-run.1", "prefect.state-message": f"<@U123> {HOSTILE} & more"}
    text = render_user_template_sync(body(failed), {"event": {"resource": resource, "payload": {}}, "flow": None})
    block = SlackWebhook(url="https://hooks.slack.com/services/T00000000/B00000000/" + "x" * 24)
    block.notify(text, failed.name)
    (sent,) = posted
    shown = json.dumps(sent, ensure_ascii=False)
    assert "evil.example" in shown
    assert "&amp; more" in shown
    for mark in ("<!channel", "<@U123", "<https://evil"):
        assert mark not in shown


def test_the_same_again_makes_no_second_automation_and_remove_leaves_none(prefect_server: PrefectServer) -> None:
    def ours() -> list[str]:
        with get_client(sync_client=True) as client:
            return sorted(each.name for each in client.read_automations() if each.name.startswith("fcn: "))

    deploy("http://127.0.0.1:9/a", None, "nobody")
    deploy("http://127.0.0.1:9/b", None, "nobody")
    assert ours() == sorted(each.name for each in notifications(""))
    assert len(remove()) == len(KINDS)
    assert ours() == []
    with get_client(sync_client=True) as client, pytest.raises(ObjectNotFound):
        client.read_block_document_by_name(WEBHOOK_BLOCK, "webhook")


@pytest.mark.parametrize(
    ("webhook", "slack", "wrong"),
    [
        (None, None, "FCN_NOTIFY_WEBHOOK"),
        ("hooks.example.com/secret", None, "--webhook is no address"),
        ("file:///etc/secret", None, "--webhook is no address"),
        (None, "https://hooks.slack.example/secret", "--slack is no incoming webhook"),
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(
    prefect_server: PrefectServer, webhook: str | None, slack: str | None, wrong: str
) -> None:
    with pytest.raises(InputError, match=wrong) as refused:
        deploy(webhook, slack, "fcn")
    assert "secret" not in str(refused.value)
