"""Nothing that somebody uploads does harm (cases 21, 22): every artifact here is refused with its stable code, in a
child that may die, by a service that does not."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mercat.registry.v1 import registry_pb2
from onnx import TensorProto

from services.registry.validation import Limits, Report, validate
from tests import graphs
from tests.platform import Platform
from tests.robustness import artifacts

GOOD = graphs.tiny()


async def examine(folder: Path, data: bytes, limits: Limits | None = None) -> Report:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return await validate(path, limits or Limits())


def codes(report: Report) -> set[str]:
    return {f.code for f in report.findings}


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "external, upwards": ("EXTERNAL_DATA", lambda: artifacts.external("../../../../../../etc/passwd")),
    "external, absolute": ("EXTERNAL_DATA", lambda: artifacts.external("/etc/passwd")),
    "external, beside it": ("EXTERNAL_DATA", lambda: artifacts.external("model.onnx", offset="0", length="8")),
    "external, itself a link": ("EXTERNAL_DATA", lambda: artifacts.external("link")),
    "external, NUL": ("EXTERNAL_DATA", lambda: artifacts.external("a\0/etc/passwd")),
    "external, memory": ("EXTERNAL_DATA", lambda: artifacts.external("*/_ORT_MEM_ADDR_/*", offset="4096")),
    "external, in a function": ("EXTERNAL_DATA", lambda: artifacts.external_in_function("/etc/passwd")),
    "external, in a branch": ("EXTERNAL_DATA", lambda: artifacts.external_in_subgraph("/etc/passwd")),
    "external, sparse": ("EXTERNAL_DATA", lambda: artifacts.external_in_sparse("/etc/passwd")),
    "graphs in graphs": ("GRAPH_TOO_DEEP", lambda: artifacts.nested(18)),
    "graphs in graphs, deeper": ("NOT_ONNX", lambda: artifacts.nested_deeper_than_parsers(60)),
    "graphs in graphs, much deeper": ("NOT_ONNX", lambda: artifacts.nested_deeper_than_parsers(3_000)),
    "claims 100 GB": ("TENSOR_TOO_LARGE", lambda: artifacts.claims([100 * 1024, 1024, 256])),
    "claims more than there are atoms": ("TENSOR_TOO_LARGE", lambda: artifacts.claims([2**62] * 5_000)),
    "negative dimension": ("TENSOR_DIMENSIONS", lambda: artifacts.claims([-4, -64])),
    "too few values": ("TENSOR_CUT_OFF", artifacts.too_few_values),
    "large when run": ("VALIDATION_MEMORY", lambda: artifacts.makes_when_run(25 * artifacts.GIB)),
    "negative dimension of an input": ("TENSOR_DIMENSIONS", lambda: artifacts.input_of([-4])),
    "opset of the future": ("ENGINE_REFUSES", lambda: artifacts.opset(999)),
    "claims values it has none of": ("GRAPH_INVALID", lambda: artifacts.claims([1024, 1024])),
    "a model and an archive": ("NOT_ONNX", lambda: GOOD + artifacts.archive({"data.pkl": b"."})),
    "input too large": ("INPUT_TOO_LARGE", lambda: artifacts.input_of([2**40, 2**20])),
    "input of too many texts": ("INPUT_TOO_LARGE", lambda: artifacts.input_of([2**62], TensorProto.STRING)),
    "input of too many axes": ("INPUT_TOO_LARGE", lambda: artifacts.input_of([1] * 70)),
    "input of no type": ("DATATYPE_UNSUPPORTED", artifacts.unknown_type),
    "too many nodes": ("GRAPH_TOO_LARGE", lambda: artifacts.many_nodes(200_001)),
    "functions in functions": ("FUNCTION_CALLS", lambda: artifacts.function_bomb(40)),
    "unknown operator": ("ENGINE_REFUSES", artifacts.unknown_operator),
    "takes nothing": ("NO_INPUTS", artifacts.no_inputs),
    "cut off": ("NOT_ONNX", lambda: GOOD[: len(GOOD) // 2]),
    "cut off by one": ("NOT_ONNX", lambda: GOOD[:-1]),
    "random": ("NOT_ONNX", lambda: b"\x0a" + os.urandom(4096)),
    "zeros": ("NOT_ONNX", lambda: bytes(4096)),
    "empty": ("NOT_ONNX", lambda: b""),
    "zip": ("ARCHIVE_NAME", lambda: artifacts.archive({"../../up": b"x"})),
    "bomb": ("NOT_ONNX", lambda: artifacts.archive({"zeros": bytes(64 * 1024**2)})),
    "script": ("NOT_ONNX", lambda: b"#!/bin/sh\ntouch /tmp/harm\n"),
    "GGUF": ("GGUF_VERSION", lambda: b"GGUF" + bytes(64)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_refused_with_its_code(name: str, tmp_path: Path) -> None:
    code, make = CASES[name]
    (tmp_path / "link").symlink_to("/etc/passwd")
    report = await examine(tmp_path, make())
    assert codes(report) == {code}, report.findings
    assert "root:" not in report.to_json()


async def test_what_they_are_made_from_is_fit(tmp_path: Path) -> None:
    """Or else the refusals would mean nothing."""
    assert not (await examine(tmp_path, GOOD)).findings


@pytest.mark.parametrize(
    ("kind", "code"),
    [("pickled", "NOT_ONNX"), ("torch_archive", "PICKLED_CHECKPOINT"), ("object_array", "NOT_ONNX")],
)
async def test_pickles_are_not_executed(kind: str, code: str, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    report = await examine(tmp_path, getattr(artifacts, kind)(witness))
    assert codes(report) == {code}
    assert not witness.exists()


async def test_more_than_a_model_can_have_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.write(GOOD)
        file.truncate(40 * 1024**3)  # sparse: it takes no disk
    started = time.monotonic()
    assert codes(await validate(path, Limits())) == {"FILE_TOO_LARGE"}
    assert time.monotonic() - started < 10


async def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(GOOD)
    (tmp_path / "soft").symlink_to(tmp_path / "real")
    (tmp_path / "hard").hardlink_to(tmp_path / "real")
    for name in ("soft", "hard"):
        assert codes(await validate(tmp_path / name, Limits())) == {"NOT_ONNX"}
    assert codes(await validate(tmp_path, Limits())) == {"NOT_ONNX"}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(wall_seconds=0.2), "VALIDATION_TIMEOUT"),
        (Limits(cpu_seconds=2, wall_seconds=30), "VALIDATION_CPU"),
        (Limits(memory_bytes=3 * 1024**3 // 2), "VALIDATION_MEMORY"),
    ],
)  # fmt: skip
async def test_a_child_that_takes_too_much_is_killed(limits: Limits, code: str, tmp_path: Path) -> None:
    data = graphs.slow(2_000_000_000) if code != "VALIDATION_MEMORY" else artifacts.makes_when_run(2**30)
    started = time.monotonic()
    report = await examine(tmp_path, data, limits)
    assert codes(report) == {code}, report.findings
    assert time.monotonic() - started < 15
    await asyncio.sleep(0.1)
    running = [p.name for p in Path("/proc").iterdir() if p.name.isdigit()]
    assert not [p for p in running if str(tmp_path).encode() in _command(p)]


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("artifacts") / "home") as platform:
        yield platform


def test_the_service_survives_all_of_them(running: Platform, tmp_path: Path) -> None:
    before = running.pids()["control"]
    person = running.publisher()
    person.registry.CreateModel(
        registry_pb2.CreateModelRequest(name="harm", summary="s", category="other", task="t", license="MIT")
    )
    model = f"{person.profile.username}/harm"
    witness = tmp_path / "witness"
    harm = {
        "EXTERNAL_DATA": artifacts.external("/etc/passwd"),
        "TENSOR_TOO_LARGE": artifacts.claims([2**62] * 5_000),
        "GRAPH_TOO_DEEP": artifacts.nested(18),
        "PICKLED_CHECKPOINT": artifacts.torch_archive(witness),
        "TENSOR_DIMENSIONS": artifacts.named("NUL \0, \u202e and " + "long" * 10_000),
    }
    for i, (code, data) in enumerate(harm.items()):
        version = running.validated(person, model, running.upload(person, data), f"1.0.{i}")
        assert version.state == registry_pb2.VERSION_STATE_REFUSED
        assert [f.code for f in version.findings] == [code]
        assert "root:" not in str(version)
        assert all(len(f.where) <= 300 for f in version.findings)
    good = running.validated(person, model, running.upload(person, GOOD), "2.0.0")
    assert good.state == registry_pb2.VERSION_STATE_DRAFT, good.findings
    assert running.pids()["control"] == before
    assert not witness.exists()
    assert not list((running.home / "tmp").iterdir())
