"""Messages to JetStream whose acknowledgement calls wait for, on a connection that does nothing else.

A call alone waits for its record from the moment it is written to the moment it is acknowledged. In nats-py a message
and its answer pass through four tasks, each a turn of the event loop; here they pass through none. While this
connection is not there, nats-py's carries the messages: it also knows where the servers are, and how to sign in where
a name and a password are not enough.

The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import ParseResult

from services.common.events import Events

log = logging.getLogger(__name__)
_CONNECT = 5.0  # seconds to connect
_PAUSE = 1.0  # seconds before it is tried again


class NotStored(Exception):
    """JetStream did not acknowledge a message: it may be stored or not."""


class Publisher:
    """Publishes to one subject. `keep` runs beside it."""

    def __init__(self, events: Events, subject: str) -> None:
        self._events = events
        self._subject = subject
        self._connection: _Connection | None = None

    def publish(self, payload: bytes, patience: float, stored: Callable[[], None]) -> "asyncio.Future[None]":
        """Sends a message at once. `stored` is called the moment that it is acknowledged; then the future is done. It
        fails with NotStored, or a nats error, after `patience` seconds at most."""
        if self._connection is None:
            return asyncio.ensure_future(self._publish(payload, patience, stored))
        return self._connection.publish(payload, patience, stored)

    async def _publish(self, payload: bytes, patience: float, stored: Callable[[], None]) -> None:
        await self._events.js.publish(self._subject, payload, timeout=patience)
        stored()

    async def keep(self) -> None:
        """Has a connection wherever nats-py has one, for ever."""
        said = ""
        while True:
            where = self._events.client.connected_url
            if where is not None and where.scheme == "nats" and where.hostname and where.port:
                try:
                    connection = await _connect(where, where.hostname, where.port, self._subject)
                except (OSError, TimeoutError, NotStored) as e:
                    if str(e) != said:
                        said = str(e)
                        log.warning("records go by the client library: %s", said or type(e).__name__)
                else:
                    self._connection, said = connection, ""
                    try:
                        await connection.lost.wait()
                    finally:
                        self._connection = None
                        connection.give_up()
            await asyncio.sleep(_PAUSE)


async def _connect(where: ParseResult, host: str, port: int, subject: str) -> "_Connection":
    """Raises OSError, TimeoutError, NotStored when this server is none for a connection like this."""
    async with asyncio.timeout(_CONNECT):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(where, subject), host, port
        )
        try:
            await connection.ready
        except BaseException:
            connection.give_up()
            raise
    return connection


@dataclass(slots=True)
class _Message:
    """One that waits for its acknowledgement."""

    future: "asyncio.Future[None]"
    stored: Callable[[], None]
    timer: asyncio.TimerHandle

    def end(self, error: str) -> None:
        self.timer.cancel()
        if error:
            if not self.future.done():
                self.future.set_exception(NotStored(error))
            return
        self.stored()
        if not self.future.done():
            self.future.set_result(None)


class _Connection(asyncio.Protocol):
    """`ready` when the server has let it in; `lost` when it is no more."""

    def __init__(self, where: ParseResult, subject: str) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.lost = asyncio.Event()
        self._loop = loop
        self._where = where
        inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._listen = f"SUB {inbox}.* 1\r\n".encode()
        self._head = f"PUB {subject} {inbox}.".encode()
        self._published = 0
        self._open: dict[int, _Message] = {}
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def publish(self, payload: bytes, patience: float, stored: Callable[[], None]) -> "asyncio.Future[None]":
        """As Publisher's; who runs out of patience ends the connection, for nothing is known of it."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._transport is None:
            future.set_exception(NotStored("the connection was lost"))
            return future
        self._published = number = self._published + 1
        self._transport.write(b"%b%d %d\r\n%b\r\n" % (self._head, number, len(payload), payload))
        self._open[number] = _Message(future, stored, self._loop.call_later(patience, self.give_up))
        return future

    def give_up(self) -> None:
        """Ends it, and what waits for it."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.lost.set()
        if not self.ready.done():
            self.ready.set_exception(NotStored("the connection was lost"))
        while self._open:
            self._open.popitem()[1].end("the connection was lost")

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            line, after = data[at:end], end + 2
            if line.startswith((b"MSG ", b"HMSG ")):
                words = line.split()
                size = int(words[-1])
                if len(data) < after + size + 2:
                    break
                self._answer(int(words[1].rpartition(b".")[2]), data[after : after + size])
                after += size + 2
            else:
                self._heard(line)
            at = after
        self._buffer = data[at:]

    def _answer(self, number: int, body: bytes) -> None:
        message = self._open.pop(number, None)
        if message is None:
            return
        # What comes with headers is no answer of JetStream's: there is nobody who listens to the subject.
        answer = json.loads(body) if body.startswith(b"{") else {"error": {"description": "no stream takes it"}}
        error = answer.get("error")
        message.end(str(error.get("description")) if error else "")

    def _heard(self, line: bytes) -> None:
        """A line that is no message."""
        if line.startswith(b"PING"):
            self._write(b"PONG\r\n")
        elif line.startswith(b"PONG"):
            if not self.ready.done():
                self.ready.set_result(None)
        elif line.startswith(b"INFO") and not self.ready.done():
            self._sign_in(json.loads(line[5:]))
        elif line.startswith(b"-ERR"):
            self._refuse(line[5:].decode(errors="replace").strip("'"))

    def _sign_in(self, server: Mapping[str, Any]) -> None:
        if server.get("tls_required"):
            self._refuse("the server wants TLS")
            return
        options: dict[str, object] = {
            "verbose": False, "pedantic": False, "lang": "python", "version": "1", "protocol": 1, "headers": True,
            "no_responders": True, "name": "records",
        }  # fmt: skip
        if self._where.password is not None:
            options |= {"user": self._where.username, "pass": self._where.password}
        elif self._where.username is not None:
            options["auth_token"] = self._where.username
        self._write(b"CONNECT %b\r\n%bPING\r\n" % (json.dumps(options).encode(), self._listen))

    def _refuse(self, why: str) -> None:
        if self.ready.done():
            log.warning("nats: %s", why)
        else:
            self.ready.set_exception(NotStored(why))
        self.give_up()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
