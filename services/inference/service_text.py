"""The text contract: Generate, Chat, Embed, CountTokens; and what the platform itself has encoded."""

from collections.abc import AsyncIterator, Awaitable

from mercat.inference.v1 import encoding_pb2, encoding_pb2_grpc, text_pb2, text_pb2_grpc

from services.common.errors import InvalidFields, Violation
from services.common.rpc.context import Context, current
from services.common.texts import BadPrompt, Prompt
from services.common.texts.messages import conversation, options, prompt
from services.inference.text.embedding import Embedder
from services.inference.text.serving import TextPath


class TextServicer(text_pb2_grpc.TextServiceServicer):
    """Serves `mercat.inference.v1.TextService`."""

    def __init__(self, text: TextPath, embedder: Embedder) -> None:
        self._text = text
        self._embedder = embedder

    def Generate(self, request: text_pb2.GenerateRequest, context: Context) -> AsyncIterator[text_pb2.GenerateResponse]:
        if request.echo and not request.prompt:
            raise BadPrompt("echo needs `prompt`", violations=[Violation("echo", "needs `prompt`")])
        return self._text.stream(
            current(), request.model, prompt(request.prompt, request.prompt_tokens), options(request.sampling),
            text_pb2.GenerateResponse, level=request.priority, echo=request.prompt if request.echo else "",
        )  # fmt: skip

    def Chat(self, request: text_pb2.ChatRequest, context: Context) -> AsyncIterator[text_pb2.ChatResponse]:
        return self._text.stream(
            current(), request.model, conversation(request.messages, request.tools), options(request.sampling),
            text_pb2.ChatResponse, level=request.priority,
        )  # fmt: skip

    def Embed(self, request: text_pb2.EmbedRequest, context: Context) -> Awaitable[text_pb2.EmbedResponse]:
        return self._embedder.embed(current(), request)

    async def CountTokens(self, request: text_pb2.CountTokensRequest, context: Context) -> text_pb2.CountTokensResponse:
        if bool(request.prompt) == bool(request.messages):
            raise InvalidFields(violations=[Violation("prompt", "give either `prompt` or `messages`")])
        deployment = await self._text.path.deployments.get(request.model, current().principal)
        proto = deployment.proto
        if deployment.decodes or request.messages:
            asked = conversation(request.messages, request.tools) if request.messages else Prompt(text=request.prompt)
            proto, tokens, most = await self._text.count(current(), request.model, asked)
        else:
            tokens, most = await self._embedder.count(deployment, request.prompt)
        return text_pb2.CountTokensResponse(
            model=proto.model, version=proto.version, tokens=tokens, context_tokens=most
        )


class EncodingServicer(encoding_pb2_grpc.EncodingServiceServicer):
    """Serves `mercat.inference.v1.EncodingService`."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def EncodeTexts(
        self, request: encoding_pb2.EncodeTextsRequest, context: Context
    ) -> Awaitable[encoding_pb2.EncodeTextsResponse]:
        return self._embedder.encode(current(), request)
