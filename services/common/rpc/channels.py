"""Channels from one service to another. Calls carry the internal token and the trace of the call under way; errors come
back as the class that was raised over there."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from grpc import aio

from services.common.errors import MercatError, Unavailable, from_rpc_error
from services.common.rpc import local
from services.common.rpc.context import maybe_current
from services.common.rpc.mutual import OVERRIDE, Mutual

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
TOKEN_KEY = "mercat-internal-token"  # noqa: S105 - a header's name
DEFAULT_TIMEOUT = 15.0  # seconds, for an internal call that is given none


def _rebuilt(error: grpc.RpcError) -> MercatError:
    """The error that was raised over there; where nobody is, one that says when to try again."""
    rebuilt = from_rpc_error(error)
    if isinstance(rebuilt, Unavailable) and rebuilt.reason == grpc.StatusCode.UNAVAILABLE.name:
        return Unavailable(rebuilt.message, reason="UPSTREAM_UNAVAILABLE", retry_after=1)
    return rebuilt


class InternalChannel(aio.Channel):
    """What a generated stub takes for a channel: wraps a real one, adds metadata, deadline and error rebuilding. What
    this process serves itself (`here`: handlers by path) does not go through it."""

    def __init__(self, target: str, token: str, mutual: Mutual | None = None) -> None:
        self.target = target
        self.here: Mapping[str, local.Handler] = {}
        self._token = token
        if mutual is None:
            self._channel = aio.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = aio.secure_channel(target, mutual.credentials(), options=[*OPTIONS, OVERRIDE])

    async def __aenter__(self) -> "InternalChannel":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._channel.channel_ready()

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [(TOKEN_KEY, self._token)]
        call = maybe_current()
        if call is not None:
            call.wrote = True  # or what is called may
            if call.traceparent:
                metadata.append(("traceparent", call.traceparent))
        return metadata

    def unary_unary(self, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        method = self._channel.unary_unary(path, *args, **kwargs)

        async def call(request: Any, timeout: float = DEFAULT_TIMEOUT) -> Any:
            handler = self.here.get(path)
            try:
                if handler is not None:
                    return await local.call(handler, request, self._metadata(), timeout)
                return await method(request, timeout=timeout, metadata=self._metadata())
            except grpc.RpcError as e:
                raise _rebuilt(e) from None

        return call

    def unary_stream(self, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        method = self._channel.unary_stream(path, *args, **kwargs)

        async def call(request: Any, timeout: float | None = None) -> AsyncIterator[Any]:
            try:
                async for message in method(request, timeout=timeout, metadata=self._metadata()):
                    yield message
            except grpc.RpcError as e:
                raise _rebuilt(e) from None

        return call

    def stream_unary(self, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        method = self._channel.stream_unary(path, *args, **kwargs)

        async def call(requests: AsyncIterator[Any], timeout: float = DEFAULT_TIMEOUT) -> Any:
            try:
                return await method(requests, timeout=timeout, metadata=self._metadata())
            except grpc.RpcError as e:
                raise _rebuilt(e) from None

        return call

    def stream_stream(self, path: str, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return self._channel.stream_stream(path, *args, **kwargs)
