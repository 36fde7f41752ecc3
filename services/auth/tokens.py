"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 7519, RFC 8037)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import jwt

from services.common.clock import Clock
from services.common.errors import CredentialInvalid
from services.common.signing import ALGORITHM, SigningKey

ISSUER = AUDIENCE = "mercat"
TYPE = "at+jwt"  # RFC 9068
LIFETIME = timedelta(minutes=15)
# Values of `acr`: NIST SP 800-63B's assurance levels.
PASSWORD, SECOND_FACTOR = "aal1", "aal2"


@dataclass(frozen=True)
class Proof:
    """The session that a token is of, when its owner last proved who they are, whether a second factor was part of
    that, and the organisation; empty: the personal one."""

    user_id: str
    session_id: str
    at: datetime
    second_factor: bool
    org_id: str = ""


@dataclass(frozen=True)
class Signer:
    """Signs access tokens with the first of its keys, and checks those that any of them signed: a key is replaced by
    putting another before it, and goes when the last token it signed has ended."""

    keys: Sequence[SigningKey]
    clock: Clock

    @classmethod
    def load(cls, path: Path, clock: Clock) -> "Signer":
        """As SigningKey.load_all."""
        return cls(SigningKey.load_all(path), clock)

    def sign(self, proof: Proof) -> tuple[str, datetime]:
        """A token, and when it ends."""
        now = self.clock.now()
        expires = now + LIFETIME
        claims: dict[str, object] = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": proof.user_id, "sid": proof.session_id, "iat": now, "exp": expires,
            "auth_time": int(proof.at.timestamp()), "acr": SECOND_FACTOR if proof.second_factor else PASSWORD,
        }  # fmt: skip
        if proof.org_id:
            claims["org"] = proof.org_id
        return self.keys[0].sign(claims, TYPE), expires

    def check(self, token: str) -> tuple[Proof, datetime]:
        """What a token was signed for, and when it ends. Raises CredentialInvalid for every other token."""
        try:
            header = jwt.get_unverified_header(token)
            key = next((k for k in self.keys if k.kid == header.get("kid")), None)
            if header.get("typ") != TYPE or key is None:
                raise CredentialInvalid("the access token is not one of ours")
            claims = jwt.decode(
                token, key.public, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER,
                options={
                    "require": ["exp", "iat", "sub", "sid", "aud", "iss", "auth_time"],
                    "verify_exp": False, "verify_iat": False,
                },
            )  # fmt: skip
        except jwt.InvalidTokenError:
            raise CredentialInvalid("the access token is not valid") from None
        zone = self.clock.now().tzinfo
        expires = datetime.fromtimestamp(int(claims["exp"]), zone)
        if expires <= self.clock.now():  # by the injected clock, not the library's
            raise CredentialInvalid("the access token has expired; sign in or refresh the session")
        at, org_id = datetime.fromtimestamp(int(claims["auth_time"]), zone), str(claims.get("org", ""))
        second_factor = claims.get("acr") == SECOND_FACTOR
        return Proof(str(claims["sub"]), str(claims["sid"]), at, second_factor, org_id), expires
