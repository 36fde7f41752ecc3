"""The demo's text models as programs made for OpenAI call them: its own client, charged and recorded as every call."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator

import numpy as np
import openai
import pytest
from mercat.usage.v1 import usage_pb2

from tests.platform import USD, Account, Platform

CHAT, EMBED = "mercat/smollm2", "mercat/minilm"
QUESTION = [{"role": "user", "content": "Name three rivers of Europe."}]


@pytest.fixture(scope="module")
def person(platform: Platform) -> Account:
    return platform.sign_up(credit=USD)


@pytest.fixture(params=["envoy", "gateway"])
def client(request: pytest.FixtureRequest, platform: Platform, person: Account) -> Iterator[openai.OpenAI]:
    url = platform.rest if request.param == "envoy" else f"http://{platform.addresses()['gateway']}"
    with openai.OpenAI(base_url=f"{url}/openai/v1", api_key=person.api_key, max_retries=0) as made:
        yield made


def test_stream_says_the_same_as_the_whole_answer(client: openai.OpenAI) -> None:
    asked = {"model": CHAT, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content
    pieces = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(piece.delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert len(pieces) > 2
    assert pieces[0].delta.role == "assistant"
    assert pieces[-1].finish_reason == whole.choices[0].finish_reason
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens <= 24
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def test_call_is_charged_and_recorded(client: openai.OpenAI, person: Account) -> None:
    raw = client.chat.completions.with_raw_response.create(model=CHAT, messages=QUESTION, max_tokens=8)
    request_id, cost = raw.headers["x-request-id"], int(raw.headers["mercat-cost-nanos"])
    assert raw.parse().id == f"chatcmpl-{request_id.removeprefix('req_')}"
    deadline = time.monotonic() + 10
    found: list[usage_pb2.UsageRecord] = []
    while not found:
        assert time.monotonic() < deadline
        listed = person.usage.ListUsage(usage_pb2.ListUsageRequest(page_size=100)).records
        found = [record for record in listed if record.request_id == request_id]
    assert found[0].cost_nanos == cost


def test_answer_fits_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "size": {"enum": ["s", "m", "l"]}},
        "required": ["name", "size"], "additionalProperties": False,
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(
        model=CHAT, messages=QUESTION, response_format=form, max_tokens=100, temperature=0
    )
    made = json.loads(answer.choices[0].message.content or "")
    assert set(made) == {"name", "size"}
    assert made["size"] in ("s", "m", "l")


def test_options_reach_the_model(client: openai.OpenAI) -> None:
    asked = {"model": CHAT, "prompt": ["Rain falls", "The sun"], "max_tokens": 8, "seed": 7, "temperature": 1.5}
    first, second = (client.completions.create(**asked) for _ in range(2))
    assert [choice.text for choice in first.choices] == [choice.text for choice in second.choices]
    assert [choice.index for choice in first.choices] == [0, 1]
    echoed = client.completions.create(model=CHAT, prompt="Rain falls", max_tokens=4, echo=True, temperature=0)
    assert echoed.choices[0].text.startswith("Rain falls")
    stopped = client.completions.create(model=CHAT, prompt="1, 2, 3, 4,", max_tokens=30, stop=",", temperature=0)
    assert "," not in stopped.choices[0].text
    logged = (
        client.chat.completions.create(
            model=CHAT, messages=QUESTION, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0
        )
        .choices[0]
        .logprobs
    )
    assert logged is not None
    for token in logged.content or []:
        assert token.logprob <= 0
        assert token.token == max(token.top_logprobs, key=lambda one: one.logprob).token


def test_leaving_a_stream_ends_it(client: openai.OpenAI) -> None:
    with client.chat.completions.create(model=CHAT, messages=QUESTION, max_tokens=400, stream=True) as stream:
        assert len(list(itertools.islice(stream, 3))) == 3
    assert (
        client.chat.completions.create(model=CHAT, messages=QUESTION, max_tokens=1).choices[0].finish_reason == "length"
    )


def test_embeddings_mean_something(client: openai.OpenAI) -> None:
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell today."]
    answer = client.embeddings.create(model=EMBED, input=texts)
    vectors = np.array([one.embedding for one in answer.data])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.3
    plain = client.embeddings.create(model=EMBED, input=texts[0], encoding_format="float", dimensions=vectors.shape[1])
    assert np.allclose(plain.data[0].embedding, vectors[0], atol=1e-5)
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model=EMBED, input="x", dimensions=7)
    assert refused.value.param == "dimensions"


def test_models_are_found(client: openai.OpenAI) -> None:
    assert {CHAT, EMBED} <= {model.id for model in client.models.list()}
    assert client.models.retrieve(CHAT).owned_by == "mercat"


def test_refusals_are_the_client_s_own(client: openai.OpenAI, platform: Platform) -> None:
    long = [{"role": "user", "content": "word " * 50_000}]
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=CHAT, messages=long)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as hot:
        client.chat.completions.create(model=CHAT, messages=QUESTION, temperature=9)
    assert hot.value.param == "temperature"
    for model in ("gpt-4o", "mercat/nothing"):
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=model, messages=QUESTION, stream=True)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="mk_live_nonsense").chat.completions.create(model=CHAT, messages=QUESTION)
    poor = platform.sign_up()
    with pytest.raises(openai.RateLimitError) as broke:
        client.with_options(api_key=poor.api_key).chat.completions.create(model=CHAT, messages=QUESTION)
    assert broke.value.code == "insufficient_quota"
