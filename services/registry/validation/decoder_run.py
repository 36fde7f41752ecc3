"""Runs a decoder as `services.common.text_model` describes it, and compares logits."""

from typing import Any

import numpy as np

from services.common.text_model import TextConfig

Array = np.ndarray[Any, np.dtype[Any]]


class Decoding:
    """One text, of which more and more is known to the model; at most `capacity` tokens."""

    def __init__(self, session: Any, config: TextConfig, capacity: int) -> None:
        self._session = session
        empty = np.zeros((1, config.kv_heads, capacity, config.head_dim), np.float32)
        parts = [f"{layer}.{which}" for layer in range(config.layers) for which in ("key", "value")]
        self._past: dict[str, Any] = {f"past_key_values.{part}": empty for part in parts}
        self._wanted = ["logits", *(f"present.{part}" for part in parts)]
        self._length = 0

    def after(self, tokens: list[int]) -> Array:
        """Logits float32 [vocabulary] after these tokens, too. Raises what ONNX Runtime does."""
        self._length += len(tokens)
        logits, *present = self._session.run(
            self._wanted,
            {
                "input_ids": np.array([tokens], np.int64), "seqlens_k": np.array([self._length - 1], np.int32),
                "total_sequence_length": np.array(self._length, np.int32), **self._past,
            },
        )  # fmt: skip
        self._past = dict(zip(self._past, present, strict=True))
        return np.asarray(logits[0])


def divergence(expected: Array, actual: Array) -> tuple[float, float]:
    """Of two tables of logits [positions, vocabulary]: the mean Kullback-Leibler divergence of the second from the
    first, nats; and the share of positions whose likeliest token is the same."""
    p, q = log_softmax(expected.astype(np.float64)), log_softmax(actual.astype(np.float64))
    return float((np.exp(p) * (p - q)).sum(-1).mean()), float((p.argmax(-1) == q.argmax(-1)).mean())


def log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))
