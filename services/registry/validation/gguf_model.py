"""Makes an ONNX decoder of a GGUF file, and holds it against the file's own weights."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np

from services.common.text_model import TEXT_KEY, TOKENIZER_KEY, TextConfig
from services.registry.validation import decoder_graph, engine, gguf_file, llama, text_model, text_reference, tokenizer
from services.registry.validation.decoder_run import divergence
from services.registry.validation.report import Limits, Refused, Report

_BYTES = 37 / 32  # of a weight in the graph: a block of 32 has a scale of 4 and a zero point of 1


def examine(path: Path, made: Path, limits: Limits) -> Report:
    """A report of one GGUF file, whose decoder is written to `made`. Raises Refused, MemoryError, OSError."""
    file = gguf_file.read(path)
    net = llama.network(file)
    weights = sum(t.rows * t.columns for t in file.tensors.values())
    if weights * _BYTES + net.context * net.head_dim * 4 > limits.artifact_bytes:
        raise Refused("FILE_TOO_LARGE", f"{weights:,} weights are more than one ONNX file can hold")
    try:
        texts = _convert(file, net, made)
    except OSError as e:
        if e.errno != errno.EFBIG:
            raise
        raise Refused("FILE_TOO_LARGE", f"its decoder has more than {limits.file_bytes:,} bytes") from None
    tokens = texts.sample()
    session, load_us = engine.load(made)
    stepped, whole, run_us = text_model.compared(session, texts.config, tokens)
    expected = text_reference.logits(file, net, tokens)
    # What is known of a text token by token must be known of it at once, too.
    far, same = divergence(np.concatenate([expected, expected[-1:]]), np.concatenate([stepped, whole[None]]))
    if not (far <= text_model.MOST_DIVERGENCE and same >= text_model.LEAST_AGREEMENT):
        text = f"the decoder is {far:.3g} nats from the file's own weights, and {same:.0%} of its choices are the same"
        raise Refused("TEXT_DIVERGES", text)
    return Report(
        load_us=load_us, run_us=run_us, memory_bytes=engine.peak_memory(), made=True,
        text=replace(texts.facts, divergence=far, agreement=same),
    )  # fmt: skip


def convert(gguf_path: Path, onnx_path: Path) -> TextConfig:
    """Writes the decoder, tokenizer and configuration inside. Raises Refused for a file that cannot be read or holds
    what is not known here, OSError where the decoder cannot be written."""
    file = gguf_file.read(gguf_path)
    return _convert(file, llama.network(file), onnx_path).config


def _convert(file: gguf_file.Gguf, net: llama.Llama, path: Path) -> text_model.Texts:
    texts = text_model.texts(tokenizer.config(file, net), tokenizer.tokenizer(file, net))
    metadata = {TOKENIZER_KEY: texts.tokenizer.to_str(), TEXT_KEY: texts.config.to_json()}
    decoder_graph.write(path, file, net, metadata)
    return texts
