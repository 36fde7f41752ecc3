"""Keys and values of earlier prompts, kept for prompts that begin alike."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from services.common.text_model import TextConfig
from services.inference.text.decoder.slab import Floats, Slab

BLOCK = 32  # tokens


class Prefixes:
    """Blocks of tokens, each known by itself and all before it, the least recently used dropped first. Accounts do not
    share them: how fast an answer comes must not tell what others asked."""

    def __init__(self, config: TextConfig, size: int) -> None:
        """`size`: octets of memory at most."""
        self._most = size // (config.layers * 2 * config.kv_heads * BLOCK * config.head_dim * 4)
        self._blocks: OrderedDict[bytes, Floats] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def find(self, account: str, tokens: Sequence[int]) -> list[Floats]:
        """The blocks that a prompt begins with, as `Slab.write` takes them. Two tokens at least are left to run, as a
        single one would round differently."""
        names: list[bytes] = []
        for _, name in _names(account, tokens[:-2]):
            if name not in self._blocks:
                break
            names.append(name)
        self._used(names)
        return [self._blocks[name] for name in names]

    def keep(self, account: str, tokens: Sequence[int], slab: Slab, row: int) -> None:
        """Keeps what a row holds of a prompt, as far as it was run."""
        names: list[bytes] = []
        for at, name in _names(account, tokens):
            if len(names) == self._most:
                break
            names.append(name)
            if name not in self._blocks:
                self._blocks[name] = slab.read(row, at, at + BLOCK)
        self._used(names)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)

    def _used(self, names: Sequence[bytes]) -> None:
        for name in reversed(names):  # a block is of no use without those before it
            self._blocks.move_to_end(name)


def _names(account: str, tokens: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The whole blocks of a prompt: where each begins, and its name."""
    name = blake2b(account.encode(), digest_size=16).digest()
    ids = np.asarray(tokens, np.int64)
    for at in range(0, len(ids) - BLOCK + 1, BLOCK):
        name = blake2b(name + ids[at : at + BLOCK].tobytes(), digest_size=16).digest()
        yield at, name
