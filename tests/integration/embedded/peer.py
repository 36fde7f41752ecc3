"""A small process of each kind that Mercat has, for tests of what is around them: `peer.py grpc|http HOST:PORT`.

The gRPC one answers the health service, and every public method of the contracts, in a way that the test asks for by
metadata: `test-error: CODE` fails with that code and an ErrorInfo, `test-sleep: SECONDS` answers late, anything else
answers an empty reply (streams: two of them). It sends back, as JSON in a trailer, the metadata it was given.
"""

import asyncio
import json
import os
import signal
import sys

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status


class Anything(grpc.GenericRpcHandler):
    """Handles whatever method is called."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        if details.method.startswith("/grpc."):
            return None
        if "Internal" in name:
            return None
        if name in ("StreamUsage", "DownloadArtifact"):
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await _behave(context)
        return REPLY if request != b"echo" else request

    async def _stream(self, request: bytes, context: grpc.aio.ServicerContext):  # type: ignore[no-untyped-def]
        await _behave(context)
        yield REPLY
        yield REPLY


REPLY = b""


async def _behave(context: grpc.aio.ServicerContext) -> None:
    metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    trailers = [("mercat-metadata", json.dumps(metadata)), ("mercat-pid", str(os.getpid()))]
    if load := os.environ.get("PEER_LOAD"):
        trailers.append(("endpoint-load-metrics", f"TEXT application_utilization={load},rps_fractional=100"))
    context.set_trailing_metadata(tuple(trailers))
    if "test-sleep" in metadata:
        await asyncio.sleep(float(metadata["test-sleep"]))
    if "test-error" in metadata:
        info = error_details_pb2.ErrorInfo(reason="TEST_REASON", domain="mercat", metadata={"model": "ada/echo"})
        detail = any_pb2.Any()
        detail.Pack(info)
        code = code_pb2.Code.Value(metadata["test-error"])
        status = status_pb2.Status(code=code, message='said "so"', details=[detail])
        await context.abort_with_status(rpc_status.to_status(status))
    if "x-envoy-original-method" in metadata:  # over REST, as Mercat's own server does
        await context.send_initial_metadata(tuple(trailers[:2]))


async def serve_grpc(listen: str, stop: asyncio.Event) -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers((Anything(),))
    server.add_insecure_port(listen)
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await stop.wait()
    await servicer.enter_graceful_shutdown()
    await asyncio.sleep(0.3)
    await server.stop(5)


async def serve_http(listen: str, stop: asyncio.Event) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        body = json.dumps({"gateway": path}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(f"content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    host, _, port = listen.rpartition(":")
    server = await asyncio.start_server(answer, host, int(port))
    await stop.wait()
    server.close()


async def main(kind: str, listen: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await (serve_grpc if kind == "grpc" else serve_http)(listen, stop)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
