"""Mercat's own inference contract: Predict, Quote, GetSignature."""

from mercat.inference.v1 import inference_pb2, inference_pb2_grpc

from services.common.rpc.context import Context, current
from services.inference.hotpath import HotPath, Inputs
from services.inference.tensors import BadTensor, Signature, flatten, to_list, to_raw


def read_inputs(request: inference_pb2.PredictRequest | inference_pb2.QuoteRequest, signature: Signature) -> Inputs:
    """The request's tensors as arrays. Raises BadTensor."""
    inputs: Inputs = {}
    for tensor in request.inputs:
        name = tensor.name
        spec = signature.spec(name)
        if name in inputs:
            raise BadTensor(name, "is given twice")
        datatype = tensor.datatype or spec.datatype
        if tensor.HasField("data"):
            if tensor.raw:
                raise BadTensor(name, "give `data` or `raw`, not both")
            nested, values = flatten(name, tensor.data)
            shape = list(tensor.shape) or nested
            if not tensor.shape and len(nested) != len(spec.shape) and -1 not in spec.shape:
                shape = list(spec.shape)  # a flat list for a model of one fixed shape
            inputs[name] = spec.from_values(datatype, shape, values)
        else:
            inputs[name] = spec.from_raw(datatype, list(tensor.shape) or list(spec.shape), tensor.raw)
    signature.check(inputs)
    return inputs


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Serves `mercat.inference.v1.InferenceService`."""

    def __init__(self, path: HotPath) -> None:
        self._path = path

    async def Predict(self, request: inference_pb2.PredictRequest, context: Context) -> inference_pb2.PredictResponse:
        call = current()
        result = await self._path.run(
            call, request.model, lambda s: read_inputs(request, s), lambda s: s.wanted(request.outputs)
        )
        proto, signature = result.deployment.proto, result.deployment.signature
        response = inference_pb2.PredictResponse(
            model=proto.model, version=proto.version, request_id=call.request_id, cost_nanos=result.cost
        )
        raw = request.raw_output or not any(t.HasField("data") for t in request.inputs)
        for name, array in result.outputs.items():
            tensor = response.outputs.add(name=name, datatype=signature.outputs[name].datatype, shape=array.shape)
            if raw:
                tensor.raw = to_raw(array)
            else:
                tensor.data.CopyFrom(to_list(array))
        return response

    async def Quote(self, request: inference_pb2.QuoteRequest, context: Context) -> inference_pb2.QuoteResponse:
        deployment = await self._path.deployments.get(request.model)
        priced = self._path.price(deployment, read_inputs(request, deployment.signature))
        proto = deployment.proto
        return inference_pb2.QuoteResponse(
            model=proto.model, version=proto.version, price_id=deployment.price_id, currency=deployment.currency,
            cost_nanos=0 if current().principal.test else priced.cost, units=priced.units,
        )  # fmt: skip

    async def GetSignature(
        self, request: inference_pb2.GetSignatureRequest, context: Context
    ) -> inference_pb2.GetSignatureResponse:
        proto = (await self._path.deployments.get(request.model)).proto
        return inference_pb2.GetSignatureResponse(model=proto.model, version=proto.version, signature=proto.signature)
