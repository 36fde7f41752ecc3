"""Mercat's own inference contract: Predict, alone, in batches and over streams, Quote, GetSignature."""

from collections.abc import AsyncIterator, Awaitable

from mercat.inference.v1 import inference_pb2, inference_pb2_grpc

from services.common.predict import read_inputs, write_outputs
from services.common.rpc.context import Call, Context, current
from services.inference.batches import Batch, stream
from services.inference.hotpath import HotPath
from services.inference.quotes import Quotes

_LAST = 10  # the last class that a request can name


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Serves `mercat.inference.v1.InferenceService`."""

    def __init__(self, path: HotPath, quotes: Quotes) -> None:
        self._path = path
        self._quotes = quotes

    def Predict(
        self, request: inference_pb2.PredictRequest, context: Context
    ) -> Awaitable[inference_pb2.PredictResponse]:
        return self.predict(current(), request)

    async def predict(
        self, call: Call, request: inference_pb2.PredictRequest, *, level: int = 0
    ) -> inference_pb2.PredictResponse:
        """Runs a request as a call. `level` is its priority class whatever the request says; 0: what that says."""
        result = await self._path.run(
            call, request.model, lambda s: read_inputs(request, s), lambda s: s.wanted(request.outputs),
            level=level or request.priority, fresh=request.no_cache,
        )  # fmt: skip
        proto, signature = result.deployment.proto, result.deployment.signature
        response = inference_pb2.PredictResponse(
            model=proto.model, version=proto.version, request_id=call.request_id, cost_nanos=result.cost,
            cached=result.cached, cold_start_ms=result.cold_start_ms,
        )  # fmt: skip
        write_outputs(request, result.outputs, signature, response)
        return response

    def predict_behind(
        self, call: Call, request: inference_pb2.PredictRequest
    ) -> Awaitable[inference_pb2.PredictResponse]:
        """Like `predict`, behind the calls of those who wait for an answer."""
        return self.predict(call, request, level=_LAST)

    async def BatchPredict(
        self, request: inference_pb2.BatchPredictRequest, context: Context
    ) -> inference_pb2.BatchPredictResponse:
        call = current()
        response = await Batch(self.predict, call).run(list(request.requests))
        call.trailers.append(("mercat-cost-nanos", str(response.cost_nanos)))
        return response

    def StreamPredict(
        self, requests: AsyncIterator[inference_pb2.StreamPredictRequest | None], context: Context
    ) -> AsyncIterator[inference_pb2.StreamPredictResponse]:
        return stream(self.predict, requests, current())

    async def Quote(self, request: inference_pb2.QuoteRequest, context: Context) -> inference_pb2.QuoteResponse:
        return await self._quotes.quote(current(), request)

    async def GetSignature(
        self, request: inference_pb2.GetSignatureRequest, context: Context
    ) -> inference_pb2.GetSignatureResponse:
        proto = (await self._path.deployments.get(request.model, current().principal)).proto
        return inference_pb2.GetSignatureResponse(model=proto.model, version=proto.version, signature=proto.signature)
