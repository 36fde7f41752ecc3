"""The response cache: equal calls of a deterministic model run once, and cost what its publisher says."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests import graphs
from tests.platform import USD, Account, Platform

PRICE = 1_000_003  # nanos a call; a quarter of it is no whole number
QUICK, SLOW = 1_000, 400_000  # numbers to count to


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("cache") / "home", workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(cached: Platform) -> Account:
    return cached.publisher()


@pytest.fixture
def model(cached: Platform, publisher: Account) -> str:
    kept = registry_pb2.ResponseCache(ttl_seconds=60, hit_price_percent=25)
    return cached.publish(publisher, graphs.count(), price={"requests": PRICE * 10**6}, response_cache=kept)


@pytest.fixture
def person(cached: Platform) -> Account:
    return cached.sign_up(credit=USD)


def request(model: str, n: int, **more: bool) -> inference_pb2.PredictRequest:
    tensor = inference_pb2.Tensor(name="n", shape=[1], raw=n.to_bytes(8, "little"))
    return inference_pb2.PredictRequest(model=model, inputs=[tensor], **more)


def call(person: Account, model: str, n: int, worker: str = "", **options) -> tuple[int, int, str]:
    """The answer, its cost and where it came from."""
    metadata = [*person.metadata, *options.pop("metadata", [])]
    sent = request(model, n, **options)
    if worker:
        with grpc.insecure_channel(worker) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            answer, done = stub.Predict.with_call(sent, metadata=metadata, timeout=20)
    else:
        answer, done = person.inference.Predict.with_call(sent, timeout=20)
    trailers = {m.key: m.value for m in done.trailing_metadata()}
    assert answer.cached == (trailers["mercat-cache"] == "hit")
    assert str(answer.cost_nanos) == trailers["mercat-cost-nanos"]
    return int.from_bytes(answer.outputs[0].raw, "little"), answer.cost_nanos, trailers["mercat-cache"]


def test_the_second_of_two_equal_calls_is_answered_from_memory(model: str, person: Account, cached: Platform) -> None:
    worker = cached.addresses()["worker-0"]
    assert call(person, model, QUICK, worker) == (QUICK, PRICE, "miss")
    assert call(person, model, QUICK, worker) == (QUICK, 250_001, "hit")
    assert call(person, model, QUICK + 1, worker) == (QUICK + 1, PRICE, "miss")
    assert call(cached.sign_up(credit=USD), model, QUICK, worker)[2] == "hit"


def test_all_workers_know_what_one_has_answered(model: str, person: Account, cached: Platform) -> None:
    addresses = cached.addresses()
    assert call(person, model, QUICK, addresses["worker-0"])[2] == "miss"
    time.sleep(0.1)
    assert call(person, model, QUICK, addresses["worker-1"]) == (QUICK, 250_001, "hit")


def test_who_asks_for_a_new_answer_gets_one(model: str, person: Account, cached: Platform) -> None:
    worker = cached.addresses()["worker-0"]
    call(person, model, QUICK, worker)
    assert call(person, model, QUICK, worker, no_cache=True) == (QUICK, PRICE, "bypass")
    assert call(person, model, QUICK, worker, metadata=[("cache-control", "no-cache")])[2] == "bypass"


def test_equal_calls_at_once_run_once(model: str, person: Account, cached: Platform) -> None:
    worker = cached.addresses()["worker-1"]
    before = person.balance()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: call(person, model, SLOW, worker), range(12)))
    assert {number for number, _, _ in answers} == {SLOW}
    assert sorted(source for _, _, source in answers) == ["hit"] * 11 + ["miss"]
    cost = PRICE + 11 * 250_001
    deadline = time.monotonic() + 10
    while before - person.balance() != cost and time.monotonic() < deadline:
        time.sleep(0.05)
    assert before - person.balance() == cost
    records = person.usage.ListUsage(usage_pb2.ListUsageRequest(model=model)).records
    assert sum(r.units["cache_hits"] for r in records) == 11
    assert cached.admin().check_ledger().clean


def test_a_new_version_knows_nothing_of_the_old_one(
    model: str, person: Account, publisher: Account, cached: Platform
) -> None:
    call(person, model, QUICK)
    kept = registry_pb2.ResponseCache()
    cached.publish(publisher, graphs.count(), model.partition("/")[2], version="2.0.0", response_cache=kept)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = person.inference.Predict(request(model, QUICK))
        if answer.version == "2.0.0":
            break
        time.sleep(0.05)
    assert not answer.cached


def test_triton_clients_see_it_too(model: str, person: Account, cached: Platform) -> None:
    sent = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[QUICK.to_bytes(8, "little")])
    sent.inputs.add(name="n", datatype="INT64", shape=[1])
    with grpc.insecure_channel(cached.addresses()["worker-0"]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        first = stub.ModelInfer(sent, metadata=person.metadata)
        second = stub.ModelInfer(sent, metadata=person.metadata)
        statistics = stub.ModelStatistics(
            service_pb2.ModelStatisticsRequest(name=model), metadata=person.metadata
        ).model_stats[0]
    assert "mercat_cached" not in first.parameters
    assert second.parameters["mercat_cached"].bool_param
    assert first.raw_output_contents == second.raw_output_contents
    stats = statistics.inference_stats
    assert (stats.cache_hit.count, stats.cache_miss.count, statistics.execution_count) == (1, 1, 1)


def test_without_redis_memory_suffices(model: str, person: Account, cached: Platform) -> None:
    worker = cached.addresses()["worker-0"]
    cached.kill("valkey")
    assert call(person, model, QUICK, worker)[2] == "miss"
    assert call(person, model, QUICK, worker)[2] == "hit"
