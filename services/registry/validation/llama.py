"""What a GGUF file of the llama architecture says its network is."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from services.registry.validation.gguf_file import Gguf, Tensor
from services.registry.validation.report import Refused

ARCHITECTURE = "llama"
# llama.cpp's names for the shape of a network, without their prefix. Others change what is computed.
_KNOWN = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
    "rope.scaling.factor", "rope.scaling.original_context_length",
}  # fmt: skip
_MOST = {"layers": 512, "hidden": 65_536, "feed_forward": 262_144, "heads": 512, "head_dim": 512, "context": 1 << 20}
BLOCK = 32  # weights that share a scale in the converted graph


@dataclass(frozen=True)
class Llama:
    """Sizes of the network; `inverse_frequencies`: float64 [head_dim / 2], radians a position, of the rotation."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    vocabulary: int
    epsilon: float
    inverse_frequencies: np.ndarray[Any, np.dtype[np.float64]]
    tied: bool


def network(file: Gguf) -> Llama:
    """Raises Refused, by name, for what this code does not know how to compute."""
    architecture = file.get("general.architecture", str)
    if architecture != ARCHITECTURE:
        raise Refused("ARCHITECTURE_UNKNOWN", f"the architecture is {architecture!r}; known is {ARCHITECTURE!r}")
    prefix = f"{architecture}."
    for key in file.metadata:
        if key.startswith(prefix) and key.removeprefix(prefix) not in _KNOWN:
            raise Refused("METADATA_UNKNOWN", "what this changes in the network is not known here", key)

    def number(name: str, default: int | None = None, most: int = 1 << 31) -> int:
        value = int(file.get(prefix + name, int, default))
        if not 0 < value <= most:
            raise Refused("METADATA_INVALID", f"it is {value:,}; at most {most:,}", prefix + name)
        return value

    hidden = number("embedding_length", most=_MOST["hidden"])
    heads = number("attention.head_count", most=_MOST["heads"])
    kv_heads = number("attention.head_count_kv", heads, _MOST["heads"])
    head_dim = number("attention.key_length", max(hidden // heads, 1), _MOST["head_dim"])
    feed_forward = number("feed_forward_length", most=_MOST["feed_forward"])
    if heads % kv_heads or head_dim % 16 or number("attention.value_length", head_dim) != head_dim:
        text = f"{heads} and {kv_heads} heads of {head_dim} do not go together"
        raise Refused("METADATA_INVALID", text, f"{prefix}attention")
    if number("rope.dimension_count", head_dim) != head_dim:
        raise Refused("ROPE_UNKNOWN", "only a part of each head is rotated", f"{prefix}rope.dimension_count")
    if hidden % BLOCK or feed_forward % BLOCK or heads * head_dim % BLOCK:
        raise Refused("METADATA_INVALID", f"sizes must be multiples of {BLOCK}", f"{prefix}embedding_length")
    epsilon = file.get(f"{prefix}attention.layer_norm_rms_epsilon", float)
    if not 0 < epsilon < 1:
        raise Refused("METADATA_INVALID", f"it is {epsilon}", f"{prefix}attention.layer_norm_rms_epsilon")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise Refused("TENSOR_MISSING", "the file has no such tensor", "token_embd.weight")
    made = Llama(
        layers=number("block_count", most=_MOST["layers"]), hidden=hidden, feed_forward=feed_forward, heads=heads,
        kv_heads=kv_heads, head_dim=head_dim, context=number("context_length", most=_MOST["context"]),
        vocabulary=embedding.rows, epsilon=epsilon, inverse_frequencies=_frequencies(file, prefix, head_dim),
        tied="output.weight" not in file.tensors,
    )  # fmt: skip
    if number("vocab_size", made.vocabulary) != made.vocabulary:
        raise Refused("METADATA_INVALID", f"the embedding has {made.vocabulary:,} rows", f"{prefix}vocab_size")
    _check_tensors(file.tensors, made)
    return made


def _frequencies(file: Gguf, prefix: str, head_dim: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    base = file.get(f"{prefix}rope.freq_base", float, 10_000.0)
    if not 1 <= base < 1e12:
        raise Refused("METADATA_INVALID", f"it is {base}", f"{prefix}rope.freq_base")
    frequencies: np.ndarray[Any, np.dtype[np.float64]] = base ** -(np.arange(0, head_dim, 2) / head_dim)
    scaling = file.get(f"{prefix}rope.scaling.type", str, "none")
    if scaling not in ("none", "linear"):
        raise Refused("ROPE_UNKNOWN", f"the scaling is {scaling!r}; known are 'none' and 'linear'")
    if scaling == "linear":
        factor = file.get(f"{prefix}rope.scaling.factor", float)
        if not 0 < factor < 1e6:
            raise Refused("METADATA_INVALID", f"it is {factor}", f"{prefix}rope.scaling.factor")
        frequencies /= factor
    factors = file.tensors.get("rope_freqs.weight")
    if factors is None:
        return frequencies
    values = factors.values().astype(np.float64).reshape(-1)
    if values.shape != frequencies.shape or values.min() <= 0:
        raise Refused("TENSOR_DIMENSIONS", f"it must have {len(frequencies)} positive elements", factors.name)
    return np.asarray(frequencies / values)


def _check_tensors(tensors: dict[str, Tensor], net: Llama) -> None:
    """All that the network needs, of the right sizes, and nothing else."""
    queries, keys = net.heads * net.head_dim, net.kv_heads * net.head_dim
    expected = {"token_embd.weight": (net.vocabulary, net.hidden), "output_norm.weight": (1, net.hidden)}
    if not net.tied:
        expected["output.weight"] = (net.vocabulary, net.hidden)
    for layer in range(net.layers):
        for name, sizes in (
            ("attn_norm", (1, net.hidden)), ("attn_q", (queries, net.hidden)), ("attn_k", (keys, net.hidden)),
            ("attn_v", (keys, net.hidden)), ("attn_output", (net.hidden, queries)), ("ffn_norm", (1, net.hidden)),
            ("ffn_gate", (net.feed_forward, net.hidden)), ("ffn_up", (net.feed_forward, net.hidden)),
            ("ffn_down", (net.hidden, net.feed_forward)),
        ):  # fmt: skip
            expected[f"blk.{layer}.{name}.weight"] = sizes
    for name, (rows, columns) in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise Refused("TENSOR_MISSING", "the file has no such tensor", name)
        if (tensor.rows, tensor.columns) != (rows, columns):
            text = f"it has {tensor.rows:,} rows of {tensor.columns:,} weights instead of {rows:,} of {columns:,}"
            raise Refused("TENSOR_DIMENSIONS", text, name)
    for name in tensors:
        if name not in expected and name != "rope_freqs.weight":
            raise Refused("TENSOR_UNKNOWN", "what this does in the network is not known here", name)
