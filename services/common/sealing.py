"""Encryption at rest of the few secrets that must be read again: AES-256-GCM under keys of the installation."""

import base64
import binascii
import hashlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.common.settings import SettingsError

_ID, _NONCE = 4, 12  # bytes


class Unsealable(Exception):
    """What was sealed was altered, belongs elsewhere, or its key is gone."""


class Sealer:
    """Seals with the first of its keys and opens what any of them sealed, so that a key is replaced by putting another
    before it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._first = _id(keys[0])
        self._keys = {_id(key): AESGCM(key) for key in keys}

    @classmethod
    def load(cls, keys: str, path: Path) -> "Sealer":
        """`keys`: of 32 bytes each, base64, separated by commas; when empty, those in the file at `path`, which is
        made, readable by its owner only, when there is none. Raises SettingsError for what is no key."""
        text = keys or _kept(path)
        try:
            decoded = [base64.b64decode(key.strip(), validate=True) for key in text.split(",")]
        except binascii.Error:
            decoded = [b""]
        if any(len(key) != 32 for key in decoded):
            where = "MERCAT_SEALING_KEYS" if keys else str(path)
            raise SettingsError(f"{where} must hold keys of 32 bytes in base64, separated by commas.")
        return cls(decoded)

    def seal(self, plain: bytes, about: str) -> bytes:
        """`about` names what it belongs to, and must be the same to open it: a row cannot be passed off as another."""
        nonce = os.urandom(_NONCE)
        return self._first + nonce + self._keys[self._first].encrypt(nonce, plain, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Raises Unsealable."""
        key = self._keys.get(sealed[:_ID])
        if key is None:
            raise Unsealable(f"the key of {about} is not among MERCAT_SEALING_KEYS")
        try:
            return key.decrypt(sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :], about.encode())
        except InvalidTag:
            raise Unsealable(f"{about} was altered") from None


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"id" + key).digest()[:_ID]


def _kept(path: Path) -> str:
    """The text of an owner-only file, made whole by whoever comes first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its owner's alone
        os.close(handle)
        draft = Path(name)
        draft.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
