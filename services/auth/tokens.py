"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 7519, RFC 8037), and the keys to check them with."""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from mercat.auth.v1 import auth_pb2

from services.common.clock import Clock
from services.common.errors import CredentialInvalid

ISSUER = AUDIENCE = "mercat"
TYPE = "at+jwt"  # RFC 9068
LIFETIME = timedelta(minutes=15)


@dataclass(frozen=True)
class Signer:
    """Signs and checks access tokens with one key."""

    private_key: Ed25519PrivateKey
    kid: str
    clock: Clock

    @classmethod
    def load(cls, path: Path, clock: Clock) -> "Signer":
        """Reads the PEM at `path`, or makes it, readable by its owner only, when there is none."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            key = Ed25519PrivateKey.generate()
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        loaded = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(loaded, Ed25519PrivateKey):
            raise TypeError(f"{path} holds no Ed25519 key")
        raw = loaded.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(loaded, hashlib.sha256(raw).hexdigest()[:16], clock)

    def sign(self, user_id: str) -> tuple[str, datetime]:
        """A token for a user, and when it ends."""
        now = self.clock.now()
        expires = now + LIFETIME
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user_id, "iat": now, "exp": expires}
        return jwt.encode(claims, self.private_key, "EdDSA", {"kid": self.kid, "typ": TYPE}), expires

    def check(self, token: str) -> tuple[str, datetime]:
        """The user a token was signed for, and when it ends. Raises CredentialInvalid for every other token."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("kid") != self.kid:
                raise CredentialInvalid("the access token is not one of ours")
            claims = jwt.decode(
                token, self.private_key.public_key(), algorithms=["EdDSA"], audience=AUDIENCE, issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            raise CredentialInvalid("the access token is not valid") from None
        expires = datetime.fromtimestamp(int(claims["exp"]), self.clock.now().tzinfo)
        if expires <= self.clock.now():  # by the injected clock, not the library's
            raise CredentialInvalid("the access token has expired; sign in or refresh the session")
        return str(claims["sub"]), expires

    def public_jwk(self) -> auth_pb2.JsonWebKey:
        raw = self.private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return auth_pb2.JsonWebKey(kty="OKP", crv="Ed25519", kid=self.kid, use="sig", alg="EdDSA", x=x)
