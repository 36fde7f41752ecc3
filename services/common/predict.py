"""Predict's messages as arrays and back."""

from collections.abc import Mapping

from mercat.inference.v1 import inference_pb2

from services.common.tensors import Array, BadTensor, Signature, flatten, to_list, to_raw


def read_inputs(
    request: inference_pb2.PredictRequest | inference_pb2.QuoteRequest, signature: Signature
) -> dict[str, Array]:
    """The request's tensors as arrays. Raises BadTensor."""
    inputs: dict[str, Array] = {}
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


def write_outputs(
    request: inference_pb2.PredictRequest, outputs: Mapping[str, Array], signature: Signature,
    response: inference_pb2.PredictResponse,
) -> None:  # fmt: skip
    """Fills in the answer, in the form that the request asks for."""
    raw = request.raw_output or not any(t.HasField("data") for t in request.inputs)
    for name, array in outputs.items():
        tensor = response.outputs.add(name=name, datatype=signature.outputs[name].datatype, shape=array.shape)
        if raw:
            tensor.raw = to_raw(array)
        else:
            tensor.data.CopyFrom(to_list(array))
