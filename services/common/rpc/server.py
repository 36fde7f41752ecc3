"""Builds a gRPC server: wraps each servicer's methods in the pipeline, adds health and reflection, and drains."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import _async as aio_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import _async as aio_reflection
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from mercat.common.v1 import policy_pb2

from services.common.rpc.http2.connection import Limits
from services.common.rpc.http2.server import Http2Server
from services.common.rpc.local import Handler
from services.common.rpc.mutual import Mutual
from services.common.rpc.pipeline import Guard, Pipeline, lenient
from services.common.rpc.policy import policy_of

log = logging.getLogger(__name__)
MAX_MESSAGE = 64 * 1024 * 1024  # bytes
# A servicer and the generated function that registers it.
Registration = tuple[Callable[[Any, Any], None], object]


class _Wrapping:
    """Stands in for the server while generated code registers a servicer, and wraps what it registers."""

    def __init__(self, server: Http2Server, guard: Guard, here: dict[str, Handler]) -> None:
        self.server = server
        self.guard = guard
        self.here = here
        self.services: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Generated code registers the same methods a second time in this older form; the first suffices."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
        wrapped = {
            name: self._wrap(f"/{service}/{name}", handler, descriptor.methods_by_name[name])
            for name, handler in handlers.items()
        }
        self.services.append(service)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def _wrap(self, path: str, handler: Any, method: Any) -> Any:
        pipeline = Pipeline(path, policy_of(method), self.guard, streams_in=handler.request_streaming)
        de, ser = lenient(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary:
            reply_type = GetMessageClass(method.output_type)
            unary = pipeline.unary(handler.unary_unary, reply_type)
            if pipeline.policy.access == policy_pb2.ACCESS_INTERNAL:
                self.here[path] = unary
            return grpc.unary_unary_rpc_method_handler(unary, de, ser)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(pipeline.unary_stream(handler.unary_stream), de, ser)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(pipeline.stream_unary(handler.stream_unary), de, ser)
        return grpc.stream_stream_rpc_method_handler(pipeline.stream_stream(handler.stream_stream), de, ser)


class Server:
    """A gRPC server of any set of services. `here`: the handlers of what Mercat's own services ask it, by path."""

    def __init__(self) -> None:
        self.here: dict[str, Handler] = {}
        self._server = Http2Server(Limits(message=MAX_MESSAGE))
        self._health = aio_health.HealthServicer()
        self._services: list[str] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(self, registration: Registration, guard: Guard) -> None:
        """Adds a servicer behind the pipeline. Raises LookupError when a method declares no policy."""
        register, servicer = registration
        wrapping = _Wrapping(self._server, guard, self.here)
        register(servicer, wrapping)
        self._services += wrapping.services

    def add_raw(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds methods that do for themselves what the pipeline does: the inference hot path and foreign contracts."""
        self._services.append(service)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))

    async def start(
        self,
        address: str,
        reflected: Sequence[str] | None = (),
        *,
        reuse_port: bool = False,
        mutual: Mutual | None = None,
    ) -> None:
        """Binds and serves, and describes the services named in `reflected`; None: describes nothing. With
        `reuse_port` its successor may listen beside it. Raises OSError when the address is taken."""
        if reflected is not None:
            names = [*reflected, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
            described = aio_reflection.ReflectionServicer([*dict.fromkeys(names), reflection.SERVICE_NAME])
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, self._server)
        await self._server.listen(address, reuse_port=reuse_port, tls=mutual.server() if mutual else None)
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, *, notice: float, grace: float) -> None:
        """Says NOT_SERVING, gives the front door `notice` seconds to see it, then lets calls under way end. Without
        notice a successor serves at the address already, and who asks there must not hear that nobody does."""
        if notice:
            for name in ("", *self._services):
                await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
            await asyncio.sleep(notice)
        await self._server.stop(grace)
