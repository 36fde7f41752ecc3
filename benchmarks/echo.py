"""The floor: a bare `grpc.aio` server with uvloop that parses a ModelInferRequest and answers its tensor, no more.

python -m benchmarks.echo PORT
"""

import sys
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import service_pb2


async def answer(request: Any, context: Any) -> Any:
    response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    response.outputs.add(name="y", datatype="FP32", shape=[1, 4])
    response.raw_output_contents.append(request.raw_input_contents[0])
    return response


async def main(port: int) -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        answer, service_pb2.ModelInferRequest.FromString, service_pb2.ModelInferResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
