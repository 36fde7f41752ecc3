"""Models of PyTorch and TensorFlow, pushed as a person would, answer as they do in their framework: converted beside a
worker, as they are on Triton, and converted where Triton lacks the framework."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import model_config_pb2

from tests import frameworks
from tests.converters import need_converters
from tests.platform import Account, Platform
from tests.triton import Triton, running_triton


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frameworks")


@pytest.fixture(scope="module")
def models(folder: Path) -> Path:
    return frameworks.made(need_converters(), folder / "models")


@pytest.fixture(scope="module")
def triton(folder: Path) -> Iterator[Triton]:
    """One that has PyTorch and TensorFlow."""
    with running_triton(folder, need_converters()) as started:
        yield started


@pytest.fixture(scope="module")
def platform(folder: Path, models: Path, triton: Triton) -> Iterator[Platform]:
    env = {
        "MERCAT_CONVERTERS": need_converters(), "MERCAT_MODEL_REPOSITORY": str(folder / "repository"),
        "MERCAT_TRITON": triton.address,
    }  # fmt: skip
    with Platform(folder / "home", env=env) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


def push(platform: Platform, who: Account, file: Path, name: str, *options: str) -> dict:
    """`mercat models push`, as JSON, and publication."""
    done = platform.command(
        "models", "push", str(file), "--name", name, "--version", "1.0.0", "--summary", "a test", "--category", "other",
        "--task", "test", "--license", "MIT", "--json", *options, MERCAT_API_KEY=who.api_key,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    model, version = f"{who.profile.username}/{name}", "1.0.0"
    who.registry.SubmitVersion(registry_pb2.SubmitVersionRequest(model=model, version=version))
    platform.admin().registry.ApproveVersion(registry_pb2.ApproveVersionRequest(model=model, version=version))
    who.registry.PublishVersion(registry_pb2.PublishVersionRequest(model=model, version=version))
    return dict(json.loads(done.stdout)["version"])


def check(platform: Platform, who: Account, name: str, expected: Path) -> None:
    """The platform's answers are the framework's."""
    with np.load(expected) as arrays:
        x = arrays["in.x"]
        wanted = [arrays[f"out.{i}"] for i in range(len(arrays.files) - 1)]
    request = inference_pb2.PredictRequest(model=f"{who.profile.username}/{name}", raw_output=True)
    request.inputs.add(name="x", datatype="FP32", shape=x.shape, raw=x.tobytes())
    given = platform.sign_up().inference.Predict(request).outputs
    assert len(given) == len(wanted)
    for tensor, array in zip(given, wanted, strict=True):
        assert tuple(tensor.shape) == array.shape
        got = np.frombuffer(tensor.raw, array.dtype).reshape(array.shape)
        np.testing.assert_allclose(got, array, rtol=1e-4, atol=1e-5)


def check_on_triton(platform: Platform, who: Account, name: str, expected: Path, triton: Triton, model: str) -> str:
    """Likewise, and Triton gave them; answers by which backend."""
    _, before = triton.served(model)
    check(platform, who, name, expected)
    backend, rows = triton.served(model)
    assert rows == before + len(frameworks.ROWS)
    return backend


def test_torchscript(platform: Platform, publisher: Account, models: Path) -> None:
    version = push(
        platform, publisher, models / "scripted.pt", "scripted", "--input", "x=FP32[-1,4]", "--max-batch-size", "8"
    )
    assert version["framework"] == "pytorch"
    assert version["servedDigest"] != version["digest"]
    assert [(o["name"], o["datatype"], o["shape"]) for o in version["signature"]["outputs"]] == [
        ("output__0", "FP32", ["-1", "2"]), ("output__1", "FP32", ["-1"]),
    ]  # fmt: skip
    check(platform, publisher, "scripted", models / "scripted.npz")


def test_torchscript_on_triton(
    platform: Platform, publisher: Account, models: Path, folder: Path, triton: Triton
) -> None:
    """Its repository gets the archive as it is, and its own backend answers."""
    before = set((folder / "repository").iterdir())
    push(
        platform, publisher, models / "scripted.pt", "placed", "--input", "x=FP32[-1,4]", "--max-batch-size", "8",
        "--placement", "triton",
    )  # fmt: skip
    check(platform, publisher, "placed", models / "scripted.npz")
    (there,) = set((folder / "repository").iterdir()) - before
    assert (there / "1" / "model.pt").read_bytes() == (models / "scripted.pt").read_bytes()
    by = check_on_triton(platform, publisher, "placed", models / "scripted.npz", triton, there.name)
    assert by == "pytorch"


def test_torch_export(platform: Platform, publisher: Account, models: Path) -> None:
    version = push(platform, publisher, models / "program.pt2", "program", "--max-batch-size", "8")
    assert version["framework"] == "pytorch"
    assert version["signature"]["inputs"][0]["axes"] == ["batch", ""]
    check(platform, publisher, "program", models / "program.npz")


def test_saved_model(platform: Platform, publisher: Account, models: Path, folder: Path, triton: Triton) -> None:
    """Placed on Triton, whose repository gets it as it is, and whose own backend answers; while that lacks its package,
    ONNX does."""
    before = set((folder / "repository").iterdir())
    version = push(
        platform, publisher, models / "saved_model", "saved", "--max-batch-size", "8",
        "--placement", "triton-or-embedded", "--output", "best=INT64[-1]", "--output", "scores=FP32[-1,3]",
    )  # fmt: skip
    assert version["framework"] == "tensorflow"
    check(platform, publisher, "saved", models / "saved_model.npz")
    (there,) = set((folder / "repository").iterdir()) - before
    for file in (path for path in (models / "saved_model").rglob("*") if path.is_file()):
        written = there / "1" / "model.savedmodel" / file.relative_to(models / "saved_model")
        assert written.read_bytes() == file.read_bytes()
    config = text_format.Parse((there / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.backend, config.platform) == ("tensorflow", "tensorflow_savedmodel")
    assert (config.default_model_filename, config.max_batch_size) == ("model.savedmodel", 8)
    by = check_on_triton(platform, publisher, "saved", models / "saved_model.npz", triton, there.name)
    assert by == "tensorflow"


def test_onnx_answers_while_triton_lacks_the_packages(
    platform: Platform, publisher: Account, models: Path, folder: Path, triton: Triton
) -> None:
    pushed = {"one": "scripted.pt", "two": "saved_model"}
    options = ("--max-batch-size", "8", "--placement", "triton-or-embedded")
    names: dict[str, str] = {}
    restart(triton, converters="")
    for name, file in pushed.items():
        before = set((folder / "repository").iterdir())
        declared = ("--input", "x=FP32[-1,4]") if file == "scripted.pt" else ()
        push(platform, publisher, models / file, name, *declared, *options)
        check(platform, publisher, name, (models / file).with_suffix(".npz"))
        (there,) = set((folder / "repository").iterdir()) - before
        names[name] = there.name
        with pytest.raises(grpc.RpcError):
            triton.served(there.name)
    restart(triton, converters=need_converters())
    deadline = time.monotonic() + 60
    for name, file in pushed.items():
        by = "pytorch" if file == "scripted.pt" else "tensorflow"
        while serving(triton, names[name]) != by and time.monotonic() < deadline:
            check(platform, publisher, name, (models / file).with_suffix(".npz"))
        assert serving(triton, names[name]) == by


def serving(triton: Triton, model: str) -> str:
    """The backend that has answered calls of a model; none as long as Triton has not."""
    with contextlib.suppress(grpc.RpcError):
        backend, rows = triton.served(model)
        return backend if rows else ""
    return ""


def restart(triton: Triton, *, converters: str) -> None:
    triton.stop()
    triton.converters = converters
    triton.start()


def test_refusals_say_what_to_do(platform: Platform, publisher: Account, models: Path) -> None:
    model = f"{publisher.profile.username}/refused"
    publisher.registry.CreateModel(
        registry_pb2.CreateModelRequest(name="refused", summary="a test", category="other", task="test", license="MIT")
    )
    for version, (file, code) in {
        "1.0.0": ("checkpoint.pt", "PICKLED_CHECKPOINT"), "2.0.0": ("scripted.pt", "SIGNATURE_MISSING"),
    }.items():  # fmt: skip
        digest = platform.upload(publisher, (models / file).read_bytes(), file)
        refused = platform.validated(publisher, model, digest, version)
        assert refused.state == registry_pb2.VERSION_STATE_REFUSED
        assert [f.code for f in refused.findings] == [code]
        assert not refused.served_digest
