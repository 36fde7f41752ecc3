"""Somebody's endpoint for webhooks: an HTTP server that remembers what came, and answers as a test says."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

# Of a platform that may post to this machine.
SETTINGS = {"MERCAT_EGRESS_NETWORKS": "127.0.0.0/8", "MERCAT_WEBHOOK_TIMEOUT": "1.5", "MERCAT_TEST_CLOCK": "true"}


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Any:
        """Its JSON, found genuine by the library of others."""
        return Webhook(secret).verify(self.body, dict(self.headers))


@dataclass
class Receiver:
    """`answers`: a status, by path, where it is not 200; `slow`: seconds before an answer, by path."""

    host: str
    port: int = 0
    received: list[Received] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def url(self, path: str = "/") -> str:
        return f"http://{self.host}:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        return [one for one in self.received if one.path == path]

    def wait(self, path: str, count: int = 1, seconds: float = 20.0) -> list[Received]:
        deadline = time.monotonic() + seconds
        while len(found := self.at(path)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} came to {path}"
            time.sleep(0.02)
        return found


@contextmanager
def receiver(host: str = "127.0.0.1") -> Iterator[Receiver]:
    said = Receiver(host)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            said.received.append(Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            time.sleep(said.slow.get(self.path, 0))
            try:
                self.send_response(said.answers.get(self.path, 200))
                for name, value in said.extra.items():
                    self.send_header(name, value)
                self.send_header("content-length", "5")
                self.end_headers()
                self.wfile.write(b"heard")
            except OSError:  # who asked is gone
                self.close_connection = True

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    said.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield said
    finally:
        server.shutdown()
        server.server_close()
