"""A decoder in its own process: streams as the loop makes them, ends of calls that reach it, and its own end, which is
told to those it concerns and forgotten by the next call."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from mercat.registry.v1 import registry_pb2

from services.common.errors import DeadlineExceeded, EngineFailed
from services.common.texts import LENGTH, BadFormat, BadPrompt, Options, Piece, Prompt, PromptTooLong
from services.common.texts.limits import Limits
from services.inference.engines import EngineUnavailable
from services.inference.engines.isolated import EngineCrashed
from services.inference.text import Prepared
from services.inference.text.decoder.engine import Engine
from services.inference.text.news import Event
from services.inference.text.process import DecoderProcess
from services.inference.tickets import TooLate
from tests.decoder_graph import decoder

LIMITS = Limits(slots=8)
HELLO = Prompt(messages=[{"role": "user", "content": "hello there, ä"}])
LONG = Options(max_tokens=400, logit_bias={0: -100, 2: -100}, seed=3, logprobs=1)
SHORT = replace(LONG, max_tokens=12)
Make = Callable[..., Awaitable[DecoderProcess]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes a decoder; keyword arguments are of its configuration. `crashes` of it counts what was told of it."""
    made: list[DecoderProcess] = []

    async def load(patience: float = 30.0, **config: object) -> DecoderProcess:
        path = tmp_path / "model.onnx"
        path.write_bytes(decoder(config=config))
        deployment = registry_pb2.Deployment(model="test/decoder", version="1.0.0")
        process = DecoderProcess(
            path, deployment, LIMITS, memory_mib=8192, crashed=crashes.append, patience=patience
        )  # fmt: skip
        made.append(process)
        await process.open()
        return process

    yield load
    for process in made:
        await process.unload()
    crashes.clear()


crashes: list[registry_pb2.Deployment] = []


def child() -> psutil.Process:
    """The decoder's process."""
    found = [p for p in psutil.Process().children() if p.is_running() and "services.inference.text.host" in p.cmdline()]
    assert len(found) == 1
    return found[0]


async def answer(process: DecoderProcess, prompt: Prompt = HELLO, options: Options = SHORT) -> list[Piece]:
    prepared = await process.prepare(prompt, options)
    return [piece async for pieces in process.generate(prepared, account="a") for piece in pieces]


async def collect(stream: AsyncIterator[list[Piece]], told: list[Piece]) -> None:
    async for pieces in stream:
        told += pieces


async def settled(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_stream_is_what_the_loop_makes(make: Make, tmp_path: Path) -> None:
    process = await make()
    told: list[Event] = []
    engine = Engine(tmp_path / "model.onnx", LIMITS, told.extend)
    engine.prepare(1, HELLO, SHORT)
    engine.generate(1, "a")
    while engine.loop.turn():
        pass
    pieces = await answer(process)
    assert pieces == [piece for event in told for piece in event.pieces]
    assert pieces[-1].finish == LENGTH
    assert sum(len(piece.logprobs) for piece in pieces) == 12
    assert process.context_tokens == engine.context_tokens == 512
    assert await process.count(HELLO) == engine.count(HELLO)


async def test_many_streams_at_once_and_a_known_prompt(make: Make) -> None:
    process = await make()
    alone = await answer(process)
    prepared = [await process.prepare(HELLO, SHORT) for _ in range(20)]

    async def run(p: Prepared) -> list[Piece]:
        return [piece async for pieces in process.generate(p, account="a") for piece in pieces]

    assert all(pieces == alone for pieces in await asyncio.gather(*map(run, prepared)))
    known = {p.cached_tokens for p in prepared}
    assert known == {(prepared[0].input_tokens - 2) // 32 * 32}
    stats = process.stats
    assert (stats.running, stats.waiting, stats.tokens) == (0, 0, 21 * 12)
    assert stats.cached_tokens == 20 * known.pop()


async def test_what_is_refused_comes_back_as_its_own_error(make: Make) -> None:
    process = await make()
    with pytest.raises(PromptTooLong):
        await process.prepare(Prompt(text="x" * 600), SHORT)
    with pytest.raises(BadPrompt):
        await process.count(Prompt(tokens=[10**6]))
    with pytest.raises(BadFormat):
        await process.prepare(HELLO, replace(SHORT, regex="("))
    prepared = await process.prepare(HELLO, SHORT)
    with pytest.raises(TooLate):
        await anext(process.generate(prepared, account="a", deadline=asyncio.get_running_loop().time()))
    assert not crashes


async def test_a_deadline_ends_an_answer(make: Make) -> None:
    process = await make()
    prompt = Prompt(text="hello")
    busy = [asyncio.create_task(answer(process, prompt, replace(LONG, seed=i))) for i in range(7)]
    prepared = await process.prepare(prompt, LONG)
    told: list[Piece] = []
    stream = process.generate(prepared, account="a", deadline=asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(DeadlineExceeded) as e:
        await collect(stream, told)
    assert not isinstance(e.value, TooLate) or not told
    assert sum(piece.tokens for piece in told) < 400
    await asyncio.gather(*busy)


async def test_leaving_frees_the_place(make: Make) -> None:
    process = await make()
    prepared = await process.prepare(HELLO, LONG)
    async with aclosing(process.generate(prepared, account="a")) as stream:
        async for _ in stream:
            break
    begun = asyncio.Event()

    async def stay() -> None:
        prepared = await process.prepare(HELLO, LONG)
        async for _ in process.generate(prepared, account="a"):
            begun.set()

    task = asyncio.create_task(stay())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await answer(process)
    assert process.stats.running == 0
    assert process.stats.tokens < 2 * 400


async def test_who_is_slow_gets_much_at_once(make: Make) -> None:
    process = await make()
    prepared = await process.prepare(HELLO, replace(LONG, logprobs=None))
    lists = []
    async for pieces in process.generate(prepared, account="a"):
        lists.append(len(pieces))
        await asyncio.sleep(0.2)
    assert max(lists) > 1


async def test_prompts_are_counted_while_answers_are_made(make: Make) -> None:
    process = await make()
    running = asyncio.gather(*(answer(process, options=LONG) for _ in range(32)))  # four times what runs at once
    await settled(lambda: process.stats.tokens > 0)
    assert await process.count(HELLO) > 10
    assert not running.done()
    await running


async def test_a_forgotten_prompt_is_gone(make: Make) -> None:
    process = await make()
    prepared = await process.prepare(HELLO, SHORT)
    process.forget(prepared)
    process.forget(prepared)
    with pytest.raises(EngineFailed):
        await anext(process.generate(prepared, account="a"))
    assert await answer(process)


async def test_a_crash_ends_its_streams_and_the_next_call_works(make: Make) -> None:
    process = await make()
    expected = await answer(process)
    running, idle = await process.prepare(HELLO, LONG), await process.prepare(HELLO, SHORT)
    stream = process.generate(running, account="a")
    assert await anext(stream)
    first = child()
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(EngineCrashed):
        await collect(stream, [])
    with pytest.raises(EngineCrashed):
        await anext(process.generate(idle, account="a"))
    assert [d.model for d in crashes] == ["test/decoder"]
    assert await answer(process) == expected
    assert child().pid != first.pid
    assert len(crashes) == 1


async def test_the_process_has_no_secrets_and_ends_with_its_worker(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERCAT_SECRET", "hush")
    process = await make()
    assert "MERCAT_SECRET" not in child().environ()
    there = child()
    await process.unload()
    assert not there.is_running()
    assert not crashes
    with pytest.raises(EngineUnavailable):
        await process.count(HELLO)


async def test_unloading_waits_for_answers(make: Make) -> None:
    process = await make()
    prepared = await process.prepare(HELLO, LONG)
    stream = process.generate(prepared, account="a")
    told = list(await anext(stream))
    unloading = asyncio.create_task(process.unload())
    async for pieces in stream:
        told += pieces
    await unloading
    assert sum(piece.tokens for piece in told) == 400


@pytest.mark.parametrize("config", [{"layers": 3}, {"kind": "encoder"}])
async def test_what_does_not_load_has_failed(make: Make, config: dict[str, object]) -> None:
    with pytest.raises(EngineFailed):
        await make(**config)
    assert not crashes


async def test_a_template_that_does_not_end_is_ended(make: Make) -> None:
    process = await make(chat_template="{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(BadPrompt):
        await process.count(HELLO)
    assert not crashes


async def test_a_template_that_cannot_be_ended_is_ended_with_its_process(make: Make) -> None:
    process = await make(patience=3.0, chat_template="{{ (8 + messages | length) ** (9 ** 9) }}")
    with pytest.raises(EngineCrashed):
        await process.count(HELLO)
    assert len(crashes) == 1
    assert await process.count(Prompt(text="abc")) == 3
