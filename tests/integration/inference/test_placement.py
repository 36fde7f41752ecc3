"""Where a version says that it runs is where it runs: in the worker, on Triton, or on Triton while that is there."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from mercat.inference.v1 import text_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from tests import graphs
from tests.decoders import tiny_gguf
from tests.platform import USD, Account, Platform
from tests.triton import Triton, running_triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("placement") / "repository"


@pytest.fixture(scope="module")
def triton(repository: Path) -> Iterator[Triton]:
    with running_triton(repository.parent) as started:
        yield started


@pytest.fixture(scope="module")
def platform(triton: Triton, repository: Path) -> Iterator[Platform]:
    """One whose workers have a Triton."""
    env = {"MERCAT_TRITON": triton.address, "MERCAT_MODEL_REPOSITORY": str(repository)}
    with Platform(repository.parent / "home", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def consumer(platform: Platform) -> Account:
    return platform.sign_up(credit=10 * USD)


def infer(who: Account, model: str, rows: np.ndarray) -> list[bytes]:
    """A call over KServe's protocol through the front door; answers the raw tensors."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    stub = service_pb2_grpc.GRPCInferenceServiceStub(who.platform.channel)
    return list(stub.ModelInfer(request, metadata=who.metadata, timeout=30).raw_output_contents)


def in_triton(triton: Triton) -> dict[str, list[str]]:
    """The models that Triton holds, and their versions."""
    held: dict[str, list[str]] = {}
    with grpc.insecure_channel(triton.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for model in stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models:
            held.setdefault(model.name, []).append(model.version)
    return held


ROWS = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)


def test_triton_answers_the_same_bytes(
    platform: Platform, publisher: Account, consumer: Account, triton: Triton
) -> None:
    graph = graphs.tiny(5)
    embedded = platform.publish(publisher, graph, batch=8)
    before = in_triton(triton)
    placed = platform.publish(publisher, graph, batch=8, placement=registry_pb2.PLACEMENT_TRITON)
    assert infer(consumer, embedded, ROWS) == infer(consumer, placed, ROWS)
    assert len(in_triton(triton)) == len(before) + 1


def test_versions_of_one_signature_are_numbers_of_one_model(
    platform: Platform, publisher: Account, consumer: Account, triton: Triton, repository: Path
) -> None:
    on_triton = {"batch": 8, "placement": registry_pb2.PLACEMENT_TRITON}
    before = set(repository.iterdir())
    model = platform.publish(publisher, graphs.tiny(1), **on_triton)
    (folder,) = set(repository.iterdir()) - before
    platform.publish(publisher, graphs.tiny(2), model.partition("/")[2], version="1.1.0", **on_triton)
    assert {path.name for path in folder.iterdir()} == {"1", "2", "config.pbtxt"}
    # Queued otherwise, so Triton must know it under another name; the number is the version's own.
    platform.publish(publisher, graphs.tiny(2), model.partition("/")[2], version="2.0.0", **on_triton | {"batch": 4})
    (other,) = set(repository.iterdir()) - before - {folder}
    assert {path.name for path in other.iterdir()} == {"3", "config.pbtxt"}
    config = text_format.Parse((other / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (other.name, "onnxruntime", 4)
    assert [list(tensor.dims) for tensor in (*config.input, *config.output)] == [[4], [4]]
    answers = [infer(consumer, f"{model}@{version}", ROWS) for version in ("1.0.0", "1.1.0", "2.0.0")]
    assert answers[0] != answers[1] == answers[2]
    held = in_triton(triton)
    assert (held[folder.name], held[other.name]) == (["1", "2"], ["3"])


def test_what_is_missing_in_the_repository_is_written_at_the_next_start(
    platform: Platform, publisher: Account, repository: Path
) -> None:
    before = set(repository.iterdir())
    platform.publish(publisher, graphs.tiny(3), batch=8)
    (folder,) = set(repository.iterdir()) - before
    file = folder / "1" / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(whole[:10])
    (folder / "config.pbtxt").unlink()
    platform.kill("control")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (folder / "config.pbtxt").exists():
        time.sleep(0.1)
    assert (folder / "config.pbtxt").exists()
    assert file.read_bytes() == whole


PRICE = {"input_tokens": 1_000_000, "cached_input_tokens": 1_000_000, "output_tokens": 4_000_000}


def test_texts_go_on_alike_on_triton(platform: Platform, publisher: Account, consumer: Account, triton: Triton) -> None:
    graph = tiny_gguf(1)
    embedded = platform.publish(publisher, graph, price=PRICE)
    placed = platform.publish(publisher, graph, price=PRICE, placement=registry_pb2.PLACEMENT_TRITON)
    sampling = text_pb2.Sampling(max_tokens=12, temperature=0)
    answers, before = {}, len(in_triton(triton))
    for model in (embedded, placed):
        said = list(consumer.text.Generate(text_pb2.GenerateRequest(model=model, prompt="hello", sampling=sampling)))
        messages = [text_pb2.ChatMessage(role="user", content="hello")]
        call = consumer.text.Chat(text_pb2.ChatRequest(model=model, messages=messages, sampling=sampling))
        chat = list(call)
        usage = chat[-1].usage
        assert usage.output_tokens == sum(m.tokens for m in chat) > 0
        assert usage.cost_nanos == usage.input_tokens + 4 * usage.output_tokens
        assert dict(call.trailing_metadata())["mercat-cost-nanos"] == str(usage.cost_nanos)
        record = recorded(consumer, chat[0].request_id)
        assert record.cost_nanos == usage.cost_nanos
        assert record.units["output_tokens"] == usage.output_tokens
        answers[model] = ["".join(m.text for m in some) for some in (said, chat)]
        assert [m.finish_reason for m in chat if m.finish_reason]
        count = text_pb2.CountTokensRequest(model=model, messages=messages)
        assert consumer.text.CountTokens(count).tokens == usage.input_tokens
    assert answers[embedded] == answers[placed] != ["", ""]
    assert len(in_triton(triton)) == before + 1


def recorded(who: Account, request_id: str) -> usage_pb2.UsageRecord:
    """The record of a call, as soon as it is there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return who.usage.GetUsageRecord(usage_pb2.GetUsageRecordRequest(request_id=request_id)).record
        except grpc.RpcError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_calls_go_on_while_triton_is_killed_and_comes_back(
    platform: Platform, publisher: Account, consumer: Account, triton: Triton
) -> None:
    both = platform.publish(publisher, graphs.tiny(6), batch=8, placement=registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED)
    only = platform.publish(publisher, graphs.tiny(6), batch=8, placement=registry_pb2.PLACEMENT_TRITON)
    wanted = infer(consumer, only, ROWS)
    infer(consumer, both, ROWS)
    held = len(in_triton(triton))
    answers: list[list[bytes]] = []
    failures: list[grpc.RpcError] = []
    going = threading.Event()

    def call() -> None:
        while not going.is_set():
            try:
                answers.append(infer(consumer, both, ROWS))
            except grpc.RpcError as error:
                failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        for _ in range(2):
            time.sleep(0.5)
            triton.kill()
            answered = len(answers)
            time.sleep(1)
            assert len(answers) > answered  # in the worker
            with pytest.raises(grpc.RpcError) as refused:
                infer(consumer, only, ROWS)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            triton.start()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and not in_triton(triton):
                time.sleep(0.05)
            assert in_triton(triton)  # it is used again
    finally:
        going.set()
        for caller in callers:
            caller.join()
    assert failures == []
    assert {tuple(answer) for answer in answers} == {tuple(wanted)}
    assert infer(consumer, only, ROWS) == wanted
    assert held >= 2
