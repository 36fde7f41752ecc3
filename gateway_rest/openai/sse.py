"""Server-sent events as OpenAI's clients read them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway_rest import transcode
from gateway_rest.replies import SSE

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return transcode.sse(transcode.dumps(value))


class Events(StreamingResponse):
    """Sends events as they are made, and ends what makes them as soon as nobody reads them any more."""

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        # Proxies that would gather the answer are told not to.
        super().__init__(
            events, headers={**headers, "cache-control": "no-store", "x-accel-buffering": "no"}, media_type=SSE
        )
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
