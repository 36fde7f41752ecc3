"""TorchScript archives and SavedModels on the real Triton, by the backends `pytorch` and `tensorflow`: what goes in and
comes out, who fails with whom, the life of a version, and a Triton that lacks the packages."""

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import EngineFailed
from services.inference.engines import ModelRefused
from services.inference.engines.triton import TritonEngine, TritonModel
from tests import frameworks
from tests.converters import need_converters
from tests.frameworks import ECHOED, ROWS, TORCH_ECHOED
from tests.integration.inference.behaviour import no_prompts, refuses_each_for_itself, values
from tests.integration.inference.shelf import Shelf
from tests.triton import Triton, running_triton


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frameworks.made(need_converters(), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tmp_path_factory.mktemp("triton"), need_converters()) as started:
        yield started


@pytest.fixture
async def engine(triton: Triton) -> AsyncIterator[TritonEngine]:
    made = TritonEngine(triton.address, no_prompts)
    yield made
    await made.close()


@dataclass
class Framework:
    """One framework's models, and versions of them in Triton's repository."""

    name: str
    form: str
    models: Path
    shelf: Shelf

    @property
    def torch(self) -> bool:
        return self.name == "pytorch"

    def file(self, name: str) -> bytes:
        """A model as it is pushed."""
        path = self.models / name
        if self.torch:
            return path.with_name(f"{name}.pt").read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for part in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(part, part.relative_to(path))
        return buffer.getvalue()

    async def put(self, data: bytes, takes: tensor_pb2.Signature, **settings: Any) -> registry_pb2.Deployment:
        placed = registry_pb2.PLACEMENT_TRITON
        return await self.shelf.put_form(self.form, data, takes, placement=placed, **settings)

    async def two(self, *shape: int, **settings: Any) -> registry_pb2.Deployment:
        """The model with two outputs, whose input is declared to have this shape."""
        gives: Sequence[Any] = [("best", "INT64", [-1]), ("scores", "FP32", [-1, 3])]
        if self.torch:
            gives = [("output__0", "FP32", [-1, 2]), ("output__1", "FP32", [-1])]
        takes = signature([("x", "FP32", shape or [-1, 4])], gives)
        return await self.put(self.file("scripted" if self.torch else "saved_model"), takes, **settings)

    async def lookup(self, **settings: Any) -> registry_pb2.Deployment:
        output = "output__0" if self.torch else "square"
        takes = signature([("index", "INT64", [-1])], [(output, "INT64", [-1])])
        return await self.put(self.file("lookup"), takes, **settings)

    def expected(self) -> list[np.ndarray]:
        """What the framework gave for ROWS, by the model with two outputs."""
        with np.load(self.models / ("scripted.npz" if self.torch else "saved_model.npz")) as arrays:
            return [arrays["out.0"], arrays["out.1"]]


@pytest.fixture(params=[("pytorch", "torchscript"), ("tensorflow", "saved-model")], ids=["pytorch", "tensorflow"])
def framework(request: pytest.FixtureRequest, models: Path, triton: Triton) -> Framework:
    return Framework(*request.param, models, Shelf(triton.repository))


def signature(inputs: Sequence[Any], outputs: Sequence[Any]) -> tensor_pb2.Signature:
    """Of names, datatypes and shapes."""

    def specs(tensors: Sequence[Any]) -> list[tensor_pb2.TensorSpec]:
        return [tensor_pb2.TensorSpec(name=n, datatype=kind, shape=shape) for n, kind, shape in tensors]

    return tensor_pb2.Signature(inputs=specs(inputs), outputs=specs(outputs))


def outputs(model: TritonModel) -> list[str]:
    return list(model._outputs)


_KINDS = {"f": "FP", "i": "INT", "u": "UINT"}


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        pytest.param((2, 7), 8, id="batched"),
        pytest.param((5,), 8, id="batch-axis-only"),
        pytest.param((2, 7), 0, id="not-batched"),
        pytest.param((0,), 0, id="empty"),
        pytest.param((), 0, id="scalars"),
    ],
)
async def test_every_datatype_comes_out_as_it_went_in(
    engine: TritonEngine, framework: Framework, shape: tuple[int, ...], batch: int
) -> None:
    torch = framework.torch
    # TorchScript's by their places: `bool__8`, `output__8`.
    takes = {f"{name}__{i}" if torch else name: name for i, name in enumerate(TORCH_ECHOED if torch else ECHOED)}
    gives = {f"output__{i}" if torch else f"{name}_out": name for i, name in enumerate(takes.values())}
    kinds = {name: "BOOL" if name == "bool" else f"{_KINDS[name[0]]}{name[1:]}" for name in takes.values()}
    inputs, outputs = ([(t, kinds[name], [-1] * len(shape)) for t, name in side.items()] for side in (takes, gives))
    data = framework.file("echo" if torch else f"echo{len(shape)}")
    model = await engine.load(await framework.put(data, signature(inputs, outputs), max_batch_size=batch))
    arrays = values(shape)
    given = await model.run({tensor: arrays[name] for tensor, name in takes.items()}, list(gives))
    for tensor, name in gives.items():
        assert given[tensor].dtype == arrays[name].dtype, name
        assert given[tensor].shape == shape, name
        assert given[tensor].tolist() == arrays[name].tolist(), name
    await model.unload()


async def test_each_of_many_calls_gets_its_own_rows(engine: TritonEngine, framework: Framework, triton: Triton) -> None:
    model = await engine.load(await framework.two(max_batch_size=32, max_queue_delay_us=2000))
    rng = np.random.default_rng(1)
    asked = [rng.integers(0, len(ROWS), 1 + n % 5) for n in range(100)]
    answers = await asyncio.gather(*(model.run({"x": ROWS[rows]}, outputs(model)) for rows in asked))
    for rows, given in zip(asked, answers, strict=True):
        for array, wanted in zip(given.values(), framework.expected(), strict=True):
            np.testing.assert_allclose(array, wanted[rows], rtol=1e-5, atol=1e-6)
    assert triton.served(model.name) == (framework.name, sum(map(len, asked)))
    assert (await model.statistics()).execution_count < len(asked)
    await model.unload()


async def test_only_the_wanted_outputs_are_given(engine: TritonEngine, framework: Framework) -> None:
    model = await engine.load(await framework.two(max_batch_size=8))
    wanted = outputs(model)[1:]
    assert list(await model.run({"x": ROWS}, wanted)) == wanted
    await model.unload()


async def test_what_a_graph_refuses_fails_nobody_else(engine: TritonEngine, framework: Framework) -> None:
    model = await engine.load(await framework.lookup(max_batch_size=64, max_queue_delay_us=5000))
    await refuses_each_for_itself(model, outputs(model)[0], "9")
    await model.unload()


@pytest.mark.parametrize("shape", [pytest.param((-1, 4), id="declared"), pytest.param((-1, -1), id="found by a run")])
async def test_a_wrong_shape_is_refused(engine: TritonEngine, framework: Framework, shape: tuple[int, ...]) -> None:
    model = await engine.load(await framework.two(*shape, max_batch_size=8))
    with pytest.raises(ModelRefused) as refused:
        await model.run({"x": np.zeros((2, 5), np.float32)}, outputs(model))
    assert "5" in refused.value.message
    given = await model.run({"x": ROWS}, outputs(model))
    np.testing.assert_allclose(given[outputs(model)[1]], framework.expected()[1], rtol=1e-5, atol=1e-6)
    await model.unload()


async def test_what_is_no_model_is_not_loaded(engine: TritonEngine, framework: Framework) -> None:
    takes = signature([("x", "FP32", [-1, 4])], [("y__0", "FP32", [-1, 4])])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("saved_model.pb", b"no graph at all")
    with pytest.raises(EngineFailed):
        await engine.load(await framework.put(buffer.getvalue(), takes))


async def test_what_it_takes_must_be_what_is_declared(
    engine: TritonEngine, framework: Framework, triton: Triton
) -> None:
    takes = signature([("other", "INT64", [-1])], [("y__0", "INT64", [-1])])
    with pytest.raises(EngineFailed):
        await engine.load(await framework.put(framework.file("lookup"), takes))
    said = "forward takes index" if framework.torch else "has no input other; it has index"
    assert said in triton.log.read_text()


async def test_a_pickle_is_not_unpickled(engine: TritonEngine, models: Path, triton: Triton) -> None:
    takes = signature([("x", "FP32", [-1, 4])], [("y__0", "FP32", [-1, 4])])
    framework = Framework("pytorch", "torchscript", models, Shelf(triton.repository))
    with pytest.raises(EngineFailed):
        await engine.load(await framework.put(framework.file("evil"), takes))
    assert "constants.pkl" in triton.log.read_text()  # is what it lacks, and the process lives to say so


async def test_versions_live_side_by_side(engine: TritonEngine, framework: Framework) -> None:
    old = await framework.two(max_batch_size=16)
    new = await framework.two(max_batch_size=16, model_id=old.model_id, number=2)
    assert new.repository_model == old.repository_model
    first, second = await asyncio.gather(engine.load(old), engine.load(new))
    await first.unload()
    assert not await first.is_ready()
    assert await second.is_ready()
    for model in (second, first):  # which is loaded again when it is called
        given = await model.run({"x": ROWS}, outputs(model))
        np.testing.assert_allclose(given[outputs(model)[0]], framework.expected()[0], rtol=1e-5, atol=1e-6)
    await first.unload()
    await second.unload()


async def test_a_triton_without_the_packages_says_so(framework: Framework, tmp_path: Path) -> None:
    with running_triton(tmp_path) as without:
        engine = TritonEngine(without.address, no_prompts)
        framework.shelf = Shelf(without.repository)
        with pytest.raises(EngineFailed):
            await engine.load(await framework.two())
        await engine.close()
    package = "torch" if framework.torch else "tensorflow"
    assert f"the {framework.name} backend needs {package} for Python 3." in without.log.read_text()
