"""Text models on a running platform: a GGUF file becomes a decoder, an ONNX file with its tokenizer inside is one of
either kind; what is served of them is stored apart."""

import json
import secrets
from pathlib import Path
from typing import Any

import grpc
import onnx
import pytest
from mercat.common.v1 import tensor_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2 as r
from mercat.storage.v1 import storage_pb2

from services.common.errors import from_rpc_error
from services.common.text_model import TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation.gguf_model import convert
from tests import encoders, graphs
from tests.decoders import tiny_gguf
from tests.platform import Account, Platform

CHAT = r.Sample(title="A greeting", request_json=json.dumps({"messages": [{"role": "user", "content": "hello"}]}))


@pytest.fixture(scope="module")
def maker(platform: Platform) -> Account:
    return platform.publisher()


def new_model(maker: Account) -> str:
    name = f"t{secrets.token_hex(4)}"
    asked = r.CreateModelRequest(name=name, summary="s", category="nlp", task="text-generation", license="MIT")
    return str(maker.registry.CreateModel(asked).model.model)


def pushed(platform: Platform, maker: Account, data: bytes, **options: Any) -> r.Version:
    return platform.validated(maker, new_model(maker), platform.upload(maker, data, "model"), **options)


def stored(platform: Platform, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return platform.home / "artifacts" / "sha256" / name[:2] / name


def codes(version: r.Version) -> list[tuple[str, str]]:
    assert version.state == r.VERSION_STATE_REFUSED
    return [(f.code, f.where) for f in version.findings]


def test_a_gguf_file_is_served_as_the_decoder_made_of_it(platform: Platform, maker: Account, tmp_path: Path) -> None:
    data = tiny_gguf(seed=1, metadata={"general.sampling.temp": 0.5})
    others = set(platform.home.glob("uploads/*"))  # that other tests broke off
    model = platform.publish(maker, data, samples=[CHAT])
    got = maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
    assert (got.framework, got.size_bytes) == ("gguf", len(data))
    assert not got.signature.inputs
    text = got.text
    assert (text.kind, text.context_tokens, text.vocabulary_size) == (r.TEXT_KIND_DECODER, 256, 272)
    assert (text.chat, text.tools, text.architecture) == (True, False, "llama")
    assert 0 < text.divergence < 0.01
    assert text.agreement > 0.85
    assert (got.samples[0].title, got.samples[0].request_json) == (CHAT.title, CHAT.request_json)
    assert json.loads(got.samples[0].response_json)["role"] == "assistant"
    # What is served is the same as it is here: byte for byte, tokenizer and all.
    source, made = tmp_path / "model.gguf", tmp_path / "model.onnx"
    source.write_bytes(data)
    convert(source, made)
    assert stored(platform, got.served_digest).read_bytes() == made.read_bytes()
    assert got.served_size_bytes == made.stat().st_size
    entries = {p.key: p.value for p in onnx.load(str(made)).metadata_props}
    assert set(entries) == {TEXT_KEY, TOKENIZER_KEY}
    assert TextConfig.from_json(entries[TEXT_KEY]).defaults == {"temperature": 0.5}
    # It is Mercat's, not its publisher's, and what Triton would serve.
    with pytest.raises(grpc.RpcError) as caught:
        list(maker.storage.DownloadArtifact(storage_pb2.DownloadArtifactRequest(digest=got.served_digest)))
    assert from_rpc_error(caught.value).reason == "ARTIFACT_NOT_FOUND"
    model_id = maker.registry.GetModel(r.GetModelRequest(model=model)).model.model_id
    (folder,) = (platform.home / "repository").glob(f"{model_id}*")
    assert (folder / "1" / "model.onnx").read_bytes() == made.read_bytes()
    assert 'backend: "decoder"' in (folder / "config.pbtxt").read_text()
    assert set(platform.home.glob("uploads/*")) == others


def test_what_is_made_twice_is_stored_once(platform: Platform, maker: Account) -> None:
    data = tiny_gguf(seed=2)
    first, second = (pushed(platform, maker, data) for _ in range(2))
    assert first.served_digest == second.served_digest
    assert first.served_size_bytes == second.served_size_bytes == stored(platform, first.served_digest).stat().st_size


def test_a_decoder_from_elsewhere_is_served_as_it_is(platform: Platform, maker: Account, tmp_path: Path) -> None:
    source, made = tmp_path / "model.gguf", tmp_path / "model.onnx"
    source.write_bytes(tiny_gguf(seed=3))
    convert(source, made)
    got = pushed(platform, maker, made.read_bytes())
    assert got.state == r.VERSION_STATE_DRAFT, got.findings
    assert (got.framework, got.served_digest, got.served_size_bytes) == ("onnx", "", 0)
    assert got.text.kind == r.TEXT_KIND_DECODER
    assert not got.text.agreement
    assert not got.signature.inputs


def test_an_encoder_still_takes_tensors(platform: Platform, maker: Account) -> None:
    model = platform.publish(maker, encoders.tiny_encoder(), batch=8)
    got = maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
    assert got.framework == "onnx"
    assert got.text == r.TextModel(kind=r.TEXT_KIND_ENCODER, context_tokens=32, vocabulary_size=len(encoders.WORDS))
    inputs = []
    for name in ("input_ids", "attention_mask"):
        tensor = inference_pb2.Tensor(name=name, datatype="INT64", shape=[1, 3])
        tensor.data.extend([1, 1, 1])
        inputs.append(tensor)
    user = platform.sign_up(credit=1_000_000)
    answer = user.inference.Predict(inference_pb2.PredictRequest(model=model, inputs=inputs))
    assert list(answer.outputs[0].shape) == [1, 3, 8]


def test_what_does_not_go_with_a_decoder_is_named(platform: Platform, maker: Account) -> None:
    data = tiny_gguf(seed=4)
    settings: dict[str, Any] = {
        "batch": 4, "response_cache": r.ResponseCache(ttl_seconds=5), "padding": [r.AxisPadding(axis="sequence")],
    }  # fmt: skip
    assert codes(pushed(platform, maker, data, **settings)) == [
        ("NOT_BATCHABLE", "settings.max_batch_size"), ("SETTING_UNSUPPORTED", "settings.response_cache"),
        ("SETTING_UNSUPPORTED", "settings.padding"),
    ]  # fmt: skip
    declared = tensor_pb2.Signature(inputs=[tensor_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1])])
    assert codes(pushed(platform, maker, data, signature=declared)) == [("SIGNATURE_DIFFERS", "x")]


def test_a_refused_file_says_why_and_leaves_nothing(platform: Platform, maker: Account) -> None:
    got = pushed(platform, maker, tiny_gguf(metadata={"tokenizer.ggml.model": "bert"}))
    assert codes(got) == [("TOKENIZER_UNKNOWN", "")]
    assert (got.framework, got.served_digest, got.HasField("text")) == ("gguf", "", False)
    assert codes(pushed(platform, maker, tiny_gguf()[:5000])) in ([("GGUF_CUT_OFF", "")], [("GGUF_INVALID", "")])


def test_a_framework_is_what_the_content_is(platform: Platform, maker: Account) -> None:
    digest = platform.upload(maker, graphs.tiny())
    for said, state in (
        ("", r.VERSION_STATE_DRAFT),
        ("onnx", r.VERSION_STATE_DRAFT),
        ("gguf", r.VERSION_STATE_REFUSED),
    ):
        model = new_model(maker)
        request = r.CreateVersionRequest(model=model, version="1.0.0", digest=digest, framework=said)
        assert maker.registry.CreateVersion(request).version.framework == said
        got = _ended(maker, model)
        assert got.state == state
        assert got.framework == (said or "onnx")
        assert [f.code for f in got.findings] == (["FRAMEWORK_DIFFERS"] if said == "gguf" else [])


def _ended(maker: Account, model: str) -> r.Version:
    while True:
        got: r.Version = maker.registry.GetVersion(r.GetVersionRequest(model=model, version="1.0.0")).version
        if got.state != r.VERSION_STATE_VALIDATING:
            return got
