"""`POST /embeddings`: texts as the contract's Embed."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from mercat.inference.v1 import inference_pb2, text_pb2
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from gateway_rest import exchange, replies
from gateway_rest.openai.calls import Body, Call
from gateway_rest.openai.errors import Invalid
from gateway_rest.openai.options import Int32, Positive
from gateway_rest.transcode import dumps

RPC = "/mercat.inference.v1.TextService/Embed"
SIGNATURE = "/mercat.inference.v1.InferenceService/GetSignature"
PARAMS = {"inputs": "input", "prompt": "input"}


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and any(isinstance(one, int | list) for one in value):
        raise PydanticCustomError("tokens", "send text: lists of token ids are not taken here")
    return value


class EmbeddingBody(Body):
    model: str
    input: Annotated[list[str], BeforeValidator(_texts), Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Positive | None = None
    priority: Int32 = 0


async def _check_length(call: Call, model: str, dimensions: int) -> None:
    """Before anything is run: an answer that nobody wanted would be charged. Raises Invalid."""
    request = inference_pb2.GetSignatureRequest(model=model)
    found, _ = await call.ask(SIGNATURE, request, inference_pb2.GetSignatureResponse)
    lengths = {spec.shape[-1] for spec in found.signature.outputs[:1] if spec.shape}
    if lengths != {dimensions}:
        raise Invalid("The model's vectors have one length, and it is not this.", "dimensions", "unsupported_value")


def _answer(asked: EmbeddingBody, got: text_pb2.EmbedResponse) -> bytes:
    as_text = asked.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(one) if as_text else list(one.values)}
        for index, one in enumerate(got.embeddings)
    ]
    usage = {"prompt_tokens": got.input_tokens, "total_tokens": got.input_tokens, "cost_nanos": got.cost_nanos}
    return dumps({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _base64(one: text_pb2.Embedding) -> str:
    """Little-endian float32."""
    return base64.b64encode(struct.pack(f"<{len(one.values)}f", *one.values)).decode()


async def embeddings(call: Call) -> Response:
    asked = await call.body(EmbeddingBody)
    if asked.dimensions is not None:
        await _check_length(call, asked.model, asked.dimensions)
    request = text_pb2.EmbedRequest(model=asked.model, inputs=asked.input, priority=asked.priority)
    got, headers = await call.ask(RPC, request, text_pb2.EmbedResponse)
    text = await exchange.beside(got.ByteSize(), lambda: _answer(asked, got))
    headers = {"mercat-request-id": got.request_id, "mercat-cost-nanos": str(got.cost_nanos), **headers}
    return Response(text, headers=headers, media_type=replies.JSON)
