"""What every engine does, on ONNX Runtime in this process, in a process beside it, and on the real Triton: the same
outputs, the same errors, the same life of a model. Then what only an engine of its own process can do:
die, and come back."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from services.common.errors import EngineFailed
from services.common.rpc.channels import InternalChannel
from services.common.texts.limits import Limits
from services.inference.artifacts import Artifacts
from services.inference.engines import Engine, EngineUnavailable, Loaded
from services.inference.engines.isolated import IsolatedEngine
from services.inference.engines.ort import OrtEngine
from services.inference.engines.triton import TritonEngine, TritonModel
from services.inference.text.decoders import Decoders
from tests import graphs
from tests.integration.inference.behaviour import no_prompts, refuses_each_for_itself, values
from tests.integration.inference.shelf import Shelf
from tests.triton import Triton, running_triton

Arrays = Mapping[str, Any]


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tmp_path_factory.mktemp("triton")) as started:
        yield started


@pytest.fixture(params=["ort", "isolated", "triton"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "triton":
        return Shelf(request.getfixturevalue("triton").repository)
    return Shelf(tmp_path / "repository")


@pytest.fixture
async def engine(request: pytest.FixtureRequest, shelf: Shelf, tmp_path: Path) -> AsyncIterator[Engine]:
    if "triton" in request.fixturenames or shelf.folder.parent != tmp_path:
        made: Engine = TritonEngine(request.getfixturevalue("triton").address, no_prompts)
        yield made
        await made.close()
        return
    control = InternalChannel("127.0.0.1:1", "")  # the files are on the shelf: storage is never asked
    artifacts = Artifacts(control, tmp_path / "cache", 1 << 30, shelf.folder)
    decoders = Decoders(artifacts, Limits(), 8192, lambda deployment: None)
    if request.node.callspec.params.get("shelf") == "isolated":
        made = IsolatedEngine(
            artifacts, threads=1, runs=2, memory_mib=8192, crashed=lambda deployment: None, decoders=decoders
        )
    else:
        made = OrtEngine(artifacts, threads=1, runs=1, decoders=decoders)
    yield made
    await made.close()
    await control.close()


@pytest.fixture
async def triton_engine(triton: Triton) -> AsyncIterator[TritonEngine]:
    made = TritonEngine(triton.address, no_prompts)
    yield made
    await made.close()


def rows(count: int, seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)}


def expected(graph: bytes, inputs: Arrays, outputs: list[str] | None = None) -> list[Any]:
    return list(ort.InferenceSession(graph).run(outputs, dict(inputs)))


@pytest.mark.parametrize(
    ("axes", "shape", "batch"),
    [
        pytest.param(("N", 2), (3, 2), 8, id="batched"),
        pytest.param(("N",), (5,), 8, id="batch-axis-only"),
        pytest.param(("N", "L"), (2, 7), 8, id="dynamic-axes"),
        pytest.param(("N", "L"), (2, 7), 0, id="not-batched"),
        pytest.param(("N",), (0,), 0, id="empty"),
        pytest.param(("N", 2), (0, 2), 8, id="no-rows"),
        pytest.param((), (), 0, id="scalars"),
    ],
)
async def test_every_datatype_comes_out_as_it_went_in(
    engine: Engine, shelf: Shelf, axes: Any, shape: Any, batch: int
) -> None:
    model = await engine.load(await shelf.put(graphs.echo(*axes), max_batch_size=batch))
    inputs = values(shape)
    outputs = await model.run(inputs, [f"{name}_out" for name in inputs])
    for name, array in inputs.items():
        got = outputs[f"{name}_out"]
        assert got.dtype == array.dtype, name
        assert got.shape == array.shape, name
        assert got.tolist() == array.tolist(), name
    await model.unload()


async def test_only_the_wanted_outputs_are_given(engine: Engine, shelf: Shelf) -> None:
    model = await engine.load(await shelf.put(graphs.echo("N", 2), max_batch_size=8))
    outputs = await model.run(values((1, 2)), ["text_out", "i8_out"])
    assert list(outputs) == ["text_out", "i8_out"]
    await model.unload()


async def test_each_of_many_calls_at_once_gets_its_own_rows(engine: Engine, shelf: Shelf) -> None:
    graph = graphs.tiny()
    model = await engine.load(await shelf.put(graph, max_batch_size=32, max_queue_delay_us=2000))
    asked = [rows(1 + n % 5, n) for n in range(200)]
    for inputs, got in zip(asked, await asyncio.gather(*(model.run(i, ["y"]) for i in asked)), strict=True):
        np.testing.assert_allclose(got["y"], expected(graph, inputs)[0], rtol=1e-4, atol=1e-4)
    if isinstance(model, TritonModel):  # which puts them together itself
        statistics = await model.statistics()
        assert statistics.inference_count >= sum(len(i["x"]) for i in asked)
        assert statistics.execution_count < len(asked)
    await model.unload()


async def test_what_a_graph_refuses_fails_nobody_else(engine: Engine, shelf: Shelf) -> None:
    model = await engine.load(await shelf.put(graphs.lookup(), max_batch_size=64, max_queue_delay_us=5000))
    await refuses_each_for_itself(model, "square", "indices element out of data bounds, idx=9")
    await model.unload()


async def test_what_is_no_model_is_not_loaded(engine: Engine, shelf: Shelf) -> None:
    deployment = await shelf.put(b"no graph at all", of=graphs.tiny(), max_batch_size=8)
    with pytest.raises(EngineFailed):
        await engine.load(deployment)


async def test_a_cancelled_run_ends_in_the_engine(engine: Engine, shelf: Shelf) -> None:
    model = await engine.load(await shelf.put(graphs.count()))
    run = asyncio.ensure_future(model.run({"n": np.array([1_000_000_000])}, ["counted"]))
    await asyncio.sleep(0.5)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    async with asyncio.timeout(5):  # or this run would wait for minutes: they go one by one
        assert (await model.run({"n": np.array([3])}, ["counted"]))["counted"].tolist() == [3]
    await model.unload()


async def test_loading_twice_is_harmless(engine: Engine, shelf: Shelf) -> None:
    deployment = await shelf.put(graphs.addition(), max_batch_size=8)
    first, second = await asyncio.gather(engine.load(deployment), engine.load(deployment))
    for model in (first, second):
        got = await model.run({"a": np.array([1, 2]), "b": np.array([3, 4])}, ["sum"])
        assert got["sum"].tolist() == [4, 6]
    await first.unload()


@contextlib.asynccontextmanager
async def load_of_calls(call: Callable[[], Awaitable[Any]], width: int = 8) -> AsyncIterator[list[Any]]:
    """Calls without a pause; the list fills with the answers. A failed call fails the test at the end."""
    given: list[Any] = []
    going = True

    async def one() -> None:
        while going:
            given.append(await call())
            await asyncio.sleep(0)

    tasks = [asyncio.ensure_future(one()) for _ in range(width)]
    try:
        yield given
    finally:
        going = False
        await asyncio.gather(*tasks)


async def reached(answers: list[Any], more: int) -> None:
    """Waits for so many more answers."""
    wanted = len(answers) + more
    async with asyncio.timeout(30):
        while len(answers) < wanted:
            await asyncio.sleep(0.01)


async def test_a_new_version_takes_over_under_load(engine: Engine, shelf: Shelf) -> None:
    graph, next_graph = graphs.tiny(1), graphs.tiny(2)
    old = await shelf.put(graph, max_batch_size=16)
    current: list[Loaded] = [await engine.load(old)]
    inputs = rows(2, 0)
    async with load_of_calls(lambda: current[0].run(inputs, ["y"])) as answers:
        await reached(answers, 50)
        new = await shelf.put(next_graph, model_id=old.model_id, number=2, max_batch_size=16)
        assert new.repository_model == old.repository_model
        first = current[0]
        current[0] = await engine.load(new)
        await reached(answers, 50)
        await first.unload()
        await reached(answers, 50)
    np.testing.assert_allclose(answers[0]["y"], expected(graph, inputs)[0], rtol=1e-4)
    np.testing.assert_allclose(answers[-1]["y"], expected(next_graph, inputs)[0], rtol=1e-4)
    await current[0].unload()


async def test_unloading_one_version_leaves_the_others(engine: Engine, shelf: Shelf) -> None:
    graph = graphs.tiny(1)
    first = await shelf.put(graph, max_batch_size=16)
    model = await engine.load(first)
    others = []
    for number in (2, 3):
        deployment = await shelf.put(graphs.tiny(number), model_id=first.model_id, number=number, max_batch_size=16)
        others.append(await engine.load(deployment))
    inputs = rows(2, 0)
    async with load_of_calls(lambda: model.run(inputs, ["y"])) as answers:
        await reached(answers, 20)
        for other in others:
            await other.unload()
        await reached(answers, 20)
    for answer in answers:
        np.testing.assert_allclose(answer["y"], expected(graph, inputs)[0], rtol=1e-4)
    await model.unload()


async def test_a_model_that_is_unloaded_under_load_goes_on_for_those_who_hold_it(engine: Engine, shelf: Shelf) -> None:
    graph = graphs.tiny(3)
    model = await engine.load(await shelf.put(graph, max_batch_size=16))
    inputs = rows(1, 0)
    async with load_of_calls(lambda: model.run(inputs, ["y"])) as answers:
        for _ in range(3):
            await reached(answers, 20)
            await model.unload()
        await reached(answers, 20)
    for answer in answers:
        np.testing.assert_allclose(answer["y"], expected(graph, inputs)[0], rtol=1e-4)
    await model.unload()


# Triton alone


async def test_triton_dies_and_comes_back(triton: Triton, triton_engine: TritonEngine) -> None:
    engine, graph, inputs = triton_engine, graphs.tiny(4), rows(2, 0)
    model = await engine.load(await Shelf(triton.repository).put(graph, max_batch_size=16))
    await model.run(inputs, ["y"])
    assert await engine.healthy()
    triton.kill()
    with pytest.raises(EngineUnavailable) as refused:
        await model.run(inputs, ["y"])
    assert refused.value.retry_after
    assert not await engine.healthy()
    with pytest.raises(EngineUnavailable):
        await engine.load(await Shelf(triton.repository).put(graph))
    triton.start()
    async with asyncio.timeout(1):
        while not await engine.healthy():
            await asyncio.sleep(0.02)
    got = await model.run(inputs, ["y"])  # it was loaded again, and nobody had to ask
    np.testing.assert_allclose(got["y"], expected(graph, inputs)[0], rtol=1e-4)
    await model.unload()


async def test_a_triton_that_hangs_is_away(triton: Triton, triton_engine: TritonEngine) -> None:
    engine, inputs = triton_engine, rows(2, 0)
    model = await engine.load(await Shelf(triton.repository).put(graphs.tiny(), max_batch_size=16))
    assert await engine.healthy()
    os.kill(triton.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(EngineUnavailable):
                await model.run(inputs, ["y"])
        assert not await engine.healthy()
    finally:
        os.kill(triton.pid, signal.SIGCONT)
    async with asyncio.timeout(5):
        while not await engine.healthy():
            await asyncio.sleep(0.02)
    await model.run(inputs, ["y"])
    await model.unload()


async def answers(model: Loaded, inputs: Arrays) -> bool:
    try:
        await model.run(inputs, ["y"])
    except (EngineFailed, EngineUnavailable):
        await asyncio.sleep(0.05)
        return False
    return True


async def test_a_model_whose_process_dies_answers_again(triton: Triton, triton_engine: TritonEngine) -> None:
    before = {process.pid for process in triton.stubs()}
    inputs = rows(2, 0)
    model = await triton_engine.load(await Shelf(triton.repository).put(graphs.tiny(), max_batch_size=16))
    await model.run(inputs, ["y"])
    (stub,) = {process.pid for process in triton.stubs()} - before
    os.kill(stub, signal.SIGKILL)
    # The wheel's Triton dies with the process, or waits for it for ever, when that dies at a bad moment.
    for patience in (15, 30):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not await answers(model, inputs):
                    if not triton.alive:
                        triton.start()
            break
        triton.kill()
        triton.start()
    assert await answers(model, inputs)
    await model.unload()


async def test_workers_that_share_a_triton_take_nothing_from_each_other(
    triton: Triton, triton_engine: TritonEngine
) -> None:
    shelf, other = Shelf(triton.repository), TritonEngine(triton.address, no_prompts)
    versions = [
        await shelf.put(graphs.tiny(1), model_id="mdl_shared", number=n, max_batch_size=16) for n in range(1, 6)
    ]
    inputs = rows(1, 0)
    model = await triton_engine.load(versions[0])
    async with load_of_calls(lambda: model.run(inputs, ["y"]), 4) as answers:
        for _ in range(2):
            models = await asyncio.gather(
                *((triton_engine if n % 2 else other).load(version) for n, version in enumerate(versions))
            )
            await asyncio.gather(*(m.run(inputs, ["y"]) for m in models))
            await asyncio.gather(*(m.unload() for m in models[1:]))
        await reached(answers, 10)
    await model.unload()
    await other.close()


async def test_a_version_that_triton_does_not_find(triton: Triton, triton_engine: TritonEngine) -> None:
    deployment = await Shelf(triton.repository).put(graphs.tiny())
    deployment.repository_version = 7
    with pytest.raises(EngineFailed):
        await triton_engine.load(deployment)
    deployment.repository_model = "nothing"
    with pytest.raises(EngineFailed):
        await triton_engine.load(deployment)
