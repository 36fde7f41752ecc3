"""Ed25519 keys that sign what others check: kept as PEM, published as JSON Web Keys (RFC 7517, RFC 8037)."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from mercat.auth.v1 import auth_pb2

from services.common.secrets.files import replace
from services.common.secrets.sources import owner_only

ALGORITHM = "EdDSA"
_BEGIN = b"-----BEGIN"


@dataclass(frozen=True)
class SigningKey:
    """A private key, and the id by which its public one is found."""

    private: Ed25519PrivateKey
    kid: str

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> "SigningKey":
        return cls(private, hashlib.sha256(_raw(private.public_key())).hexdigest()[:16])

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Reads the PEM at `path`, or makes it, readable by its owner only, when there is none. Raises TypeError when
        it holds another kind of key, and SecretUnavailable when others can read it."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(_new())
        owner_only(path)
        return cls._parse(path.read_bytes(), path)

    @classmethod
    def load_all(cls, path: Path) -> "list[SigningKey]":
        """As `load`, of a file that may hold several, one after the other: the first signs, all check."""
        first = cls.load(path)
        blocks = path.read_bytes().split(_BEGIN)[2:]
        return [first, *(cls._parse(_BEGIN + block, path) for block in blocks)]

    @classmethod
    def _parse(cls, pem: bytes, path: Path) -> "SigningKey":
        loaded = load_pem_private_key(pem, None)
        if not isinstance(loaded, Ed25519PrivateKey):
            raise TypeError(f"{path} holds a key that is not Ed25519")
        return cls.of(loaded)

    @property
    def public(self) -> Ed25519PublicKey:
        return self.private.public_key()

    def sign(self, claims: Mapping[str, Any], kind: str) -> str:
        """A compact JWS. `kind` is its `typ`, so that what is signed for one purpose is nothing for another (RFC 8725,
        3.11)."""
        return jwt.encode(dict(claims), self.private, ALGORITHM, {"kid": self.kid, "typ": kind})

    def public_jwk(self) -> auth_pb2.JsonWebKey:
        x = base64.urlsafe_b64encode(_raw(self.public)).decode().rstrip("=")
        return auth_pb2.JsonWebKey(kty="OKP", crv="Ed25519", kid=self.kid, use="sig", alg=ALGORITHM, x=x)


class KeyFile:
    """The keys of a file, of which the first signs and all check. Read again when it has changed, so that no process
    need be started anew when one is replaced: another is put before it."""

    def __init__(self, path: Path) -> None:
        """Raises as SigningKey.load_all."""
        self._path = path
        self._keys = SigningKey.load_all(path)
        self._read_at = path.stat().st_mtime_ns

    @property
    def keys(self) -> Sequence[SigningKey]:
        """Of now."""
        with suppress(OSError, ValueError, TypeError):  # while it is being replaced the keys of before are good
            changed = self._path.stat().st_mtime_ns
            if changed != self._read_at:
                self._keys, self._read_at = SigningKey.load_all(self._path), changed
        return self._keys

    @property
    def first(self) -> SigningKey:
        return self.keys[0]

    def rotate(self) -> SigningKey:
        """Puts a new key before those there are; the new one. Raises OSError."""
        replace(self._path, _new() + self._path.read_text())
        return self.first

    def retire(self) -> list[SigningKey]:
        """Takes out all but the first; those that went. Raises OSError."""
        _, *gone = self.keys
        if gone:
            replace(self._path, _pem(self.first.private))
        return gone


def _new() -> str:
    return _pem(Ed25519PrivateKey.generate())


def _pem(key: Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
