"""A GGUF file's decoder gives what the file's own weights give; what is not known is refused by name."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnxruntime as ort
import pytest
from tokenizers import Tokenizer

from services.common.text_model import TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation import gguf_file, gguf_model, llama, text_reference
from services.registry.validation.blocks import blocks
from services.registry.validation.decoder_run import Decoding, divergence
from services.registry.validation.report import Limits, Refused, Report
from tests.decoders import TEMPLATE, tiny_gguf, vocabulary, write

CHAT = "<|im_start|>user\nSay hello to the world in 2026,  please: é 漢 🙂<|im_end|>\n"


def examined(folder: Path, data: bytes) -> Report:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return gguf_model.examine(path, folder / "made.onnx", Limits())


def refused(folder: Path, data: bytes) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        examined(folder, data)
    return caught.value.finding.code, caught.value.finding.where


@pytest.mark.parametrize(
    ("weights", "tied"),
    [
        ("Q8_0", True), ("Q4_0", False), ("Q4_1", True), ("Q5_0", True), ("Q5_1", False), ("F16", True), ("F32", False),
        ("BF16", True),
    ],
)  # fmt: skip
def test_a_decoder_agrees_with_its_file(tmp_path: Path, weights: str, tied: bool) -> None:
    report = examined(tmp_path, tiny_gguf(weights=weights, tied=tied))
    assert report.made
    assert report.text is not None
    assert 0 < report.text.divergence < 0.01
    assert report.text.agreement > 0.85
    assert (report.text.kind, report.text.context, report.text.vocabulary) == ("decoder", 256, len(vocabulary()))
    assert (report.text.chat, report.text.tools, report.text.architecture) == (True, False, "llama")
    session = ort.InferenceSession(str(tmp_path / "made.onnx"))
    config = TextConfig.from_json(session.get_modelmeta().custom_metadata_map[TEXT_KEY])
    assert config.stop_tokens == (0, 2)
    assert config.chat_template == TEMPLATE
    assert (config.layers, config.kv_heads, config.head_dim, config.add_bos) == (2, 2, 16, False)


def test_scaled_rotations_agree_too(tmp_path: Path) -> None:
    """A wrong scale would show at once: positions are all that tells tokens apart here."""
    scaled = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    factors = {"rope_freqs.weight": np.linspace(1, 8, 8).astype(np.float32)}
    report = examined(tmp_path, tiny_gguf(metadata=scaled, tensors=factors))
    assert report.text is not None
    assert report.text.divergence < 0.01
    plain = tmp_path / "plain.gguf"
    plain.write_bytes(tiny_gguf())
    tokens = list(range(40, 80))
    logits = []
    for path in (plain, tmp_path / "model.gguf"):
        file = gguf_file.read(path)
        logits.append(text_reference.logits(file, llama.network(file), tokens))
    assert divergence(*logits)[0] > 0.05


def test_a_text_in_one_run_or_in_many_gives_the_same(tmp_path: Path) -> None:
    examined(tmp_path, tiny_gguf())
    session = ort.InferenceSession(str(tmp_path / "made.onnx"))
    entries = session.get_modelmeta().custom_metadata_map
    config = TextConfig.from_json(entries[TEXT_KEY])
    tokens = Tokenizer.from_str(entries[TOKENIZER_KEY]).encode(CHAT).ids
    whole = Decoding(session, config, 100).after(tokens)
    pieces = Decoding(session, config, 100)
    for token in tokens:
        stepped = pieces.after([token])
    assert divergence(whole[None], stepped[None])[0] < 1e-3


def test_its_tokenizer_keeps_every_text(tmp_path: Path) -> None:
    examined(tmp_path, tiny_gguf())
    entries = ort.InferenceSession(str(tmp_path / "made.onnx")).get_modelmeta().custom_metadata_map
    tokenizer = Tokenizer.from_str(entries[TOKENIZER_KEY])
    encoded = tokenizer.encode(CHAT)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == CHAT
    assert encoded.tokens[0] == "<|im_start|>"
    assert "hello" in encoded.tokens
    assert "2026" not in encoded.tokens  # digits stand alone
    assert [t for t in encoded.tokens if t.isdigit()] == ["2", "0", "2", "6"]


def test_levels_keep_the_weights(tmp_path: Path) -> None:
    """Exactly for types of whole multiples, and else to half a level."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((8, 64)).astype(np.float32)
    values[0, :32], values[1, :32] = 0.25, np.abs(values[1, :32]) + 3  # all alike, and all of one sign
    for kind, exact in (("Q8_0", True), ("Q4_0", True), ("Q4_1", False), ("F16", False), ("Q5_1", False)):
        path = tmp_path / f"{kind}.gguf"
        path.write_bytes(write({}, {"w": values}, gguf.GGMLQuantizationType[kind]))
        tensor = gguf_file.read(path).tensors["w"]
        made, own = blocks(tensor), tensor.values()
        got = ((made.q.astype(np.float32) - made.zero[..., None]) * made.scale[..., None]).reshape(own.shape)
        if exact:
            np.testing.assert_array_equal(got, own)
        else:
            block = own.reshape(8, 2, 32)
            span = np.maximum(block.max(-1), 0) - np.minimum(block.min(-1), 0)
            # Q4_1's zero point is off by half of a seventeenth of a level at most.
            most = span / 255 * 0.51 if kind != "Q4_1" else span / 15 / 17 * 0.75
            assert (np.abs(got - own).reshape(block.shape).max(-1) <= most + 1e-6).all(), kind


# Bytes of a block, weights in it, and where its float16 scales lie.
PACKED = {
    "Q2_K": (84, 256, (80, 82)), "Q3_K": (110, 256, (108,)), "Q4_K": (144, 256, (0, 2)), "Q5_K": (176, 256, (0, 2)),
    "Q6_K": (210, 256, (208,)), "IQ4_NL": (18, 32, (0,)), "IQ4_XS": (136, 256, (0,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
def test_packed_weights_are_rounded_to_half_a_level(kind: str) -> None:
    size, weights, places = PACKED[kind]
    rng = np.random.default_rng(11)
    data = rng.integers(0, 256, (4, 2, size), dtype=np.uint8)
    for at in places:
        data[..., at : at + 2] = rng.uniform(1e-3, 1e-2, (4, 2, 1)).astype(np.float16).view(np.uint8)
    tensor = gguf_file.Tensor("w", kind, 4, 2 * weights, data.reshape(4, -1))
    made, own = blocks(tensor), tensor.values().reshape(4, -1, 32)
    assert np.ptp(own) > 0
    got = (made.q.astype(np.float32) - made.zero[..., None]) * made.scale[..., None]
    span = np.maximum(own.max(-1), 0) - np.minimum(own.min(-1), 0)
    assert (np.abs(got - own).max(-1) <= span / 255 * 0.51 + 1e-9).all()


REFUSALS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "another architecture": ("ARCHITECTURE_UNKNOWN", "", {"general.architecture": "qwen3"}, {}),
    "a setting that changes the network": (
        "METADATA_UNKNOWN", "llama.expert_count", {"llama.expert_count": 8}, {},
    ),
    "no count of layers": ("METADATA_MISSING", "llama.block_count", {"llama.block_count": None}, {}),
    "layers by a word": ("METADATA_INVALID", "llama.block_count", {"llama.block_count": "two"}, {}),
    "layers without end": ("METADATA_INVALID", "llama.block_count", {"llama.block_count": 2**31}, {}),
    "more layers than there are": ("TENSOR_MISSING", "blk.2.attn_norm.weight", {"llama.block_count": 3}, {}),
    "heads that do not divide": ("METADATA_INVALID", "llama.attention", {"llama.attention.head_count_kv": 3}, {}),
    "a head rotated in part": ("ROPE_UNKNOWN", "llama.rope.dimension_count", {"llama.rope.dimension_count": 8}, {}),
    "a scaling of another kind": ("ROPE_UNKNOWN", "", {"llama.rope.scaling.type": "yarn"}, {}),
    "another tokenizer": ("TOKENIZER_UNKNOWN", "", {"tokenizer.ggml.model": "llama"}, {}),
    "other words": ("PRE_TOKENIZER_UNKNOWN", "tokenizer.ggml.pre", {"tokenizer.ggml.pre": "qwen2"}, {}),
    "merges that lead nowhere": ("TOKENIZER_INVALID", "tokenizer.ggml.merges", {"tokenizer.ggml.merges": ["q q"]}, {}),
    "merges that are numbers": ("METADATA_INVALID", "tokenizer.ggml.merges", {"tokenizer.ggml.merges": [1, 2]}, {}),
    "a token too few": (
        "TOKENIZER_INVALID", "tokenizer.ggml.tokens", {"tokenizer.ggml.tokens": vocabulary()[:-1]}, {},
    ),
    "a token twice": (
        "TOKENIZER_INVALID", "tokenizer.ggml.tokens", {"tokenizer.ggml.tokens": [*vocabulary()[:-1], "A"]}, {},
    ),
    "no types of tokens": (
        "TOKENIZER_INVALID", "tokenizer.ggml.token_type", {"tokenizer.ggml.token_type": None}, {},
    ),
    "an end that is no token": (
        "TOKENIZER_INVALID", "tokenizer.ggml.eos_token_id", {"tokenizer.ggml.eos_token_id": 99_999}, {},
    ),
    "a template that is none": ("CHAT_TEMPLATE_INVALID", "chat_template", {"tokenizer.chat_template": "{% for %}"}, {}),
    "a template that reaches out": (
        "CHAT_TEMPLATE_INVALID", "chat_template",
        {"tokenizer.chat_template": "{{ messages.__class__.__mro__[1].__subclasses__() }}"}, {},
    ),
    "a template without end": (
        "TEXT_CONFIG_INVALID", TEXT_KEY, {"tokenizer.chat_template": "x" * 200_001}, {},
    ),
    "a temperature beyond all": (
        "METADATA_INVALID", "general.sampling.temp", {"general.sampling.temp": 9.0}, {},
    ),
    "a missing weight": ("TENSOR_MISSING", "blk.1.ffn_up.weight", {}, {"blk.1.ffn_up.weight": None}),
    "a weight of another size": (
        "TENSOR_DIMENSIONS", "blk.1.ffn_up.weight", {}, {"blk.1.ffn_up.weight": np.zeros((64, 64), np.float32)},
    ),
    "a weight too many": (
        "TENSOR_UNKNOWN", "blk.0.attn_q.bias", {}, {"blk.0.attn_q.bias": np.zeros(64, np.float32)},
    ),
    "a weight that is no number": (
        "WEIGHTS_NOT_FINITE", "output_norm.weight", {}, {"output_norm.weight": np.full(64, np.nan, np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, case: str) -> None:
    code, where, metadata, tensors = REFUSALS[case]
    assert refused(tmp_path, tiny_gguf(metadata=metadata, tensors=tensors)) == (code, where)


def test_a_decoder_far_from_its_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose heads are in another order than the file's, as by a mistake of ours."""
    monkeypatch.setattr(
        "services.registry.validation.decoder_graph._straight", lambda heads, dim: np.arange(heads * dim)
    )
    assert refused(tmp_path, tiny_gguf()) == ("TEXT_DIVERGES", "")
