"""Several calls at a time: their requests, and what became of them in usage, books and metrics."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import onnx
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2
from mercat.usage.v1 import usage_pb2
from onnx import TensorProto, helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import MercatError, from_status
from tests.platform import Account, Platform

PRICE = 2_000_000  # nanos a call


def add(model: str, a: int, b: int) -> inference_pb2.PredictRequest:
    """A request to `graphs.addition()`."""
    return predict(model, a=a, b=b)


def predict(model: str, **inputs: int) -> inference_pb2.PredictRequest:
    request = inference_pb2.PredictRequest(model=model)
    for name, value in inputs.items():
        request.inputs.add(name=name).data.values.add(number_value=value)
    return request


def number(response: inference_pb2.PredictResponse) -> int:
    return int(response.outputs[0].data.values[0].number_value)


def error(result: Any) -> MercatError:
    assert result.HasField("error"), result
    return from_status(result.error)


def job(person: Account, *requests: inference_pb2.PredictRequest, timeout: int = 0) -> inference_pb2.Job:
    """A new job of a batch."""
    asked = inference_pb2.CreateJobRequest(batch=inference_pb2.BatchPredictRequest(requests=requests))
    if timeout:
        asked.timeout.seconds = timeout
    made: inference_pb2.Job = person.jobs.CreateJob(asked).job
    return made


def finished(person: Account, job_id: str, seconds: float = 180) -> inference_pb2.Job:
    """The job when it has ended."""
    last = inference_pb2.Job()
    for watched in person.jobs.WatchJob(inference_pb2.WatchJobRequest(job_id=job_id), timeout=seconds):
        last = watched.job
    return last


def outcomes(person: Account, job_id: str, start: int = 0) -> list[inference_pb2.PredictResult]:
    asked = inference_pb2.GetJobResultRequest(job_id=job_id, start=start)
    return [answer.result for answer in person.jobs.GetJobResult(asked)]


def rest(person: Account, verb: str, url: str, body: Any = None) -> list[Any]:
    """A call over HTTP: the lines of JSON it answers."""
    headers = {"authorization": f"Bearer {person.api_key}", "content-type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=verb), timeout=30) as answer:
        return [json.loads(line) for line in answer.read().splitlines() if line]


def records(person: Account, calls: int) -> list[usage_pb2.UsageRecord]:
    """The person's usage once it has so many records, and a moment later."""
    deadline = time.monotonic() + 20
    while len(found := list(_records(person))) < calls and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    return found if len(found) > calls else list(_records(person))


def _records(person: Account) -> Iterator[usage_pb2.UsageRecord]:
    token, first = "", True
    while first or token:
        page = person.usage.ListUsage(usage_pb2.ListUsageRequest(page_size=1000, page_token=token))
        yield from page.records
        token, first = page.next_page_token, False


def posted(person: Account) -> list[str]:
    """The calls that were taken from the person's wallet, one for each posting."""
    causes: list[str] = []
    token, first = "", True
    while first or token:
        page = person.billing.GetStatement(billing_pb2.GetStatementRequest(page_size=1000, page_token=token))
        causes += [e.cause for e in page.entries if e.cause.startswith("req_") and e.amount_nanos < 0]
        token, first = page.next_page_token, False
    return causes


def runs(platform: Platform, person: Account, model: str) -> tuple[int, int]:
    """Rows that the model was given, and engine runs they took, in the worker that answers."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)
    stats = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(name=model), metadata=person.metadata).model_stats
    return stats[0].inference_count, stats[0].execution_count


def zeros() -> bytes:
    """int64 length [1] → float32 [length]: a small request with an answer of any size."""
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["length"], ["zeros"])], "graph",
        [helper.make_tensor_value_info("length", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("zeros", TensorProto.FLOAT, ["N"])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
