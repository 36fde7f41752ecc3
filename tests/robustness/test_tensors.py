"""Case 20: tensors that are not what they say are refused before the engine, by name, and cost nothing."""

import time
from collections import Counter
from collections.abc import Iterator

import grpc
import psutil
import pytest
from hypothesis import HealthCheck, given, seed, settings
from mercat.usage.v1 import usage_pb2
from tritonclient.grpc import service_pb2_grpc

from tests import graphs
from tests.metrics import total
from tests.platform import USD, Account, Platform
from tests.robustness import tensors
from tests.robustness.tensors import GOOD, GOOD_VALUES, WAYS, Tensor, both

EXAMPLES = 60  # of each kind, each sent every way
GROWTH = 64 << 20  # bytes that the workers may grow by


@pytest.fixture(scope="module")
def model(pair: Platform) -> str:
    return pair.publish(
        pair.publisher(), graphs.labelled(), batch=tensors.MOST, price={"requests": 1_000_000 * 1_000_000}
    )


@pytest.fixture
def consumer(pair: Platform, model: str) -> Iterator[Account]:
    """Somebody whose calls must all be refused. Checked afterwards: the engine ran nothing, nothing was charged, the
    processes are those of before and no larger."""
    consumer = pair.sign_up(credit=USD)
    for send in WAYS.values():  # so that everything is loaded, and known by what it costs
        for good in (GOOD, GOOD_VALUES):
            assert send(consumer, model, list(good.values())) is None
    balance, runs = settled(consumer), total(pair, "nv_inference_exec_count", model)
    processes = workers(pair)
    before = sum(p.memory_info().rss for p in processes)
    yield consumer
    assert total(pair, "nv_inference_exec_count", model) == runs
    assert workers(pair) == processes
    grown = sum(p.memory_info().rss for p in processes) - before
    print(f"memory grew by {grown >> 20} MiB")
    assert grown < GROWTH
    assert settled(consumer) == balance
    assert len(list(consumer.usage.ListUsage(usage_pb2.ListUsageRequest(page_size=100)).records)) == 2 * len(WAYS)
    for send in WAYS.values():
        assert send(consumer, model, list(GOOD.values())) is None


def workers(platform: Platform) -> list[psutil.Process]:
    """The workers and the processes of their engines."""
    own = [psutil.Process(pid) for name, pid in sorted(platform.pids().items()) if name.startswith("worker-")]
    return own + [child for process in own for child in process.children()]


def settled(person: Account) -> int:
    """The balance, once calls made before have been posted."""
    seen, since = person.balance(), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.05)
        if (now := person.balance()) != seen:
            seen, since = now, time.monotonic()
    return seen


def refused_every_way(consumer: Account, model: str, bad: Tensor, reasons: Counter[str]) -> None:
    for way, send in WAYS.items():
        error = send(consumer, model, both(bad))
        assert error is not None, f"{way} took {bad}"
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, (way, bad, error)
        named = {v.field for v in error.violations}
        assert any(bad.name in field or field.startswith("inputs") for field in named), (way, bad, error, named)
        reasons[f"{way} {error.reason}"] += 1


@pytest.mark.parametrize("kind", ["raw", "values"])
def test_tensors_that_lie_are_refused(consumer: Account, model: str, kind: str, seed_number: int) -> None:
    reasons: Counter[str] = Counter()

    @seed(seed_number)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, print_blob=False, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(tensors.bad_raw if kind == "raw" else tensors.bad_values)
    def every(bad: Tensor) -> None:
        refused_every_way(consumer, model, bad, reasons)

    every()
    print(dict(reasons))


def test_contents_that_contradict_each_other_are_refused(consumer: Account, model: str) -> None:
    """Both forms at once, fewer or more bodies than tensors, a tensor twice, and one that the model has not."""
    x, text = GOOD["x"], GOOD["text"]
    more = tensors.infer_request(model, [x, text])
    more.raw_input_contents.append(b"")
    fewer = tensors.infer_request(model, [x, text])
    fewer.raw_input_contents.pop()
    doubled = tensors.infer_request(model, [x, text])
    doubled.inputs[0].contents.fp32_contents.extend([0.5] * 8)
    twice = tensors.infer_request(model, [x, x])
    other = tensors.infer_request(model, [x, Tensor("y", "BYTES", [2], text.raw)])
    apart = tensors.infer_request(model, [x, Tensor("text", "BYTES", [3], tensors.layout([b"a"] * 3))])
    many = tensors.infer_request(
        model, [Tensor("x", "FP32", [9, 4], bytes(144)), Tensor("text", "BYTES", [9], tensors.layout([b""] * 9))]
    )
    wrong_family = tensors.infer_request(model, list(GOOD_VALUES.values()))
    wrong_family.inputs[0].contents.ClearField("fp32_contents")
    wrong_family.inputs[0].contents.fp64_contents.extend([0.5] * 8)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(consumer.platform.channel)
    requests = {
        "raw_input_contents": [more, fewer], "x": [doubled, twice, many, wrong_family], "y": [other], "text": [apart],
    }  # fmt: skip
    for field, bad in requests.items():
        for request in bad:
            with pytest.raises(grpc.RpcError) as e:
                stub.ModelInfer(request, metadata=consumer.metadata, timeout=20)
            error = tensors.from_rpc_error(e.value)
            assert (error.reason, [v.field for v in error.violations]) == ("TENSOR_INVALID", [field]), error
    answers = list(
        stub.ModelStreamInfer(
            iter([r for bad in requests.values() for r in bad]), metadata=consumer.metadata, timeout=20
        )
    )
    fields = [field for field, bad in requests.items() for _ in bad]
    for field, answer in zip(fields, answers, strict=True):
        assert answer.error_message.startswith(f"[TENSOR_INVALID] {field}: ")
