"""ONNX files that say that they are text models."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from services.common.text_model import TEXT_KEY, TOKENIZER_KEY
from services.registry.validation import Limits, Report, Text, validate
from services.registry.validation.examine import examine
from services.registry.validation.gguf_model import convert
from tests import encoders, graphs
from tests.decoders import tiny_gguf
from tests.encoders import config, graph, tokenizer, with_entries


def examined(folder: Path, data: bytes) -> Report:
    path = folder / "model.onnx"
    path.write_bytes(data)
    return examine(path, folder / "made.onnx", Limits())


def found(folder: Path, data: bytes) -> tuple[str, str]:
    (finding,) = examined(folder, data).findings
    return finding.code, finding.where


@pytest.fixture
def decoder(tmp_path: Path) -> bytes:
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_gguf())
    convert(path, tmp_path / "decoder.onnx")
    return (tmp_path / "decoder.onnx").read_bytes()


def test_an_encoder_is_an_onnx_model_that_takes_texts(tmp_path: Path) -> None:
    report = examined(tmp_path, encoders.tiny_encoder())
    assert not report.findings
    assert report.text == Text("encoder", 32, len(encoders.WORDS))
    assert [t.name for t in report.inputs] == ["input_ids", "attention_mask"]
    assert (report.framework, report.made) == ("onnx", False)


def test_a_model_without_entries_is_none(tmp_path: Path) -> None:
    report = examined(tmp_path, graph())
    assert not report.findings
    assert report.text is None


def test_a_decoder_from_elsewhere(tmp_path: Path, decoder: bytes) -> None:
    report = examined(tmp_path, decoder)
    assert not report.findings
    assert report.text == Text("decoder", 256, 272, chat=True, architecture="llama")
    assert (report.inputs, report.outputs, report.made) == ((), (), False)


ENTRIES: dict[str, tuple[str, str, dict[str, str]]] = {
    "a tokenizer alone": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer()}),
    "a configuration alone": ("TEXT_CONFIG_INVALID", TOKENIZER_KEY, {"text": config()}),
    "no JSON": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": "{"}),
    "deep JSON": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": "[" * 100_000}),
    "JSON of another kind": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": "[]"}),
    "a field nobody knows": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(more=1)}),
    "a kind nobody knows": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(kind="x")}),
    "a context by a word": ("TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(context="8")}),
    "a context without end": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(context=2**40)},
    ),
    "a default beyond all": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(defaults={"temperature": 99})},
    ),
    "a default nobody knows": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(defaults={"mirostat": 1})},
    ),
    "a stop that is no token": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(stop_tokens=[10])},
    ),
    "a decoder of no layers": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer": tokenizer(), "text": config(kind="decoder")},
    ),
    "no tokenizer.json": ("TOKENIZER_INVALID", TOKENIZER_KEY, {"tokenizer": '{"model": {}}', "text": config()}),
    "a larger tokenizer": (
        "TOKENIZER_INVALID", TOKENIZER_KEY, {"tokenizer": tokenizer(), "text": config(vocabulary=9)},
    ),
    "a beginning that is no token": (
        "TOKENIZER_INVALID", TOKENIZER_KEY,
        {"tokenizer": tokenizer(), "text": config(add_bos=True, bos_token="<s>")},
    ),
    "a template that is none": (
        "CHAT_TEMPLATE_INVALID", "chat_template", {"tokenizer": tokenizer(), "text": config(chat_template="{{")},
    ),
    "a template that refuses all": (
        "CHAT_TEMPLATE_INVALID", "chat_template",
        {"tokenizer": tokenizer(), "text": config(chat_template="{{ raise_exception('never') }}")},
    ),
    "a longer context than it has positions": (
        "SAMPLE_RUN_FAILED", "", {"tokenizer": tokenizer(), "text": config(context=33)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ENTRIES)
def test_malformed_entries_have_a_code(tmp_path: Path, case: str) -> None:
    code, where, entries = ENTRIES[case]
    assert found(tmp_path, with_entries(graph(), **entries)) == (code, where)


def test_a_graph_that_takes_no_texts_is_no_encoder(tmp_path: Path) -> None:
    entries = {"tokenizer": tokenizer(), "text": config()}
    assert found(tmp_path, with_entries(graphs.addition(), **entries)) == ("ENCODER_DIFFERS", "input_ids")
    model = onnx.load_from_string(graph())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    assert found(tmp_path, with_entries(model.SerializeToString(), **entries)) == ("ENCODER_DIFFERS", "input_ids")


@pytest.mark.parametrize("kind", [onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64])
def test_vectors_of_another_kind_are_none(tmp_path: Path, kind: int) -> None:
    model = onnx.load_from_string(graph())
    model.graph.node[-1].output[0] = "vectors"
    model.graph.node.append(helper.make_node("Cast", ["vectors"], ["last_hidden_state"], to=kind))
    model.graph.output[0].type.tensor_type.elem_type = kind
    entries = {"tokenizer": tokenizer(), "text": config()}
    found_code = found(tmp_path, with_entries(model.SerializeToString(), **entries))
    assert found_code == ("ENCODER_DIFFERS", "last_hidden_state")


def test_a_chat_template_that_takes_tools(tmp_path: Path) -> None:
    template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    text = config(chat_template=template)
    report = examined(tmp_path, with_entries(graph(), tokenizer=tokenizer(), text=text))
    assert report.text is not None
    assert (report.text.chat, report.text.tools) == (True, True)


def changed(decoder: bytes, **fields: Any) -> bytes:
    model = onnx.load_from_string(decoder)
    text = next(p for p in model.metadata_props if p.key == TEXT_KEY)
    text.value = json.dumps(json.loads(text.value) | fields)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"layers": 3}, "past_key_values.2.key"), ({"layers": 1}, "past_key_values.1.key"),
        ({"kv_heads": 4}, "past_key_values.0.key"), ({"vocabulary": 300}, "logits"),
    ],
)  # fmt: skip
def test_a_decoder_that_is_not_what_it_says(tmp_path: Path, decoder: bytes, fields: dict[str, int], where: str) -> None:
    assert found(tmp_path, changed(decoder, **fields)) == ("DECODER_DIFFERS", where)


def test_a_decoder_that_forgets_is_found_out(tmp_path: Path, decoder: bytes) -> None:
    """It gives back an empty state, so that token by token it knows only the last one."""
    model = onnx.load_from_string(decoder)
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            for i in (1, 2):
                name, node.output[i] = node.output[i], f"{node.output[i]}.kept"
                model.graph.node.append(helper.make_node("Mul", [node.output[i], "nothing"], [name]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    assert found(tmp_path, model.SerializeToString()) == ("DECODER_DIFFERS", "logits")


async def test_the_child_writes_what_is_served_and_no_more(tmp_path: Path) -> None:
    path, made = tmp_path / "model.gguf", tmp_path / "made.onnx"
    path.write_bytes(tiny_gguf())
    report = await validate(path, Limits(), made)
    assert not report.findings
    assert report.made
    assert report.framework == "gguf"
    assert report.text is not None
    assert report.text.agreement > 0.8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made.onnx", "model.gguf"]
    kept = made.read_bytes()
    convert(path, made)
    assert made.read_bytes() == kept
    small = await validate(path, replace(Limits(), file_bytes=64 << 10), tmp_path / "small.onnx")
    assert [f.code for f in small.findings] == ["FILE_TOO_LARGE"]


async def test_a_link_that_the_child_left_is_not_served(tmp_path: Path) -> None:
    path, made, secret = tmp_path / "model.gguf", tmp_path / "made.onnx", tmp_path / "secret"
    path.write_bytes(tiny_gguf())
    secret.write_bytes(b"")
    made.symlink_to(secret)  # the decoder is then written there, as whoever took over the child might have it
    report = await validate(path, Limits(), made)
    assert [f.code for f in report.findings] == ["VALIDATION_CRASHED"]
