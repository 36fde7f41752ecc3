"""The gRPC side of the web edge: channels, and what of a request's headers goes along."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from google.protobuf.message import Message
from grpc import aio
from starlette.datastructures import Headers

from gateway_rest.contracts import Binding
from gateway_rest.errors import MALFORMED, Refusal, pairs
from gateway_rest.settings import GatewaySettings
from services.common.errors import InvalidArgument
from services.common.rpc.addresses import EDGE_KEY
from services.common.signatures import DIGEST, INPUT, SIGNATURE

Metadata = list[tuple[str, str]]

# 64 MiB, the largest message of the platform.
_MAX_MESSAGE = 64 * 1024 * 1024
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
]

# Of a request, to the call. Everything else, and above all `mercat-internal-…`, stays outside.
_FORWARDED = (
    "authorization", "x-api-key", "idempotency-key", "traceparent", "tracestate", "stripe-signature", INPUT, SIGNATURE,
    DIGEST,
)  # fmt: skip
_OWN, _INTERNAL = "mercat-", "mercat-internal-"

# Of a call's metadata, to the response.
_ANSWERED = (
    "retry-after", "ratelimit", "ratelimit-policy", "idempotent-replayed", "traceparent", "deprecation", "sunset",
    "link",
)  # fmt: skip

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_UNIT = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def metadata(headers: Headers) -> Metadata:
    """What of a request's headers goes with the call. Raises Refusal for values that gRPC cannot carry."""
    found: Metadata = []
    for name, value in headers.items():
        own = name.startswith(_OWN) and not name.startswith(_INTERNAL) and not name.endswith("-bin")
        if (not own and name not in _FORWARDED) or name == EDGE_KEY:
            continue
        if not all(" " <= character <= "~" for character in value):
            raise Refusal(InvalidArgument(f"the header {name} may only hold visible ASCII", reason=MALFORMED))
        found.append((name, value))
    return found


def timeout(headers: Headers, default: float | None) -> float | None:
    """Seconds the client gives the call, by gRPC's own `grpc-timeout`. Raises Refusal when that is malformed."""
    text = headers.get("grpc-timeout")
    if text is None:
        return default
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise Refusal(InvalidArgument("grpc-timeout is digits and one of H M S m u n", reason=MALFORMED))
    return int(match[1]) * _UNIT[match[2]]


def headers_of(*metadata: object) -> dict[str, str]:
    """The response headers in a call's initial and trailing metadata."""
    found: dict[str, str] = {}
    for part in metadata:
        for name, value in pairs(part):
            public = name.startswith(_OWN) and not name.startswith(_INTERNAL)
            if isinstance(value, str) and (public or name in _ANSWERED):
                found[name] = value
    return found


class Upstream:
    """The platform's gRPC services, behind a front door or each where it is. Opened within a running event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises ValueError when the settings name nothing to call."""
        door = settings.grpc or settings.control
        if not door:
            raise ValueError("set MERCAT_GRPC, or MERCAT_CONTROL: the gateway has nothing to call")
        workers = door if settings.grpc or not settings.gateway_workers else settings.gateway_workers
        self._door = aio.insecure_channel(door, options=_OPTIONS)
        self._workers = self._door if workers == door else aio.insecure_channel(_target(workers), options=_OPTIONS)

    def _channel(self, binding: Binding) -> aio.Channel:
        return self._workers if binding.name.startswith("/mercat.inference.") else self._door

    def _codec(self, binding: Binding) -> Mapping[str, Any]:
        return {
            "request_serializer": binding.request.SerializeToString,
            "response_deserializer": binding.reply.FromString,
        }

    def unary_unary(self, binding: Binding) -> aio.UnaryUnaryMultiCallable[Message, Message]:
        return self._channel(binding).unary_unary(binding.name, **self._codec(binding))

    def unary_stream(self, binding: Binding) -> aio.UnaryStreamMultiCallable[Message, Message]:
        return self._channel(binding).unary_stream(binding.name, **self._codec(binding))

    def stream_unary(self, binding: Binding) -> aio.StreamUnaryMultiCallable[Message, Message]:
        return self._channel(binding).stream_unary(binding.name, **self._codec(binding))

    def stream_stream(self, binding: Binding) -> aio.StreamStreamMultiCallable[Message, Message]:
        return self._channel(binding).stream_stream(binding.name, **self._codec(binding))

    async def ready(self, seconds: float) -> bool:
        """Whether the platform's gRPC side can be reached within that time."""
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        try:
            stub = health_pb2_grpc.HealthStub(self._door)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=seconds)
        except aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        await self._door.close(None)
        if self._workers is not self._door:
            await self._workers.close(None)


def _target(addresses: str) -> str:
    hosts = [address.strip() for address in addresses.split(",") if address.strip()]
    numeric = all(re.fullmatch(r"[\d.]+:\d+", host) for host in hosts)
    return "ipv4:" + ",".join(hosts) if numeric else hosts[0]


async def send(call: aio.StreamUnaryCall[Message, Message], messages: AsyncIterator[Message]) -> None:
    """Writes a call's requests as they come; cancels it when they break off.

    A service may end a call before it has read all. `call.write` then puts an INTERNAL of its own in the place of the
    status that is on its way, where it was just sending; what it is made of does not."""
    try:
        await call.wait_for_connection()
        async for message in messages:
            if call.done():
                return
            await call._cython_call.send_serialized_message(message.SerializeToString())  # type: ignore[attr-defined]
        await call.done_writing()
    except (aio.AioRpcError, aio.InternalError):
        return  # the call has ended: who awaits it learns how
    except BaseException:
        call.cancel()
        raise
