"""What every decoder does, in a process beside the worker and on the real Triton: the same texts, pieces, ends and
errors. Then what is Triton's alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from services.common.errors import DeadlineExceeded, EngineFailed, InvalidFields, ResourceExhausted
from services.common.rpc.channels import InternalChannel
from services.common.texts import (
    LENGTH,
    STOP,
    BadFormat,
    BadPrompt,
    NoChatTemplate,
    Options,
    Piece,
    Prompt,
    PromptTooLong,
)
from services.common.texts.limits import Limits
from services.inference.artifacts import Artifacts
from services.inference.engines import EngineUnavailable
from services.inference.engines.ort import OrtEngine
from services.inference.engines.placed import PlacedEngine
from services.inference.engines.triton import TritonEngine
from services.inference.engines.triton_decoder import TritonDecoder
from services.inference.engines.triton_version import TritonVersion
from services.inference.text import Decoder
from services.inference.text.decoders import Decoders
from services.inference.text.process import DecoderProcess
from services.inference.tickets import TooLate
from tests.decoders import TEMPLATE, onnx_of, tiny_gguf, vocabulary
from tests.integration.inference.shelf import Shelf
from tests.triton import Triton, running_triton

HELLO = Prompt(text="hello world")
CHAT = Prompt(messages=[{"role": "user", "content": "hello"}])
# It never ends by itself: no token that would end it may come.
ENDLESS = {"logit_bias": {0: -100.0, 2: -100.0}}
TOKENS = {token: i for i, token in enumerate(vocabulary())}
HELLO_TOKENS = [TOKENS[token] for token in ("hello", "Ġwor", "l", "d")]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tmp_path_factory.mktemp("triton")) as started:
        yield started


@pytest.fixture(scope="module")
def shelf(triton: Triton) -> Shelf:
    return Shelf(triton.repository)


@pytest.fixture(scope="module")
def graph() -> bytes:
    """Its template does not take what a user says as `bad`."""
    strict = "{% if messages[0]['content'] == 'bad' %}{{ raise_exception('not that') }}{% endif %}" + TEMPLATE
    return onnx_of(tiny_gguf(1, context=4096, metadata={"tokenizer.chat_template": strict}))


@pytest.fixture(scope="module")
async def decoders(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Decoders]:
    control = InternalChannel("127.0.0.1:1", "")  # the files are on the shelf: storage is never asked
    artifacts = Artifacts(control, tmp_path_factory.mktemp("cache"), 1 << 30, shelf.folder)
    yield Decoders(artifacts, Limits(context=4096), 8192, lambda deployment: None)
    await control.close()


@pytest.fixture(scope="module")
async def engine(triton: Triton, decoders: Decoders) -> AsyncIterator[TritonEngine]:
    made = TritonEngine(triton.address, decoders.elsewhere)
    yield made
    await made.close()


@asynccontextmanager
async def opened(engine: TritonEngine | Decoders, shelf: Shelf, graph: bytes, **limits: int) -> AsyncIterator[Any]:
    """A graph on one of the engines, within limits."""
    deployment = await shelf.put_decoder(graph, **limits)
    if isinstance(engine, TritonEngine):
        made: Any = await engine.load_decoder(deployment)
    else:
        made = await replace(engine, limits=Limits(**limits)).load(deployment)
    yield made
    await made.unload()


@pytest.fixture(scope="module")
async def embedded(decoders: Decoders, shelf: Shelf, graph: bytes) -> AsyncIterator[DecoderProcess]:
    async with opened(decoders, shelf, graph, context=4096) as made:
        yield made


@pytest.fixture(scope="module")
async def on_triton(engine: TritonEngine, shelf: Shelf, graph: bytes) -> AsyncIterator[TritonDecoder]:
    async with opened(engine, shelf, graph, context=4096) as made:
        yield made


@pytest.fixture(params=["embedded", "on_triton"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["embedded", "triton"])
async def narrow(
    request: pytest.FixtureRequest, engine: TritonEngine, decoders: Decoders, shelf: Shelf
) -> AsyncIterator[Decoder]:
    """One answer at a time, which may take minutes, and one that waits. Not for chats."""
    graph = onnx_of(tiny_gguf(2, context=100_000, metadata={"tokenizer.chat_template": None}))
    runs = engine if request.param == "triton" else decoders
    async with opened(runs, shelf, graph, slots=1, waiting=1, context=100_000) as made:
        yield made


async def told(decoder: Decoder, prompt: Prompt = HELLO, **options: Any) -> list[Piece]:
    """All pieces of one call, of which no more than `most_tokens` were tokens."""
    prepared = await decoder.prepare(prompt, Options(**{"max_tokens": 24, "temperature": 0.0} | options))
    assert prepared.input_tokens == await decoder.count(prompt)
    pieces = [piece async for some in decoder.generate(prepared, account="org_1") for piece in some]
    assert 0 < sum(piece.tokens for piece in pieces) <= prepared.most_tokens
    assert {piece.index for piece in pieces if piece.finish} == set(range(options.get("n", 1)))
    return pieces


async def ended(answer: AsyncIterator[list[Piece]]) -> None:
    async for _ in answer:
        pass


def text(pieces: list[Piece], index: int = 0) -> str:
    return "".join(piece.text for piece in pieces if piece.index == index)


async def test_a_text_comes_in_pieces_and_ends_at_its_longest(decoder: Decoder) -> None:
    pieces = await told(decoder, **ENDLESS)
    assert len([piece for piece in pieces if piece.text]) > 1
    assert sum(piece.tokens for piece in pieces) == 24
    assert [piece.finish for piece in pieces if piece.finish] == [LENGTH]
    assert text(await told(decoder, **ENDLESS)) == text(pieces)
    assert (await told(decoder, **ENDLESS, max_tokens=1))[-1].finish == LENGTH


async def test_a_stop_string_ends_it_and_is_left_out(decoder: Decoder) -> None:
    whole = text(await told(decoder, **ENDLESS))
    stop = whole[5:7]
    pieces = await told(decoder, **ENDLESS, stop=(stop,))
    assert pieces[-1].finish == STOP
    assert text(pieces) == whole[: whole.index(stop)]


async def test_a_stop_token_ends_it(decoder: Decoder) -> None:
    # Only one token may follow, which ends answers.
    pieces = await told(decoder, regex="a")
    assert text(pieces) == "a"
    assert pieces[-1].finish == STOP


async def test_a_seed_gives_the_same_text_again(decoder: Decoder) -> None:
    hot = {**ENDLESS, "temperature": 1.5, "top_p": 0.9, "top_k": 50, "min_p": 0.01}
    first = text(await told(decoder, **hot, seed=7))
    assert text(await told(decoder, **hot, seed=7)) == first
    assert text(await told(decoder, **hot, seed=8)) != first
    pieces = await told(decoder, **hot, seed=7, n=2)
    assert text(pieces, 0) == first != text(pieces, 1)


async def test_penalties_and_biases_reach_the_engine(decoder: Decoder) -> None:
    plain = text(await told(decoder, **ENDLESS))
    for changed in ({"repetition_penalty": 5.0}, {"presence_penalty": 2.0, "frequency_penalty": 2.0}):
        assert text(await told(decoder, **ENDLESS, **changed)) != plain
    only = await told(decoder, logit_bias={40: 100.0}, max_tokens=3)
    assert text(only) == 3 * text(only)[0]


async def test_an_answer_has_the_form_that_was_asked_for(decoder: Decoder) -> None:
    assert text(await told(decoder, regex="[0-9]{3}x")).rstrip("x").isdigit()
    schema = json.dumps({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
                         "additionalProperties": False})  # fmt: skip
    assert json.loads(text(await told(decoder, json_schema=schema, max_tokens=100)))["a"] in (1, 2)
    with pytest.raises(BadFormat):
        await decoder.prepare(HELLO, Options(regex="("))


async def test_chats_texts_and_tokens_are_one_prompt(decoder: Decoder) -> None:
    written = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    answer = text(await told(decoder, CHAT))
    assert text(await told(decoder, Prompt(text=written))) == answer
    hello = await decoder.count(Prompt(text="hello"))
    assert await decoder.count(CHAT) == await decoder.count(Prompt(text=written)) > hello
    assert text(await told(decoder, Prompt(tokens=HELLO_TOKENS))) == text(await told(decoder))


async def test_calls_run_together_and_apart(decoder: Decoder) -> None:
    prompts = [Prompt(text=f"hello {i}") for i in range(24)]
    apart = [text(await told(decoder, prompt, **ENDLESS)) for prompt in prompts[:4]]
    together = await asyncio.gather(*(told(decoder, prompt, **ENDLESS) for prompt in prompts))
    assert [text(pieces) for pieces in together[:4]] == apart


async def test_who_leaves_frees_the_place(narrow: Decoder) -> None:
    first = await narrow.prepare(HELLO, Options(**ENDLESS))
    second = await narrow.prepare(HELLO, Options(max_tokens=2))
    async with asyncio.timeout(30):
        async with aclosing(narrow.generate(first, account="org_1")) as pieces:
            assert await anext(pieces)
            waiting = asyncio.ensure_future(anext(narrow.generate(second, account="org_2")))
            await asyncio.sleep(0.2)
            assert not waiting.done()
        assert await waiting


async def test_who_finds_too_many_is_told_so(narrow: Decoder) -> None:
    calls = [narrow.generate(await narrow.prepare(HELLO, Options(**ENDLESS)), account=f"org_{i}") for i in range(3)]
    async with asyncio.timeout(30):
        assert await anext(calls[0])
        waiting = asyncio.ensure_future(anext(calls[1]))
        await asyncio.sleep(0.2)
        with pytest.raises(ResourceExhausted) as refused:
            await anext(calls[2])
        assert refused.value.reason == "QUEUE_FULL"
        assert refused.value.retry_after
        await calls[0].aclose()
        assert await waiting
        await calls[1].aclose()


async def test_a_deadline_ends_it(narrow: Decoder) -> None:
    now = asyncio.get_running_loop().time
    late = narrow.generate(await narrow.prepare(HELLO, Options()), account="org_1", deadline=now() - 1)
    with pytest.raises(TooLate):
        await anext(late)
    cut = narrow.generate(await narrow.prepare(HELLO, Options(**ENDLESS)), account="org_1", deadline=now() + 0.5)
    assert await anext(cut)
    with pytest.raises(DeadlineExceeded):
        await ended(cut)


async def test_what_cannot_be_done_is_refused_before(decoder: Decoder, narrow: Decoder) -> None:
    for prompt, options, error in (
        (Prompt(text="a" * 5000), {}, PromptTooLong),
        (Prompt(tokens=[10_000]), {}, BadPrompt),
        (HELLO, {"json_schema": "no"}, BadFormat),
        (HELLO, {"logit_bias": {10_000: 1.0}}, InvalidFields),
        (HELLO, {"n": 17}, InvalidFields),
    ):
        with pytest.raises(error):
            await decoder.prepare(prompt, Options(**options))
    with pytest.raises(BadPrompt, match="not that"):
        await decoder.count(Prompt(messages=[{"role": "user", "content": "bad"}]))
    with pytest.raises(NoChatTemplate):
        await narrow.count(CHAT)


async def test_both_engines_go_on_alike(embedded: DecoderProcess, on_triton: TritonDecoder) -> None:
    assert embedded.context_tokens == on_triton.context_tokens == 4096
    for prompt in (HELLO, CHAT, Prompt(text="the world")):
        assert text(await told(on_triton, prompt)) == text(await told(embedded, prompt))


async def test_what_triton_is_not_told_is_refused(on_triton: TritonDecoder) -> None:
    with pytest.raises(BadPrompt, match="no text"):  # as text "he" is one token
        await on_triton.prepare(Prompt(tokens=[TOKENS["h"], TOKENS["e"]]), Options())
    with pytest.raises(InvalidFields, match="logprobs"):
        await on_triton.prepare(HELLO, Options(logprobs=1))


async def test_other_clients_find_the_tensors_of_the_vllm_backend(on_triton: TritonDecoder, triton: Triton) -> None:
    async def asked(**inputs: Any) -> list[dict[str, Any]]:
        tensors = []
        for name, value in inputs.items():
            flag = isinstance(value, bool)
            tensors.append(InferInput(name, [1], "BOOL" if flag else "BYTES"))
            tensors[-1].set_data_from_numpy(np.array([value if flag else value.encode()], bool if flag else object))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": on_triton.version.name, "inputs": tensors}

        found = []
        async for result, error in client.stream_infer(requests()):
            if error is not None:
                raise error
            outputs = [output.name for output in result.get_response().outputs]
            found.append({name: result.as_numpy(name).tolist()[0] for name in outputs})
        return found

    wanted = text(await told(on_triton))
    options = json.dumps({"temperature": 0, "max_tokens": 24})
    async with InferenceServerClient(triton.address) as client:
        (whole,) = await asked(text_input="hello world", sampling_parameters=options)
        assert whole == {"text_output": b"hello world" + wanted.encode()}
        (alone,) = await asked(
            text_input="hello world", sampling_parameters=options, exclude_input_in_output=True,
            return_finish_reason=True, return_num_input_tokens=True, return_num_output_tokens=True,
        )  # fmt: skip
        assert alone["text_output"] == wanted.encode()
        assert alone["finish_reason"] in (b"stop", b"length")
        assert alone["num_input_tokens"] == len(HELLO_TOKENS)
        assert 0 < alone["num_output_tokens"] <= 24
        pieces = await asked(text_input="hello world", sampling_parameters=options, stream=True)
        assert b"".join(piece["text_output"] for piece in pieces) == wanted.encode()
        with pytest.raises(InferenceServerException, match="best_of"):
            await asked(text_input="hello", sampling_parameters='{"best_of": 2}', stream=True)
        with pytest.raises(InferenceServerException, match="PROMPT_TOO_LONG"):
            await asked(text_input="a" * 5000, stream=True)


async def test_calls_go_on_when_triton_goes_and_comes_back(
    engine: TritonEngine, decoders: Decoders, on_triton: TritonDecoder, shelf: Shelf, graph: bytes, triton: Triton
) -> None:
    deployment = await shelf.put_decoder(graph, context=4096)
    deployment.settings.placement = registry_pb2.PLACEMENT_TRITON_OR_EMBEDDED
    beside = OrtEngine(decoders.artifacts, threads=1, runs=1, decoders=decoders)
    either = await PlacedEngine(beside, engine).load_decoder(deployment)
    before = text(await told(on_triton))
    assert text(await told(either)) == before
    answers = [d.generate(await d.prepare(HELLO, Options(**ENDLESS)), account="org_1") for d in (on_triton, either)]
    for answer in answers:
        assert await anext(answer)
    there = await on_triton.prepare(HELLO, Options())
    here = await either.prepare(HELLO, Options(max_tokens=24, temperature=0))
    triton.kill()
    for answer in answers:  # of which the caller has a part
        with pytest.raises(EngineFailed):
            await ended(answer)
    with pytest.raises(EngineUnavailable):
        await anext(on_triton.generate(there, account="org_1"))
    again = [piece async for some in either.generate(here, account="org_1") for piece in some]
    assert text(again) == text(await told(either)) == before
    await asyncio.to_thread(triton.start)
    while not await engine.healthy():
        await asyncio.sleep(0.05)
    assert text(await told(on_triton)) == before  # though it held no version any more
    async with asyncio.timeout(60):
        while not await TritonVersion(engine, deployment).is_ready():
            await asyncio.sleep(0.1)
    assert text(await told(either)) == before
    await either.unload()
    await beside.close()
