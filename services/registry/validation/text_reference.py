"""The plain computation of a decoder, in float32, of the file's own weights: what a converted graph is held against.

The llama architecture: https://arxiv.org/abs/2302.13971; its rotary embedding as GGUF has it (neighbours a pair)."""

import numpy as np

from services.registry.validation.decoder_run import Array, log_softmax
from services.registry.validation.gguf_file import Gguf, Tensor
from services.registry.validation.llama import Llama


def logits(file: Gguf, net: Llama, tokens: list[int]) -> Array:
    """float32 [tokens, vocabulary]: after each token, of the next one."""
    place = np.arange(len(tokens))
    angles = (place[:, None] * net.inverse_frequencies).astype(np.float32)[:, None, :]
    cos, sin = np.cos(angles), np.sin(angles)
    unseen = place[None, :] > place[:, None]

    def weights(name: str, layer: int) -> Tensor:
        return file.tensors[f"blk.{layer}.{name}.weight"]

    embedding = file.tensors["token_embd.weight"]
    x = np.concatenate([embedding.values(t, t + 1) for t in tokens])
    for i in range(net.layers):
        h = _normalised(x, weights("attn_norm", i), net.epsilon)
        q = _rotated(_linear(h, weights("attn_q", i)).reshape(len(tokens), net.heads, -1), cos, sin)
        k = _rotated(_linear(h, weights("attn_k", i)).reshape(len(tokens), net.kv_heads, -1), cos, sin)
        v = _linear(h, weights("attn_v", i)).reshape(len(tokens), net.kv_heads, -1)
        x = x + _linear(_attended(q, k, v, unseen), weights("attn_output", i))
        h = _normalised(x, weights("ffn_norm", i), net.epsilon)
        gate = _linear(h, weights("ffn_gate", i))
        with np.errstate(over="ignore"):
            gate = gate / (1 + np.exp(-gate))
        x = x + _linear(gate * _linear(h, weights("ffn_up", i)), weights("ffn_down", i))
    x = _normalised(x, file.tensors["output_norm.weight"], net.epsilon)
    return _linear(x, file.tensors["token_embd.weight" if net.tied else "output.weight"])


def _linear(x: Array, weights: Tensor) -> Array:
    return np.concatenate([x @ weights.values(start, stop).T for start, stop in weights.chunks()], axis=-1)


def _normalised(x: Array, weights: Tensor, epsilon: float) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weights.values())


def _rotated(x: Array, cos: Array, sin: Array) -> Array:
    even, odd = x[..., ::2], x[..., 1::2]
    turned: Array = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x.shape)


def _attended(q: Array, k: Array, v: Array, unseen: Array) -> Array:
    """q [T, heads, D], k and v [T, kv_heads, D], each of which serves as many heads → [T, heads · D]."""
    k, v = (np.repeat(t, q.shape[1] // t.shape[1], axis=1) for t in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1])
    scores[:, unseen] = -np.inf
    seen: Array = np.einsum("hij,jhd->ihd", np.exp(log_softmax(scores)), v)
    return seen.reshape(len(q), -1)
