"""Whether a process answers yet. Each is asked again and again until it says so."""

import asyncio
from typing import Any

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.rpc.mutual import NAME, OVERRIDE, Mutual
from services.embedded.errors import StartError

_SECONDS = 2.0


async def grpc_serving(address: str, service: str = "", mutual: Mutual | None = None) -> bool:
    """By the standard health service."""
    async with _channel(address, mutual) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _channel(address: str, mutual: Mutual | None) -> grpc.aio.Channel:
    if mutual is None:
        return grpc.aio.insecure_channel(address)
    return grpc.aio.secure_channel(address, mutual.credentials(), options=[OVERRIDE])


async def grpc_answers(address: str, method: str) -> bool:
    """Whether a call of `/package.Service/Method` with an empty request reaches a server, whatever that says of it."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            await call(b"", timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return True


async def http_ok(address: str, path: str, mutual: Mutual | None = None) -> bool:
    """By a GET that is answered with 200."""
    host, _, port = address.rpartition(":")
    tls: dict[str, Any] = {"ssl": mutual.client(), "server_hostname": NAME} if mutual else {}
    reader, writer = await asyncio.open_connection(host, int(port), **tls)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), _SECONDS)
        return line.split(b" ")[1:2] == [b"200"]
    finally:
        writer.close()


async def reachable(postgres_url: str, redis_url: str, nats_url: str) -> None:
    """Checks servers that somebody else runs; an empty URL is none. StartError names the first that does not answer."""
    if postgres_url:
        try:
            connection = await asyncpg.connect(postgres_url, timeout=5)
            await connection.close()
        except (OSError, ValueError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise _unreachable("PostgreSQL", "MERCAT_POSTGRES_URL", error) from error
    # The clients are slow to import, and most starts have no use for them.
    if redis_url:
        from redis.asyncio import Redis
        from redis.exceptions import RedisError

        try:
            redis: Redis = Redis.from_url(redis_url, socket_connect_timeout=5, socket_timeout=5)
            await redis.ping()
            await redis.aclose()
        except (OSError, ValueError, TimeoutError, RedisError) as error:
            raise _unreachable("Redis", "MERCAT_REDIS_URL", error) from error
    if nats_url:
        import nats

        try:
            client = await nats.connect(nats_url, connect_timeout=5, allow_reconnect=False, error_cb=_quiet)
            await client.close()
        except (OSError, ValueError, TimeoutError, nats.errors.Error) as error:
            raise _unreachable("NATS", "MERCAT_NATS_URL", error) from error


async def _quiet(error: Exception) -> None:
    return None


def _unreachable(what: str, variable: str, error: Exception) -> StartError:
    said = str(error) or type(error).__name__
    return StartError(f"{what} cannot be reached ({said}); correct {variable}, or unset it to use the embedded server.")
