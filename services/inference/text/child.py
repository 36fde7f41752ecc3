"""The process of one decoder model, seen from its worker: it is started, asked, listened to and ended here."""

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.common.errors import MercatError
from services.common.texts import Piece
from services.common.texts.limits import Limits
from services.inference.engines import EngineCrashed
from services.inference.engines.confined import environment
from services.inference.engines.wire import HEAD
from services.inference.telemetry import TextFigures
from services.inference.text import Prepared, wire
from services.inference.text.news import Event, Stats

log = logging.getLogger(__name__)
_LOAD = 120.0  # seconds
_GRACE = 5.0  # seconds


class Stream:
    """A call's pieces until they are fetched. `left`: tokens that may still come."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.left = prepared.most_tokens
        self.pieces: list[Piece] = []
        self.error: MercatError | None = None
        self.ended = False
        self.news = asyncio.Event()

    def take(self, event: Event) -> None:
        """Raises ValueError when it is more than was asked for."""
        if event.cached is not None:
            if not 0 <= event.cached < self.prepared.input_tokens:
                raise ValueError("more of the prompt was known than there is")
            self.prepared.cached_tokens = event.cached
        self.left -= sum(piece.tokens for piece in event.pieces)
        if self.left < 0:
            raise ValueError("the answers are longer than was asked for")
        self.pieces += event.pieces
        if event.end:
            self.end(event.error)
        self.news.set()

    def end(self, error: MercatError | None) -> None:
        self.ended, self.error = True, error
        self.news.set()


class Child(asyncio.Protocol):
    """One process, the questions that are open, and its calls, by number. `lost` is called when it ended by itself.
    One that says nothing for `patience` seconds while it should is ended."""

    def __init__(self, figures: TextFigures, patience: float, lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._figures, self._patience, self._lost = figures, patience, lost
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._streams: dict[int, Stream] = {}
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._heard = 0.0  # when there was news, on the event loop's clock
        self._alarm: asyncio.TimerHandle | None = None
        self._stopping = False
        self.alive = False
        self.context_tokens = 0
        self.ready: set[int] = set()  # prompts that it keeps
        self.stats = Stats(0)

    async def start(self, path: Path, limits: Limits, memory_mib: int, kind: int) -> None:
        """`kind`: LOAD or INTAKE. Raises EngineFailed, EngineCrashed."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.inference.text.host", str(theirs.fileno()), str(memory_mib),
                pass_fds=[theirs.fileno()], env=environment(), stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        await self._loop.create_unix_connection(lambda: self, sock=ours)
        self.alive = True
        self.context_tokens = int(
            await self.ask(kind, 0, {"path": str(path), "limits": asdict(limits)}, max(_LOAD, self._patience))
        )
        self._look()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= HEAD.size:
            size, kind, number = HEAD.unpack_from(buffer, at)
            start = at + HEAD.size
            if size > wire.MOST:
                self.kill("a frame of it is too large")
                return
            if len(buffer) - start < size:
                break
            try:
                self._take(kind, number, json.loads(buffer[start : start + size]))
            except (ValueError, TypeError, KeyError, RecursionError) as e:
                self.kill(f"what it says is not understood: {e!r}")
                return
            at = start + size
        del buffer[:at]

    def _take(self, kind: int, number: int, body: Any) -> None:
        self._heard = self._loop.time()
        if kind == wire.NEWS:
            events, stats = wire.told(body)
            for event in events:
                if (stream := self._streams.get(event.number)) is not None:
                    stream.take(event)
            self._figures.told(stats, self.stats)
            self.stats = stats
            return
        answer = wire.raised(body) if kind == wire.FAILED else None
        future = self._questions.pop(number, None)
        if future is None or future.done():
            return
        if answer is not None:
            future.set_exception(answer)
        else:
            future.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        if self._alarm is not None:
            self._alarm.cancel()
        self._figures.gone()
        if not self._stopping:
            self._lost()
        for future in self._questions.values():
            if not future.done():
                future.set_exception(_crashed())
        for stream in self._streams.values():
            if not stream.ended:
                stream.end(_crashed())
        self._questions.clear()
        self.ready.clear()

    def send(self, kind: int, number: int, body: Any = None) -> None:
        if self.alive and self._transport is not None:
            self._transport.write(wire.message(kind, number, body))

    async def ask(self, kind: int, number: int, body: Any, patience: float = 0.0) -> Any:
        """Raises what was answered, EngineCrashed."""
        if not self.alive:
            raise _crashed()
        future = self._questions[number] = self._loop.create_future()
        self.send(kind, number, body)
        try:
            async with asyncio.timeout(patience or self._patience):
                return await asyncio.shield(future)
        except TimeoutError:
            self.kill("it does not answer")
            return await future
        except asyncio.CancelledError:
            self._questions.pop(number, None)
            raise

    def _look(self) -> None:
        if self._streams and self._loop.time() - self._heard > self._patience:
            self.kill("it makes no token")
            return
        self._alarm = self._loop.call_later(self._patience / 4, self._look)

    def open(self, prepared: Prepared) -> Stream:
        if not self._streams:
            self._heard = self._loop.time()
        self.ready.discard(prepared.number)
        stream = self._streams[prepared.number] = Stream(prepared)
        return stream

    def close(self, stream: Stream) -> None:
        del self._streams[stream.prepared.number]
        if not stream.ended:
            self.send(wire.CANCEL, stream.prepared.number)

    @property
    def busy(self) -> bool:
        return bool(self._streams)

    def kill(self, why: str) -> None:
        log.error("a decoder's process is ended: %s", why)
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    async def stop(self) -> None:
        """Ends it, and waits until it has."""
        self._stopping = True
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(_GRACE):
                    await self._process.wait()
            except TimeoutError:
                self.kill("it does not end")
                await self._process.wait()


def _crashed() -> EngineCrashed:
    return EngineCrashed("the model brought its engine down")
