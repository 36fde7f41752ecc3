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

from services.common.secrets.sources import FileSource, SecretUnavailable
from services.common.settings import SettingsError

_ID, _NONCE = 4, 12  # bytes


class Unsealable(Exception):
    """What was sealed was altered, belongs elsewhere, or its key is gone."""


class Sealer:
    """Seals with the first of its keys and opens what any of them sealed, so that a key is replaced by putting another
    before it. Keys that lie in a file are read again when that has changed."""

    def __init__(self, keys: Sequence[bytes], file: Path | None = None) -> None:
        self._file = file
        self._seen = _changed(file)
        self._take(keys)

    def _take(self, keys: Sequence[bytes]) -> None:
        self._first = _id(keys[0])
        self._keys = {_id(key): AESGCM(key) for key in keys}

    def _look(self) -> None:
        now = _changed(self._file)
        if self._file is not None and now != self._seen:
            self._take(_decoded(_kept(self._file), str(self._file)))
            self._seen = now

    @property
    def newest(self) -> str:
        """The name of the key that seals."""
        self._look()
        return self._first.hex()

    @classmethod
    def load(cls, keys: str, path: Path) -> "Sealer":
        """`keys`: of 32 bytes each, base64, separated by commas; when empty, those in the file at `path`, which is
        made, readable by its owner only, when there is none. Raises SettingsError for what is no key, or can be read by
        others."""
        if keys:
            return cls(_decoded(keys, "MERCAT_SEALING_KEYS"))
        return cls(_decoded(_kept(path), str(path)), path)

    def seal(self, plain: bytes, about: str) -> bytes:
        """`about` names what it belongs to, and must be the same to open it: a row cannot be passed off as another."""
        self._look()
        nonce = os.urandom(_NONCE)
        return self._first + nonce + self._keys[self._first].encrypt(nonce, plain, about.encode())

    def open(self, sealed: bytes, about: str) -> bytes:
        """Raises Unsealable."""
        key = self._keys.get(sealed[:_ID])
        if key is None:
            self._look()
            key = self._keys.get(sealed[:_ID])
        if key is None:
            raise Unsealable(f"the key of {about} is not among MERCAT_SEALING_KEYS")
        try:
            return key.decrypt(sealed[_ID : _ID + _NONCE], sealed[_ID + _NONCE :], about.encode())
        except InvalidTag:
            raise Unsealable(f"{about} was altered") from None


def _decoded(text: str, where: str) -> list[bytes]:
    try:
        keys = [base64.b64decode(key.strip(), validate=True) for key in text.split(",")]
    except binascii.Error:
        keys = [b""]
    if any(len(key) != 32 for key in keys):
        raise SettingsError(f"{where} must hold keys of 32 bytes in base64, separated by commas.")
    return keys


def named(text: str) -> dict[str, str]:
    """The keys of such a text by their names, the newest first."""
    return {_id(base64.b64decode(key)).hex(): key.strip() for key in text.split(",")}


def generate() -> str:
    """A new key, as the text has it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _changed(path: Path | None) -> int:
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"id" + key).digest()[:_ID]


def _kept(path: Path) -> str:
    """The text of an owner-only file, made whole by whoever comes first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its owner's alone
        os.close(handle)
        draft = Path(name)
        draft.write_text(generate() + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    try:
        return FileSource().get(str(path))
    except SecretUnavailable as error:
        raise SettingsError(f"{error}.") from error
