"""Prefixed, time-ordered identifiers: `req_` + 26 characters of Crockford base32 of a UUIDv7 (RFC 9562)."""

import hashlib
import os
import re
from datetime import UTC, datetime
from functools import lru_cache

from services.common import clock

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_FORM = re.compile(f"[a-z]+_([{ALPHABET}]{{26}})")
_YEAR_10000 = 253_402_300_800_000  # milliseconds; no datetime goes so far
_TO_BASE32 = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")  # the digits `int` knows


def uuid7(now_ms: int | None = None) -> int:
    """A UUIDv7 as a 128-bit integer; 74 random bits after 48 bits of milliseconds since 1970."""
    return _uuid7(clock.time_ns() // 1_000_000 if now_ms is None else now_ms, os.urandom(10))


def _uuid7(ms: int, entropy: bytes) -> int:
    random = int.from_bytes(entropy, "big")
    return ms << 80 | 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1


def new(prefix: str, now_ms: int | None = None) -> str:
    """A new id such as `key_0685y…`; ids made later sort later (to the millisecond)."""
    return _text(prefix, uuid7(now_ms))


def first(prefix: str, ms: int) -> str:
    """Sorts before every id with this prefix that is made at or after an instant, milliseconds since 1970."""
    return _text(prefix, max(ms, 0) << 80)


def derived(prefix: str, parent: str, index: int) -> str:
    """The id of the part at `index` of what has the id `parent`, made at the parent's time: always the same one.

    Raises:
        ValueError: `parent` is no id.
    """
    entropy = hashlib.sha256(f"{prefix}/{parent}/{index}".encode()).digest()[:10]
    return _text(prefix, _uuid7(milliseconds(parent), entropy))


def _text(prefix: str, value: int) -> str:
    pairs = _PAIRS
    return prefix + "_" + "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


def milliseconds(identifier: str) -> int:
    """When an id was made, in milliseconds since 1970.

    Raises:
        ValueError: the text is no id of this form.
    """
    match = _FORM.fullmatch(identifier)
    value = _value(match[1][:10]) if match else _YEAR_10000
    if value >= _YEAR_10000:
        raise ValueError(f"not an identifier: {identifier!r}")
    return value


@lru_cache(10_000)  # many are made in one millisecond
def _value(digits: str) -> int:
    """Of the first ten digits, which are 50 bits: two of padding, 48 of time."""
    return int(digits.translate(_TO_BASE32), 32)


def sibling(prefix: str, identifier: str) -> str:
    """The id of another kind that belongs to the same thing: `pst_…` of the posting whose cause is `req_…`."""
    return f"{prefix}_{identifier.rpartition('_')[2]}"


def timestamp(identifier: str) -> datetime:
    """When an id was made, UTC, to the millisecond. Raises ValueError as `milliseconds`."""
    return datetime.fromtimestamp(milliseconds(identifier) / 1000, UTC)


def is_id(prefix: str, text: str) -> bool:
    """Whether the text is an id with this prefix."""
    try:
        milliseconds(text)
    except ValueError:
        return False
    return text.startswith(prefix + "_")
