"""Text calls through the front door: what streams carry, what they cost, what is refused and what happens to those who
leave."""

import json
import time
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from mercat.billing.v1 import billing_pb2, proof_pb2
from mercat.inference.v1 import inference_pb2, text_pb2
from mercat.registry.v1 import registry_pb2
from mercat.usage.v1 import usage_pb2

from services.cli.demo.catalogue import CATALOGUE
from services.cli.tokenizing import with_tokenizer
from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.decoders import tiny_gguf
from tests.platform import USD, Account, Platform

PRICE = {"input_tokens": 1_000_000, "cached_input_tokens": 250_000, "output_tokens": 4_000_000, "requests": 7_000_000}


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def model(platform: Platform, publisher: Account) -> str:
    """A decoder of random weights with a chat template, at a price for each kind of token."""
    return platform.publish(publisher, tiny_gguf(1), price=PRICE)


@pytest.fixture
def consumer(platform: Platform) -> Account:
    return platform.sign_up(credit=10 * USD)


def ask(model: str, text: str = "hello world", **sampling: Any) -> text_pb2.ChatRequest:
    given = {"max_tokens": 12, "seed": 5} | sampling
    return text_pb2.ChatRequest(
        model=model, messages=[text_pb2.ChatMessage(role="user", content=text)], sampling=text_pb2.Sampling(**given)
    )


def said(messages: Any, index: int = 0) -> str:
    return "".join(m.text for m in messages if m.index == index)


def refused(call: Any) -> MercatError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    return from_rpc_error(caught.value)


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


def settled(who: Account, spent: int, credit: int = 10 * USD) -> None:
    """Waits until the wallet has fallen by what was spent, and nothing else is reserved for calls."""
    deadline = time.monotonic() + 20
    while True:
        wallet = who.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet
        if credit - wallet.balance_nanos == spent or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert credit - wallet.balance_nanos == spent


def test_a_chat_streams_and_says_what_it_cost(model: str, consumer: Account, publisher: Account) -> None:
    call = consumer.text.Chat(ask(model, temperature=0))
    messages = list(call)
    first, last = messages[0], messages[-1]
    assert (first.role, first.model, first.version) == ("assistant", model, "1.0.0")
    assert first.request_id.startswith("req_")
    assert [m.role for m in messages[1:]] == [""] * (len(messages) - 1)
    ends = [m.finish_reason for m in messages if m.finish_reason]
    assert len(ends) == 1
    usage = last.usage
    assert usage.output_tokens == sum(m.tokens for m in messages) > 0
    assert usage.total_us >= usage.first_token_us > 0
    uncached = usage.input_tokens - usage.cached_input_tokens
    expected = 7 + uncached + 4 * usage.output_tokens + round(usage.cached_input_tokens / 4)
    assert abs(usage.cost_nanos - expected) <= 1
    trailers = dict(call.trailing_metadata())
    assert trailers["mercat-cost-nanos"] == str(usage.cost_nanos)
    assert trailers["mercat-request-id"] == first.request_id
    record = recorded(consumer, first.request_id)
    assert record.units["output_tokens"] == usage.output_tokens
    assert record.units["input_tokens"] + record.units["cached_input_tokens"] == usage.input_tokens
    assert record.cost_nanos == usage.cost_nanos
    settled(consumer, usage.cost_nanos)
    assert consumer.platform.admin().check_ledger().clean


def test_the_same_seed_gives_the_same_text_in_company(model: str, consumer: Account) -> None:
    alone = said(list(consumer.text.Chat(ask(model, temperature=1.5, max_tokens=24))))
    streams = [consumer.text.Chat(ask(model, f"other {i}", seed=i, max_tokens=40)) for i in range(6)]
    together = said(list(consumer.text.Chat(ask(model, temperature=1.5, max_tokens=24))))
    for stream in streams:
        list(stream)
    assert together == alone != ""
    other = said(list(consumer.text.Chat(ask(model, temperature=1.5, max_tokens=24, seed=6))))
    assert other != alone


def test_several_answers_and_log_probabilities(model: str, consumer: Account) -> None:
    messages = list(consumer.text.Chat(ask(model, n=3, logprobs=2, temperature=1.0)))
    assert {m.index for m in messages if m.tokens} == {0, 1, 2}
    assert len({said(messages, i) for i in range(3)}) == 3
    assert sorted(m.index for m in messages if m.finish_reason) == [0, 1, 2]
    shown = [one for m in messages for one in m.logprobs]
    assert len(shown) == messages[-1].usage.output_tokens
    for one in shown:
        assert one.logprob <= 0
        assert len(one.top) == 2
        assert one.top[0].logprob >= one.top[1].logprob


def test_a_stop_string_is_never_shown(model: str, consumer: Account) -> None:
    free = said(list(consumer.text.Generate(text_pb2.GenerateRequest(
        model=model, prompt="the world", sampling=text_pb2.Sampling(temperature=0, max_tokens=30)
    ))))  # fmt: skip
    stop = free[5:8]
    request = text_pb2.GenerateRequest(
        model=model, prompt="the world", sampling=text_pb2.Sampling(temperature=0, max_tokens=30, stop=[stop])
    )
    messages = list(consumer.text.Generate(request))
    assert said(messages) == free[: free.index(stop)]
    assert [m.finish_reason for m in messages if m.finish_reason] == [text_pb2.FINISH_REASON_STOP]


def test_answers_fit_a_schema(model: str, consumer: Account) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    messages = list(consumer.text.Chat(ask(model, json_schema=json.dumps(schema), max_tokens=60, temperature=0.8)))
    assert set(json.loads(said(messages))) == {"n"}


def test_echo_answers_the_prompt_first(model: str, consumer: Account) -> None:
    request = text_pb2.GenerateRequest(
        model=model, prompt="hello the", echo=True, sampling=text_pb2.Sampling(max_tokens=3, temperature=0)
    )
    messages = list(consumer.text.Generate(request))
    assert said(messages).startswith("hello the")
    assert messages[-1].usage.output_tokens <= 3


@pytest.mark.parametrize(("sampling", "reason", "field"), [
    ({"temperature": 2.5}, "INVALID_FIELDS", "sampling.temperature"),
    ({"temperature": float("nan")}, "INVALID_FIELDS", "sampling.temperature"),
    ({"top_p": 1.5}, "INVALID_FIELDS", "sampling.top_p"),
    ({"stop": [str(i) for i in range(17)]}, "INVALID_FIELDS", "sampling.stop"),
    ({"stop": [""]}, "INVALID_FIELDS", "sampling.stop[0]"),
    ({"logit_bias": {3: 101.0}}, "INVALID_FIELDS", "sampling.logit_bias[3]"),
    ({"n": 9}, "INVALID_FIELDS", "sampling.n"),
    ({"json_schema": "{nonsense"}, "BAD_FORMAT", ""),
    ({"regex": "(unclosed"}, "BAD_FORMAT", ""),
])  # fmt: skip
def test_options_out_of_range_are_refused(
    model: str, consumer: Account, sampling: dict[str, Any], reason: str, field: str
) -> None:
    error = refused(consumer.text.Chat(ask(model, **sampling)))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    if field:
        assert [v.field for v in error.violations] == [field]
    settled(consumer, 0)


def test_what_cannot_be_gone_on_with_is_refused(
    platform: Platform, publisher: Account, model: str, consumer: Account
) -> None:
    robot = ask(model)
    robot.messages[0].role = "robot"
    plain = platform.publish(publisher, tiny_gguf(2, metadata={"tokenizer.chat_template": None}), price=PRICE)
    tensors = platform.publish(publisher, graphs.tiny(1), batch=4)
    for request, reason in (
        (robot, "INVALID_FIELDS"), (ask(model, "word " * 3000), "PROMPT_TOO_LONG"), (ask(plain), "NO_CHAT_TEMPLATE"),
        (ask(tensors), "NOT_A_DECODER"), (ask(f"{model}-not"), "MODEL_NOT_FOUND"),
    ):  # fmt: skip
        assert refused(consumer.text.Chat(request)).reason == reason
    both = text_pb2.GenerateRequest(model=model, prompt="a", prompt_tokens=[1])
    assert refused(consumer.text.Generate(both)).violations[0].field == "prompt"
    outside = text_pb2.GenerateRequest(model=model, prompt_tokens=[1_000_000])
    assert refused(consumer.text.Generate(outside)).reason == "BAD_PROMPT"
    with pytest.raises(grpc.RpcError) as caught:
        consumer.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=[inference_pb2.Tensor(name="x")]))
    assert from_rpc_error(caught.value).reason == "TEXT_MODEL"
    settled(consumer, 0)


def test_without_credit_for_the_longest_answer_nothing_runs(platform: Platform, model: str) -> None:
    poor = platform.sign_up(credit=200)
    assert refused(poor.text.Chat(ask(model, max_tokens=100))).reason == "INSUFFICIENT_CREDIT"
    messages = list(poor.text.Chat(ask(model, max_tokens=4)))  # what is held for the longest comes back
    settled(poor, messages[-1].usage.cost_nanos, 200)


def test_who_leaves_pays_for_what_was_delivered(platform: Platform, publisher: Account) -> None:
    dear = platform.publish(publisher, tiny_gguf(3, context=2048), price={"output_tokens": 1_000_000_000})
    leaver = platform.sign_up(credit=10 * USD)
    call = leaver.text.Chat(ask(dear, max_tokens=1500, logit_bias={0: -100, 2: -100}))
    stream = iter(call)
    got = [next(stream) for _ in range(5)]
    call.cancel()
    record = recorded(leaver, got[0].request_id)
    assert sum(m.tokens for m in got) <= record.units["output_tokens"] < 1500
    settled(leaver, record.cost_nanos)


def test_a_deadline_cuts_the_stream_and_says_what_it_cost(platform: Platform, publisher: Account) -> None:
    long = platform.publish(publisher, tiny_gguf(4, context=8192), price={"output_tokens": 1_000_000_000})
    caller = platform.sign_up(credit=10 * USD)
    first = list(caller.text.Chat(ask(long, max_tokens=1)))[-1].usage.cost_nanos  # it is loaded now
    call = caller.text.Chat(ask(long, max_tokens=2000, logit_bias={0: -100, 2: -100}), timeout=0.5)
    got: list[text_pb2.ChatResponse] = []
    with pytest.raises(grpc.RpcError) as caught:
        got.extend(call)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    cost = int(dict(caught.value.trailing_metadata())["mercat-cost-nanos"])
    assert cost == recorded(caller, dict(caught.value.trailing_metadata())["mercat-request-id"]).cost_nanos > 0
    settled(caller, first + cost)


def test_the_proof_has_streams_with_what_was_delivered_and_no_failed_call(
    platform: Platform, publisher: Account, model: str
) -> None:
    long = platform.publish(publisher, tiny_gguf(4, context=8192), price={"output_tokens": 1_000_000_000})
    caller, asked = platform.sign_up(credit=10 * USD), proof_pb2.ProveLedgerRequest()
    asked.start_time.GetCurrentTime()
    whole = list(caller.text.Chat(ask(model)))[-1].usage.cost_nanos
    assert refused(caller.text.Chat(ask(model, temperature=9))).reason == "INVALID_FIELDS"
    call = caller.text.Chat(ask(long, max_tokens=2000, logit_bias={0: -100, 2: -100}))
    some = next(iter(call))
    call.cancel()
    cut = recorded(caller, some.request_id).cost_nanos
    settled(caller, whole + cut)
    *_, last = platform.admin().proof.ProveLedger(asked, timeout=120)
    assert last.proof.clean, last.proof
    got = {f"{s.name} {c.name}": (c.rows, c.nanos) for s in last.proof.sections for c in s.counts}
    assert got["usage calls"] == got["ledger calls"] == (2, whole + cut)


def test_counting_is_free(platform: Platform, model: str, consumer: Account) -> None:
    counted = consumer.text.CountTokens(text_pb2.CountTokensRequest(model=model, prompt="hello the world"))
    assert (counted.model, counted.context_tokens) == (model, 256)
    messages = list(consumer.text.Generate(text_pb2.GenerateRequest(
        model=model, prompt="hello the world", sampling=text_pb2.Sampling(max_tokens=1)
    )))  # fmt: skip
    assert messages[-1].usage.input_tokens == counted.tokens
    settled(consumer, messages[-1].usage.cost_nanos)


def test_rest_streams_lines_and_events(platform: Platform, model: str, consumer: Account) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "sampling": {"maxTokens": 5, "temperature": 0}}
    headers = {"authorization": f"Bearer {consumer.api_key}"}
    url = f"{platform.rest}/v1/models/{model}:chat"
    lines = httpx.post(url, json=body, headers=headers, timeout=30)
    assert lines.headers["content-type"] == "application/x-ndjson"
    texts = [json.loads(line) for line in lines.text.splitlines()]
    events = httpx.post(url, json=body, headers=headers | {"accept": "text/event-stream"}, timeout=30)
    shown = [json.loads(e.removeprefix("data: ")) for e in events.text.split("\n\n") if e]
    assert "".join(t["text"] for t in texts) == "".join(t["text"] for t in shown) != ""
    assert int(texts[-1]["usage"]["costNanos"]) > 0
    wrong = httpx.post(url, json=body | {"sampling": {"temperature": 9}}, headers=headers, timeout=30)
    assert wrong.status_code == 400
    assert wrong.json()["error"]["details"][0]["reason"] == "INVALID_FIELDS"


@pytest.fixture(scope="module")
def minilm(platform: Platform, publisher: Account, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo's encoder, with its tokenizer inside."""
    entry = next(entry for entry in CATALOGUE if entry.name == "minilm")
    assert entry.tokenizer is not None
    file = with_tokenizer(entry.path, entry.tokenizer(), tmp_path_factory.mktemp("minilm"), context=entry.context)
    return platform.publish(publisher, file.read_bytes(), batch=8, price={"input_tokens": 1_000_000_000})


def test_embeddings_are_near_when_meanings_are(platform: Platform, minilm: str) -> None:
    sentences = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell sharply today."]
    caller = platform.sign_up(credit=USD)
    call = caller.text.Embed.with_call(text_pb2.EmbedRequest(model=minilm, inputs=sentences))
    answer, trailers = call[0], dict(call[1].trailing_metadata())
    vectors = np.array([e.values for e in answer.embeddings], np.float32)
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert answer.input_tokens > 20
    assert trailers["mercat-cost-nanos"] == str(answer.cost_nanos) != "0"
    record = recorded(caller, answer.request_id)
    assert (record.units["rows"], record.units["input_tokens"]) == (3, answer.input_tokens)
    settled(caller, answer.cost_nanos, USD)


def test_a_text_that_does_not_fit_is_refused_or_cut(platform: Platform, publisher: Account, minilm: str) -> None:
    caller = platform.sign_up(credit=USD)
    long = ["short", "many words " * 2000]
    error = None
    try:
        caller.text.Embed(text_pb2.EmbedRequest(model=minilm, inputs=long))
    except grpc.RpcError as e:
        error = from_rpc_error(e)
    assert error is not None
    assert error.reason == "PROMPT_TOO_LONG"
    assert [v.field for v in error.violations] == ["inputs[1]"]
    cut = caller.text.Embed(text_pb2.EmbedRequest(model=minilm, inputs=long, truncate=True))
    assert len(cut.embeddings) == 2
    tensors = platform.publish(publisher, graphs.tiny(1), batch=4)
    with pytest.raises(grpc.RpcError) as caught:
        caller.text.Embed(text_pb2.EmbedRequest(model=tensors, inputs=["x"]))
    assert from_rpc_error(caught.value).reason == "NOT_AN_ENCODER"


def test_a_version_says_what_text_model_it_is(platform: Platform, model: str, publisher: Account) -> None:
    asked = registry_pb2.GetVersionRequest(model=model, version="1.0.0")
    text = publisher.registry.GetVersion(asked).version.text
    assert (text.kind, text.chat, text.context_tokens) == (registry_pb2.TEXT_KIND_DECODER, True, 256)
