"""Where a site's notifications go, in place of a channel of people: each is printed, and so ends up in the part's log.

`python -m deploy.local.messages`; the address is FCN_NOTIFY_WEBHOOK, whose path is a secret of the site's processes.
"""

import json
import os
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

from deploy.local.settings import NOTIFY
from fcn_core.text.printable import printable

LARGEST = 65_536
"""Bytes of a message; ours have two thousand."""


class Receiver(BaseHTTPRequestHandler):
    """Takes JSON objects with a `text` at one path, and nothing else."""

    path_wanted = ""
    timeout = 5.0

    def do_GET(self) -> None:
        """Only for who asks whether it is there."""
        self.send_error(404)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != self.path_wanted or not length.isdecimal() or int(length) > LARGEST:
            self.send_error(404)
            return
        try:
            lines = str(json.loads(self.rfile.read(int(length)))["text"]).splitlines()
        except (ValueError, KeyError, TypeError):
            self.send_error(400)
            return
        print(datetime.now().strftime("%H:%M:%S"), *(f"\n  {printable(line)}" for line in lines), sep="", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are no messages."""


def server(url: str) -> HTTPServer:
    """One that takes messages at that address of this machine."""
    address = urlsplit(url)
    kind = type("ReceiverThere", (Receiver,), {"path_wanted": address.path})
    return HTTPServer((str(address.hostname), address.port or 0), kind)


def main() -> None:
    server(os.environ[NOTIFY]).serve_forever()


if __name__ == "__main__":
    main()
