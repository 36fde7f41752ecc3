"""A tokenizer goes inside an ONNX file, and the file is what validation wants of a text model."""

from pathlib import Path

import onnx
import pytest

from services.cli.session import Refusal
from services.cli.tokenizing import with_tokenizer
from services.common.text_model import DECODER, ENCODER, TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation.gguf_model import convert
from tests import encoders
from tests.decoders import TEMPLATE, tiny_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(encoders.graph())
    return path


def entries(path: Path) -> tuple[str, TextConfig]:
    held = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return held[TOKENIZER_KEY], TextConfig.from_json(held[TEXT_KEY])


def test_an_encoder_keeps_its_bytes_and_gets_two_entries(tmp_path: Path, file: Path) -> None:
    made = with_tokenizer(file, encoders.tokenizer(), tmp_path, context=32)
    assert made.read_bytes().startswith(file.read_bytes())
    assert entries(made) == (encoders.tokenizer(), TextConfig(ENCODER, 32, len(encoders.WORDS)))
    assert onnx.load(str(made)).graph == onnx.load(str(file)).graph


def test_the_context_is_the_tokenizers_own_where_nobody_says(tmp_path: Path, file: Path) -> None:
    assert entries(with_tokenizer(file, encoders.tokenizer(), tmp_path))[1].context == 16


def test_a_decoder_is_described_by_its_graph(tmp_path: Path) -> None:
    source, bare = tmp_path / "model.gguf", tmp_path / "bare.onnx"
    source.write_bytes(tiny_gguf())
    config = convert(source, tmp_path / "decoder.onnx")
    model = onnx.load(str(tmp_path / "decoder.onnx"))
    tokenizer = next(p.value for p in model.metadata_props if p.key == TOKENIZER_KEY)
    del model.metadata_props[:]
    onnx.save(model, str(bare))
    folder = tmp_path / "made"
    folder.mkdir()
    made = with_tokenizer(
        bare, tokenizer, folder, context=256, template=TEMPLATE, stops=["<|im_end|>", "<|endoftext|>"]
    )
    got = entries(made)[1]
    assert (got.kind, got.layers, got.kv_heads, got.head_dim) == (DECODER, 2, 2, 16)
    assert (got.vocabulary, got.stop_tokens, got.chat_template) == (272, config.stop_tokens, TEMPLATE)
    with pytest.raises(Refusal, match="never end"):
        with_tokenizer(bare, tokenizer, folder, context=256)
    with pytest.raises(Refusal, match="no token 'end'"):
        with_tokenizer(bare, tokenizer, folder, context=256, stops=["end"])


def test_what_cannot_be_described_is_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(Refusal, match="tokenizer cannot be read"):
        with_tokenizer(file, "{}", tmp_path)
    unbounded = encoders.tokenizer().replace('"max_length":16', '"max_length":0')
    with pytest.raises(Refusal, match="how long a text may be"):
        with_tokenizer(file, unbounded, tmp_path)
    file.write_bytes(b"no model")
    with pytest.raises(Refusal, match="no ONNX model"):
        with_tokenizer(file, encoders.tokenizer(), tmp_path)
