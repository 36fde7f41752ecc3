"""What a target is: a function of bytes that ends, or raises what it documents, and seeds to begin from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    longest: int = 4096  # bytes of an input


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
