"""What takes a site's notifications, and writes them where a person reads them."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from deploy.local.messages import LARGEST, server
from deploy.local.parts import answers, free_port


@pytest.fixture
def address() -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}/secret"
    receiver = server(url)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield url
    receiver.shutdown()
    receiver.server_close()


def test_a_message_is_printed_and_steers_no_terminal(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answers(address)
    assert httpx.post(address, json={"kind": "failed", "text": "Failed: `a\x1b[2J`\nhttp://page"}).status_code == 204
    time, first, second = capsys.readouterr().out.splitlines()
    assert time.count(":") == 2
    assert (first, second) == (r"  Failed: `a\x1b[2J`", "  http://page")


def test_nobody_writes_there_who_does_not_know_the_path(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert httpx.post(address.replace("secret", "other"), json={"text": "forged"}).status_code == 404
    assert httpx.post(address, content=b"[1]").status_code == 400
    assert httpx.post(address, content=b" " * (LARGEST + 1)).status_code == 404
    assert capsys.readouterr().out == ""
