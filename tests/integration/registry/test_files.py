"""Versions of several files: what is served is one that was made of them, and every file is held against the others."""

import json
import secrets
from typing import Any

import grpc
import numpy as np
import pytest
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2 as r
from mercat.storage.v1 import storage_pb2
from onnx import TensorProto, helper, numpy_helper

from services.common.errors import from_rpc_error
from tests import encoders, graphs
from tests.platform import USD, Account, Platform

DATA, TOKENIZER = r.FILE_ROLE_EXTERNAL_DATA, r.FILE_ROLE_TOKENIZER
LABELS, CARD = r.FILE_ROLE_LABELS, r.FILE_ROLE_CARD
WEIGHTS = np.arange(64, dtype=np.float32)


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def new_model(maker: Account) -> str:
    asked = r.CreateModelRequest(
        name=f"f{secrets.token_hex(4)}", summary="s", category="other", task="test", license="MIT"
    )
    return str(maker.registry.CreateModel(asked).model.model)


def graph(**said: str) -> bytes:
    """y = x + w for 64 numbers w that lie in a file of their own."""
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin"} | said).items():
        tensor.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 64]) for name in "xy")
    made = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()  # type: ignore[no-any-return]


def asked(platform: Platform, maker: Account, model: str, data: bytes, *files: tuple[str, int, bytes]) -> Any:
    digest = platform.upload(maker, data)
    given = [r.VersionFile(name=n, role=role, digest=platform.upload(maker, d)) for n, role, d in files]  # type: ignore[arg-type]
    return r.CreateVersionRequest(model=model, version="1.0.0", digest=digest, files=given)


def pushed(platform: Platform, maker: Account, data: bytes, *files: tuple[str, int, bytes]) -> r.Version:
    model = new_model(maker)
    maker.registry.CreateVersion(asked(platform, maker, model, data, *files))
    return platform.until_validated(maker, model, "1.0.0")


def test_what_lies_beside_a_model_is_served_with_it(platform: Platform, maker: Account) -> None:
    padding = bytes(100)
    labels = json.dumps({"y": [f"class {i}" for i in range(64)]}).encode()
    files = (
        ("w.bin", DATA, padding + WEIGHTS.tobytes()), ("labels.json", LABELS, labels), ("README.md", CARD, b"# Adds\n"),
    )  # fmt: skip
    made = pushed(platform, maker, graph(offset="100", length="256"), *files)
    assert made.state == r.VERSION_STATE_DRAFT, made.findings
    assert [(f.name, f.role, f.size_bytes) for f in made.files] == [(n, role, len(d)) for n, role, d in files]
    assert made.card == "# Adds\n"
    assert list(made.labels["y"].names)[-1] == "class 63"
    assert made.served_digest not in ("", made.digest)
    assert (dict(made.scan.operators), made.scan.parameters, made.scan.weight_bytes) == ({"Add": 1}, 64, 256)
    platform.through_review(maker, made.model, "1.0.0")
    consumer = platform.sign_up(credit=USD)
    x = inference_pb2.Tensor(name="x", datatype="FP32", shape=[1, 64], raw=bytes(256))
    answer = consumer.inference.Predict(inference_pb2.PredictRequest(model=made.model, inputs=[x]))
    assert np.frombuffer(answer.outputs[0].raw, np.float32).tolist() == WEIGHTS.tolist()
    # Its owner gets every file back as it was.
    got = maker.storage.DownloadArtifact(storage_pb2.DownloadArtifactRequest(digest=made.files[0].digest))
    assert b"".join(piece.chunk.data for piece in got) == files[0][2]


def test_a_tokenizer_beside_a_model_makes_it_an_encoder(platform: Platform, maker: Account) -> None:
    made = pushed(platform, maker, encoders.graph(), ("tokenizer.json", TOKENIZER, encoders.tokenizer().encode()))
    assert made.state == r.VERSION_STATE_DRAFT, made.findings
    assert (made.text.kind, made.text.context_tokens) == (r.TEXT_KIND_ENCODER, 16)


W = ("w.bin", DATA, WEIGHTS.tobytes())


@pytest.mark.parametrize(
    ("said", "files", "code"),
    [
        ({}, [("other.bin", DATA, b"x")], "EXTERNAL_DATA"),
        ({"location": "../w.bin"}, [W], "EXTERNAL_DATA"),
        ({"location": "/etc/passwd"}, [W], "EXTERNAL_DATA"),
        ({"location": "model.onnx"}, [W], "EXTERNAL_DATA"),
        ({"location": "file-0"}, [W], "EXTERNAL_DATA"),
        ({"offset": "-4"}, [W], "EXTERNAL_DATA"),
        ({"offset": "0x10"}, [W], "EXTERNAL_DATA"),
        ({"offset": "9" * 30}, [W], "EXTERNAL_DATA"),
        ({"length": "8"}, [W], "EXTERNAL_DATA"),
        ({"length": str(2**62)}, [W], "EXTERNAL_DATA"),
        ({"offset": "4"}, [W], "TENSOR_CUT_OFF"),
        ({"nonsense": "1"}, [W], "EXTERNAL_DATA"),
        ({}, [("w.bin", DATA, WEIGHTS.tobytes()[:-1])], "TENSOR_CUT_OFF"),
        ({}, [W, ("extra.bin", DATA, b"x")], "FILE_UNUSED"),
        ({}, [W, ("tokenizer.json", TOKENIZER, b"{}")], "TOKENIZER_INVALID"),
    ],
)
def test_what_does_not_fit_is_refused(
    platform: Platform, maker: Account, said: dict[str, str], files: list[tuple[str, int, bytes]], code: str
) -> None:
    made = pushed(platform, maker, graph(**said), *files)
    assert made.state == r.VERSION_STATE_REFUSED
    assert [f.code for f in made.findings] == [code], made.findings


def test_without_its_file_a_model_is_refused(platform: Platform, maker: Account) -> None:
    assert [f.code for f in pushed(platform, maker, graph()).findings] == ["EXTERNAL_DATA"]


def test_files_beside_something_else_are_refused(platform: Platform, maker: Account) -> None:
    assert [f.code for f in pushed(platform, maker, b"GGUF" + bytes(64), W).findings] == ["NOT_ONNX"]


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ([("w.bin", DATA, b"x"), ("w.bin", DATA, b"y")], "files[1].name"),
        ([("a", CARD, b"x"), ("b", CARD, b"y")], "files[1].role"),
        ([("../a", CARD, b"x")], "files[0].name"),
        ([("a", 0, b"x")], "files[0].role"),
        ([("a", 77, b"x")], "files[0].role"),
        ([("a", LABELS, b"[]")], "files[0]"),
        ([("a", LABELS, b'{"y": [1]}')], "files[0]"),
        ([("a", CARD, b"\xff")], "files[0]"),
        ([("a", CARD, b"a\0b")], "files[0]"),
    ],
)
def test_files_that_cannot_be_name_their_field(
    platform: Platform, maker: Account, files: list[tuple[str, int, bytes]], field: str
) -> None:
    model = new_model(maker)
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.CreateVersion(asked(platform, maker, model, graphs.tiny(), *files))
    error = from_rpc_error(caught.value)
    assert (error.reason, [v.field for v in error.violations]) == ("INVALID_FIELDS", [field])


def test_files_of_others_are_none(platform: Platform, maker: Account) -> None:
    other = platform.publisher()
    digest = platform.upload(other, secrets.token_bytes(100))
    request = asked(platform, maker, new_model(maker), graphs.tiny())
    request.files.add(name="w.bin", role=DATA, digest=digest)
    with pytest.raises(grpc.RpcError) as caught:
        maker.registry.CreateVersion(request)
    assert from_rpc_error(caught.value).reason == "ARTIFACT_NOT_FOUND"
