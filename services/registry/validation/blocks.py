"""Weights as the converted graph holds them: blocks of 32 of 8 bits, as `com.microsoft.MatMulNBits` takes them.

w = (q - zero) · scale. Types whose weights are whole multiples of a scale keep their values exactly. Zero points must
be whole numbers, too (fractional ones are far slower), which Q4_1's are not: of its sixteen levels, stretched by k,
that k is taken at which the zero point is nearest to a whole number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.registry.validation.decoder_run import Array
from services.registry.validation.gguf_file import Tensor
from services.registry.validation.llama import BLOCK

_LARGEST_STRETCH = 17  # 15 · 17 = 255


@dataclass(frozen=True)
class Blocks:
    """`q`: uint8 [N, K/32, 32]; `scale`: float32 [N, K/32]; `zero`: uint8 [N, K/32]."""

    q: Array
    scale: Array
    zero: Array

    def rows(self, order: Array) -> "Blocks":
        return Blocks(self.q[order], self.scale[order], self.zero[order])

    @classmethod
    def joined(cls, parts: Sequence["Blocks"]) -> "Blocks":
        """One below the other."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("q", "scale", "zero")))


def blocks(tensor: Tensor) -> Blocks:
    """A tensor of any type that is read, in blocks of 8 bits. Raises Refused for weights that are no numbers."""
    return Blocks.joined([_blocks(tensor, start, stop) for start, stop in tensor.chunks()])


def _blocks(tensor: Tensor, start: int, stop: int) -> Blocks:
    values = tensor.values(start, stop).reshape(stop - start, -1, BLOCK)
    if tensor.kind not in ("Q8_0", "Q4_0", "Q4_1"):
        return _rounded(values)
    raw = tensor.data[start:stop].reshape(*values.shape[:2], -1)
    if tensor.kind == "Q8_0":  # float16 d, 32 × int8 q; w = d·q
        q = (raw[..., 2:] ^ 0x80).astype(np.uint8)
        return Blocks(q, _halves(raw[..., :2]), np.full(q.shape[:2], 128, np.uint8))
    if tensor.kind == "Q4_0":  # float16 d, nibbles q; w = d·(q - 8)
        q = _nibbles(raw[..., 2:])
        return Blocks(q, _halves(raw[..., :2]), np.full(q.shape[:2], 8, np.uint8))
    # float16 d, float16 m, nibbles q; w = d·q + m
    return _stretched(_halves(raw[..., :2]), _halves(raw[..., 2:4]), _nibbles(raw[..., 4:]), values)


def _halves(raw: Array) -> Array:
    return np.ascontiguousarray(raw).view(np.float16)[..., 0].astype(np.float32)


def _nibbles(raw: Array) -> Array:
    """The low nibbles are the first half of a block."""
    return np.concatenate([raw & 0x0F, raw >> 4], axis=-1)


def _stretched(d: Array, m: Array, q: Array, values: Array) -> Blocks:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        wanted = np.where(d > 0, -m / d, np.nan)
    best, error = np.zeros(d.shape, np.uint8), np.full(d.shape, np.inf, np.float32)
    for k in range(1, _LARGEST_STRETCH + 1):
        zero = wanted * k
        off = np.where((zero >= 0) & (zero <= 255), np.abs(zero - np.rint(zero)) / k, np.inf)
        better = off < error
        best[better], error[better] = k, off[better]
    found = best > 0
    stretch = np.maximum(best, 1)
    zero = np.rint(np.where(found, wanted, 0) * stretch).astype(np.uint8)
    made = Blocks(q * stretch[..., None], (d / stretch).astype(np.float32), zero)
    if not found.all():  # blocks that are all of one sign, or all alike
        rest = _rounded(values[~found])
        made.q[~found], made.scale[~found], made.zero[~found] = rest.q, rest.scale, rest.zero
    return made


def _rounded(values: Array) -> Blocks:
    """To the nearest of 256 levels between a block's least and largest weight, of which one is 0."""
    low, high = np.minimum(values.min(-1), 0), np.maximum(values.max(-1), 0)
    scale = ((high - low) / 255).astype(np.float32)
    safe = np.where(scale > 0, scale, 1)
    zero = np.rint(-low / safe)
    q = np.clip(np.rint(values / safe[..., None] + zero[..., None]), 0, 255)
    return Blocks(q.astype(np.uint8), scale, zero.astype(np.uint8))
