"""Calls of methods that the same process serves: the pipeline runs, but nothing is serialised and nothing crosses a
socket, which for a batch of usage costs as much as all the rest. Who calls does not change the request afterwards."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc

Metadata = Sequence[tuple[str, str | bytes]]
Handler = Callable[[Any, Any], Coroutine[Any, Any, Any]]


class LocalError(grpc.RpcError):
    """How such a call failed, told as a channel's client tells it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Metadata = ()) -> None:
        super().__init__(details)
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]
        return self._trailing


class LocalContext:
    """What the pipeline and handlers ask a call's context for. `deadline` is on the event loop's clock, seconds."""

    def __init__(self, metadata: Metadata, deadline: float) -> None:
        self._metadata, self._deadline = metadata, deadline

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float:
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0)

    def peer(self) -> str:
        return "local"

    def set_trailing_metadata(self, trailing: Metadata) -> None:
        """Nobody reads it: an internal caller takes the reply alone."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> None:
        raise LocalError(code, details, trailing)


async def call(handler: Handler, request: Any, metadata: Metadata, timeout: float) -> Any:
    """Answers as the handler does, with a reply of its own. Raises LocalError."""
    context = LocalContext(metadata, asyncio.get_running_loop().time() + timeout)
    try:
        async with asyncio.timeout(timeout):
            # In a task of its own, as every call: the handler's call is not the caller's.
            reply = await asyncio.create_task(handler(request, context))
    except TimeoutError:
        raise LocalError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed") from None
    copy = type(reply)()  # what a handler answers may be what it keeps
    copy.CopyFrom(reply)
    return copy
