"""Codes that people type: 80 bits as `7k3q-9x2m-b4tv-h8wd`, from an alphabet without look-alikes."""

import hashlib
import secrets

from services.common.ids import ALPHABET

_LENGTH = 16
# What is read for what (Crockford's base32); hyphens and spaces are nothing.
_MEANT = str.maketrans({"o": "0", "i": "1", "l": "1", "-": None, " ": None})


def generate() -> str:
    text = "".join(secrets.choice(ALPHABET) for _ in range(_LENGTH))
    return "-".join(text[at : at + 4] for at in range(0, _LENGTH, 4))


def digest(code: str) -> bytes:
    """What is stored. A plain hash suffices: a code has more randomness than anybody can try before it expires."""
    return hashlib.sha256(code.strip().lower().translate(_MEANT).encode()).digest()
