"""A model that brings its engine down takes nobody else's calls with it, and is taken out of service."""

import threading
import time

import grpc
import psutil
import pytest
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.platform import USD, Account, Platform

LONG = 500_000_000  # a number to count to until somebody ends it


def engine_of(running: Platform) -> psutil.Process | None:
    """The process that the worker's models run in."""
    for child in psutil.Process(running.pids()["worker-0"]).children():
        if "services.inference.engines.host" in child.cmdline():
            return child
    return None


def count(person: Account, model: str, n: int, timeout: float = 30) -> inference_pb2.PredictResponse:
    tensor = inference_pb2.Tensor(name="n", shape=[1], raw=n.to_bytes(8, "little"))
    return person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[tensor]), timeout=timeout)


def add(person: Account, model: str) -> bytes:
    tensors = [inference_pb2.Tensor(name=n, shape=[1], raw=(20).to_bytes(8, "little")) for n in ("a", "b")]
    return bytes(person.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=tensors)).outputs[0].raw)


def crash(running: Platform, person: Account, model: str) -> MercatError:
    """Ends the engine process in the middle of a run of the model, as a fault of it would."""
    ended: list[MercatError] = []

    def call() -> None:
        try:
            count(person, model, LONG)
        except grpc.RpcError as e:
            ended.append(from_rpc_error(e))

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(2)  # by then it is the one that runs: one run goes at a time, and it takes minutes
    engine = engine_of(running)
    assert engine is not None
    engine.kill()
    thread.join(20)
    assert ended
    return ended[0]


def refused(person: Account, model: str) -> MercatError | None:
    try:
        count(person, model, 5)
    except grpc.RpcError as e:
        return from_rpc_error(e)
    return None


def test_a_crash_is_one_models_and_the_third_takes_it_out_of_service(own_platform) -> None:
    running = own_platform()
    publisher, person = running.publisher(), running.sign_up(credit=USD)
    bad = running.publish(publisher, graphs.count(), "bad", price={"requests": 10**9})
    good = running.publish(publisher, graphs.addition(), "good", price={"requests": 10**9})
    assert int.from_bytes(add(person, good), "little") == 40
    assert count(person, bad, 5).outputs
    worker = running.pids()["worker-0"]
    failures: list[grpc.RpcError] = []
    answers = 0
    stop = threading.Event()

    def others() -> None:
        nonlocal answers
        while not stop.is_set():
            try:
                assert int.from_bytes(add(person, good), "little") == 40
                answers += 1
            except grpc.RpcError as e:
                failures.append(e)

    threads = [threading.Thread(target=others) for _ in range(4)]
    for thread in threads:
        thread.start()
    before = person.balance()
    errors = [crash(running, person, bad) for _ in range(3)]
    deadline = time.monotonic() + 10
    while (refusal := refused(person, bad)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert [e.reason for e in errors] == ["ENGINE_CRASHED"] * 3
    assert failures == []
    assert answers > 20
    assert running.pids()["worker-0"] == worker
    assert refusal.reason in ("MODEL_NOT_FOUND", "VERSION_QUARANTINED"), refusal
    with pytest.raises(grpc.RpcError) as e:
        count(person, f"{bad}@1.0.0", 5)
    assert from_rpc_error(e.value).reason == "VERSION_QUARANTINED"
    version = publisher.registry.GetVersion(registry_pb2.GetVersionRequest(model=bad, version="1.0.0")).version
    assert version.state == registry_pb2.VERSION_STATE_QUARANTINED
    assert [f.code for f in version.findings] == ["ENGINE_CRASHED"]
    time.sleep(1)
    assert (before - person.balance()) % 1000 == 0  # whole calls of the good model: crashes cost nothing
    assert running.admin().check_ledger().clean
    released = running.admin().registry.ReleaseVersion(registry_pb2.ReleaseVersionRequest(model=bad, version="1.0.0"))
    assert released.version.state == registry_pb2.VERSION_STATE_PUBLISHED
    deadline = time.monotonic() + 15
    while True:
        try:
            assert count(person, bad, 5).version == "1.0.0"
            break
        except grpc.RpcError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_version_that_fails_is_replaced_by_the_one_its_publisher_named(own_platform) -> None:
    running = own_platform()
    publisher, person = running.publisher(), running.sign_up(credit=USD)
    model = running.publish(publisher, graphs.count(), price={"requests": 10**9})
    count(person, model, 5)
    name = model.partition("/")[2]
    running.publish(publisher, graphs.count(), name, version="2.0.0", fallback_version="1.0.0")
    deadline = time.monotonic() + 10
    while count(person, model, 5).version != "2.0.0":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(3):
        assert crash(running, person, f"{model}@2.0.0").reason == "ENGINE_CRASHED"
    deadline = time.monotonic() + 10
    while count(person, model, 5).version != "1.0.0":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while (refusal := refused(person, f"{model}@2.0.0")) is None:  # who names it exactly gets no other one
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert refusal.reason == "VERSION_QUARANTINED"
    assert count(person, model, 5).version == "1.0.0"
