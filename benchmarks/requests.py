"""The requests that are sent, built once."""

import numpy as np
from mercat.inference.v1 import inference_pb2
from tritonclient.grpc import service_pb2


def tiny(model: str) -> bytes:
    """A ModelInferRequest of one row of the tiny graph."""
    return kserve(model, {"x": np.ones((1, 4), np.float32)})


def sentence(model: str, tokens: int) -> bytes:
    """A ModelInferRequest of one row of MiniLM."""
    ones = np.ones((1, tokens), np.int64)
    return kserve(model, {"input_ids": ones, "attention_mask": ones, "token_type_ids": ones})


def predict(model: str) -> inference_pb2.PredictRequest:
    """A Predict of one row of the tiny graph, its values as numbers: what JSON carries as well."""
    request = inference_pb2.PredictRequest(model=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    tensor.data.extend([1.0, 1.0, 1.0, 1.0])
    return request


def kserve(model: str, inputs: dict[str, np.ndarray]) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = "FP32" if array.dtype == np.float32 else "INT64"
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return bytes(request.SerializeToString())
