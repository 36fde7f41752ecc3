"""Inputs out of others: what was seen before, cut, joined, flipped and sprinkled with values that parsers trip over."""

import random
from collections.abc import Sequence

_WORDS = [
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0" * 8,
    b"\x80\x80\x80\x80\x80\x10",
    b"[", b"]", b"{", b"}", b'"', b"\\", b"\\u0000", b"\\ud800", b":", b",", b".", b"/", b"..", b"%2f", b"%00", b"=",
    b"&", b"-",
    b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-0", b"0", b"9" * 30, b"-9223372036854775809",
    b"18446744073709551616",
    b"\xed\xa0\x80", b"\xc0\x80", b"\xe2\x80\xae", "²".encode(), b"eyJhbGciOiJub25lIn0", b"none", b"v1=", b"t=",
    b"\n", b"\r\n",
]  # fmt: skip


class Mutator:
    """Makes inputs; `take` gives it one that was of use to go on from."""

    def __init__(self, seeds: Sequence[bytes], longest: int, chance: random.Random) -> None:
        self._pool = [seed[:longest] for seed in seeds] or [b""]
        self._longest = longest
        self._chance = chance

    def take(self, data: bytes) -> None:
        if len(self._pool) < 2000:
            self._pool.append(data)
        else:
            self._pool[self._chance.randrange(len(self._pool))] = data

    def make(self) -> bytes:
        chance = self._chance
        data = bytearray(chance.choice(self._pool))
        for _ in range(1 << chance.randrange(5)):
            self._change(data)
        return bytes(data[: self._longest])

    def _change(self, data: bytearray) -> None:
        chance, size = self._chance, len(data)
        at = chance.randrange(size + 1)
        to = min(size, at + (1 << chance.randrange(8)))
        kind = chance.randrange(9)
        if kind == 0 and at < size:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < size:
            data[at] = chance.randrange(256)
        elif kind == 2:
            del data[at:to]
        elif kind == 3:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 4:
            word = chance.choice(_WORDS)
            data[at : at + len(word)] = word
        elif kind == 5:
            data[at:at] = data[at:to]
        elif kind == 6:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(9)))
        elif kind == 7:
            other = chance.choice(self._pool)
            start = chance.randrange(len(other) + 1)
            data[at:to] = other[start : start + (1 << chance.randrange(8))]
        else:
            del data[at:]
