"""Which models are in memory: as many as the budget holds, the pinned ones always, each loaded once and warm before it
counts as ready, and a new version in the place of the old one without a failed call."""

import asyncio
import time
from collections.abc import Iterator

import grpc
import numpy as np
import onnx
import pytest
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc
from mercat.registry.v1 import registry_pb2
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests import graphs
from tests.metrics import scrape, total
from tests.platform import Account, Platform

MIB = 1 << 20
BUDGET = 4  # MiB: two of the models below, or a few small ones
HEAVY = 1.5  # MiB


def heavy(answer: float) -> bytes:
    """float32 [N, 4] → the sum of it and weights that are all `answer`; most of it is weights that are not used."""
    rng = np.random.default_rng(int(answer))
    ballast = rng.standard_normal(int(HEAVY * MIB / 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["ballast", "first"], ["some"]),
        helper.make_node("Mul", ["some", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "weights"], ["w"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    constants = {
        "ballast": ballast, "first": np.array([0], np.int64), "nothing": np.zeros(1, np.float32),
        "weights": np.full(4, answer, np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One worker with little room, that keeps `ada/pinned`."""
    env = {"MERCAT_MEMORY_MB": str(BUDGET), "MERCAT_PINNED": "ada/pinned, bob/nothing"}
    with Platform(tmp_path_factory.mktemp("residency") / "home", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def ada(small: Platform) -> Account:
    return small.sign_up(2, name="ada")  # a publisher


@pytest.fixture(scope="module")
def consumer(small: Platform) -> Account:
    return small.sign_up()


def call(person: Account, model: str) -> float:
    """One call; answers what the model adds to 0."""
    tensor = inference_pb2.Tensor(name="x", shape=[1, 4], raw=bytes(16))
    answer = person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[tensor]))
    return float(np.frombuffer(answer.outputs[0].raw, np.float32)[0])


def loads(platform: Platform) -> int:
    return int(total(platform, "mercat_model_load_seconds_count"))


def test_the_model_called_longest_ago_makes_room_and_pinned_ones_stay(
    small: Platform, ada: Account, consumer: Account
) -> None:
    pinned = small.publish(ada, graphs.tiny(), "pinned", batch=8)
    models = [small.publish(ada, heavy(n), batch=8) for n in (10, 20, 30)]
    call(consumer, pinned)
    first, second, third = models
    assert [call(consumer, m) for m in (first, second)] == [10, 20]
    before = loads(small)
    assert [call(consumer, m) for m in (second, first)] == [20, 10]  # `second` is now the one called longest ago
    assert loads(small) == before
    evictions = total(small, "mercat_model_evictions_total")
    assert call(consumer, third) == 30
    assert (loads(small), total(small, "mercat_model_evictions_total")) == (before + 1, evictions + 1)
    assert call(consumer, first) == 10
    assert loads(small) == before + 1  # it was kept
    assert call(consumer, second) == 20
    assert loads(small) == before + 2  # it was not
    assert total(small, "mercat_models_resident_bytes") <= BUDGET * MIB
    call(consumer, pinned)
    assert loads(small) == before + 2  # however long ago it was called
    assert total(small, "mercat_models_resident") == 3


async def test_fifty_first_calls_load_a_model_once_and_say_how_long_they_waited(
    small: Platform, ada: Account, consumer: Account
) -> None:
    model = await asyncio.to_thread(small.publish, ada, heavy(40), batch=8)
    before = await asyncio.to_thread(loads, small)
    tensor = inference_pb2.Tensor(name="x", shape=[1, 4], raw=bytes(16))
    request = inference_pb2.PredictRequest(model=model, inputs=[tensor])
    waits: list[int] = []
    async with grpc.aio.insecure_channel(small.grpc) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def one() -> None:
            answering = stub.Predict(request, metadata=consumer.metadata, timeout=20)
            assert np.frombuffer((await answering).outputs[0].raw, np.float32).tolist() == [40] * 4
            trailers = dict(await answering.trailing_metadata())
            waits.append(int(trailers.get("mercat-cold-start-ms", 0)))

        await asyncio.gather(*(one() for _ in range(50)))
        assert max(waits) > 0
        waits.clear()
        await one()
        assert waits == [0]  # it has nothing to say when nothing was loaded
    assert await asyncio.to_thread(loads, small) == before + 1
    assert 0 < await asyncio.to_thread(total, small, "mercat_model_cold_start_seconds", model) < 20


def test_a_model_is_warm_before_it_is_ready(small: Platform, ada: Account, consumer: Account) -> None:
    """Its sample is run while it is loaded: that takes a second, which no caller waits for afterwards, or pays."""
    sample = registry_pb2.Sample(title="long", request_json='{"inputs": [{"name": "n", "data": [2000000]}]}')
    model = small.publish(ada, graphs.count(), samples=[sample])
    stub = service_pb2_grpc.GRPCInferenceServiceStub(small.channel)
    ready = stub.ModelReady(service_pb2.ModelReadyRequest(name=model), metadata=consumer.metadata, timeout=60)
    assert ready.ready
    warmed = total(small, "mercat_model_cold_start_seconds", model)
    began = time.perf_counter()
    tensor = inference_pb2.Tensor(name="n", shape=[1], raw=(5).to_bytes(8, "little"))
    consumer.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[tensor]))
    took = time.perf_counter() - began
    print(f"ready after {warmed:.2f} s, then a call took {took * 1000:.0f} ms")
    assert warmed > 0.3
    assert took < warmed / 2
    assert scrape(small, "worker-0")["nv_inference_exec_count", model, ""] == 1  # the warm-up is nobody's call


async def test_a_new_version_takes_over_without_a_failed_call(small: Platform, ada: Account, consumer: Account) -> None:
    model = await asyncio.to_thread(small.publish, ada, heavy(1), batch=8)
    await asyncio.to_thread(call, consumer, model)
    answers: list[tuple[str, float]] = []
    going = True
    tensor = inference_pb2.Tensor(name="x", shape=[1, 4], raw=bytes(16))
    request = inference_pb2.PredictRequest(model=model, inputs=[tensor])
    async with grpc.aio.insecure_channel(small.grpc) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def caller() -> None:
            while going:
                answer = await stub.Predict(request, metadata=consumer.metadata, timeout=20)
                answers.append((answer.version, float(np.frombuffer(answer.outputs[0].raw, np.float32)[0])))
                await asyncio.sleep(0.005)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        name = model.partition("/")[2]
        for number, version in enumerate(("2.0.0", "3.0.0"), 2):
            await asyncio.to_thread(small.publish, ada, heavy(number), name, version=version, batch=8)
            deadline = time.monotonic() + 15
            while answers[-1][0] != version:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        going = False
        await asyncio.gather(*callers)  # raises what a call failed with
    versions = [version for version, _ in answers]
    print(f"{len(answers)} calls, of each version {[versions.count(v) for v in ('1.0.0', '2.0.0', '3.0.0')]}")
    assert set(answers) == {("1.0.0", 1.0), ("2.0.0", 2.0), ("3.0.0", 3.0)}  # each answers with its own weights
    assert len(answers) > 200
