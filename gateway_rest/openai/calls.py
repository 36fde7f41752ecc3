"""One request of the dialect: its body, and the calls of the platform that it becomes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from starlette.requests import Request

from gateway_rest import contracts, exchange, transcode
from gateway_rest.contracts import Binding
from gateway_rest.openai.errors import Invalid, unreadable
from gateway_rest.settings import GatewaySettings
from gateway_rest.upstream import Metadata, Upstream, headers_of, timeout

# Prompts of one request that are generated from at a time, and messages of theirs that may wait for the client.
_AT_ONCE, _WAITING = 8, 64

M = TypeVar("M", bound=Message)
B = TypeVar("B", bound="Body")


class Body(BaseModel):
    """A JSON object of a request: other fields are ignored, null is absent, types are not guessed."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


@cache
def _bindings() -> dict[str, Binding]:
    return {binding.name: binding for binding in contracts.bindings()}


def parsed(text: bytes, kind: type[B], unsupported: Sequence[str]) -> B:
    """Raises Invalid naming the first field that is wrong or is one of `unsupported`, Refusal for what is no JSON."""
    value = transcode.loads(text) if text.strip() else None
    if not isinstance(value, dict):
        raise Invalid("The body of the request must be a JSON object.", code="malformed_request")
    if rb"\ud" in text.lower():
        try:  # a half of a surrogate pair is JSON, but no text
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Invalid("The body holds an escape that is no character.", code="malformed_request") from None
    for name in unsupported:
        if value.get(name) not in (None, [], {}):
            raise Invalid(f"Unsupported parameter: '{name}'.", name, "unsupported_parameter")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise unreadable(error) from None


@dataclass(frozen=True)
class Call:
    """What an endpoint is given."""

    request: Request
    upstream: Upstream
    metadata: Metadata
    settings: GatewaySettings

    async def body(self, kind: type[B], unsupported: Sequence[str] = ()) -> B:
        """Raises Refusal also for a body that is too large or compressed."""
        exchange.plain(self.request)
        text = await exchange.body(self.request, self.settings.gateway_max_json_bytes)
        return await exchange.beside(len(text), lambda: parsed(text, kind, unsupported))

    async def ask(self, name: str, message: Message, reply: type[M]) -> tuple[M, dict[str, str]]:
        """The answer of a unary RPC, and the headers that it came with. Raises AioRpcError."""
        seconds = timeout(self.request.headers, self.settings.gateway_timeout)
        call = self.upstream.unary_unary(_bindings()[name])(message, metadata=self.metadata, timeout=seconds)
        got = await exchange.unless_gone(exchange.result(call), call, self.request)
        assert isinstance(got, reply)
        return got, headers_of(await call.initial_metadata(), await call.trailing_metadata())

    async def stream(
        self, name: str, message: Message, reply: type[M], said: dict[str, str]
    ) -> AsyncGenerator[M, None]:
        """The messages of an RPC that streams; `said` gets the headers that it begins and ends with. Closing it cancels
        the call. Raises AioRpcError."""
        seconds = timeout(self.request.headers, None)
        call = self.upstream.unary_stream(_bindings()[name])(message, metadata=self.metadata, timeout=seconds)
        try:
            begun = False
            while isinstance(got := await call.read(), reply):
                if not begun:
                    begun = True
                    said.update(headers_of(await call.initial_metadata(), ()))
                yield got
            await exchange.end(call)
            said.update(headers_of(await call.initial_metadata(), await call.trailing_metadata()))
        finally:
            call.cancel()


async def merged(streams: Sequence[AsyncGenerator[M, None]]) -> AsyncGenerator[tuple[int, M], None]:
    """What several streams give, as it comes, each with its stream's place; ends with the first error of one."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for message in only:
                yield 0, message
        return
    queue: asyncio.Queue[tuple[int, M] | Exception | None] = asyncio.Queue(_WAITING)
    gate = asyncio.Semaphore(_AT_ONCE)

    async def pump(place: int, stream: AsyncGenerator[M, None]) -> None:
        try:
            async with gate, aclosing(stream):
                async for message in stream:
                    await queue.put((place, message))
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    pumps = [asyncio.create_task(pump(place, stream)) for place, stream in enumerate(streams)]
    left = len(pumps)
    try:
        while left:
            got = await queue.get()
            if isinstance(got, Exception):
                raise got
            if got is None:
                left -= 1
            else:
                yield got
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.wait(pumps)
