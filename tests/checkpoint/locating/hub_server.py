"""A small stand-in for the Hugging Face hub on 127.0.0.1, with faults on demand."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes]
    """By address path, `/owner/name/resolve/revision/file`."""
    endpoint: str = ""
    cuts: list[int] = field(default_factory=list)
    """Per request for content: drop the connection after so many bytes; an empty list serves whole."""
    statuses: list[int] = field(default_factory=list)
    """Answered first, one a request."""
    ignores_ranges: bool = False
    part_start: str | None = None
    """Replaces the stated start of a part."""
    location: str | None = None
    """Replaces where content is said to lie."""
    drip_s: float | None = None
    """Send a byte this often, seconds, and never end."""
    endless_head: bool = False
    """Answer with interim replies for ever."""
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """(path, Range, Authorization) of every request."""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        hub = self.hub
        wanted = self.headers.get("Range")
        hub.asked.append((self.path, wanted, self.headers.get("Authorization")))
        if hub.endless_head:
            with suppress(OSError):
                while hub.endless_head:
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.01)
        elif hub.statuses:
            self.send_error(hub.statuses.pop(0))
        elif self.path in hub.files:
            # The hub keeps large files on another host, which must never see the token.
            self.send_response(302)
            self.send_header("Location", hub.location or f"{hub.endpoint}/store{self.path}")
            self.end_headers()
        elif self.path.removeprefix("/store") in hub.files:
            self._send(hub.files[self.path.removeprefix("/store")], wanted)
        else:
            self.send_error(404)

    def _send(self, content: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and not self.hub.ignores_ranges else 0
        self.send_response(206 if start else 200)
        if start:
            stated = start if self.hub.part_start is None else self.hub.part_start
            self.send_header("Content-Range", f"bytes {stated}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.hub.drip_s is not None:
            with suppress(OSError):
                for byte in content[start:]:
                    self.wfile.write(bytes([byte]))
                    time.sleep(self.hub.drip_s)
            return
        end = start + self.hub.cuts.pop(0) if self.hub.cuts else len(content)
        with suppress(ConnectionError):  # the client may hang up first
            self.wfile.write(content[start:end])

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test output quiet."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve `files` on a free port of 127.0.0.1 for the length of the block."""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
