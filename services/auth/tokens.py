"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 7519, RFC 8037)."""

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


@dataclass(frozen=True)
class Signer:
    """Signs and checks access tokens with one key."""

    key: SigningKey
    clock: Clock

    @classmethod
    def load(cls, path: Path, clock: Clock) -> "Signer":
        """As SigningKey.load."""
        return cls(SigningKey.load(path), clock)

    def sign(self, user_id: str, org_id: str = "") -> tuple[str, datetime]:
        """A token for a user in an organisation, the personal one when it is empty; and when it ends."""
        now = self.clock.now()
        expires = now + LIFETIME
        claims: dict[str, object] = {"iss": ISSUER, "aud": AUDIENCE, "sub": user_id, "iat": now, "exp": expires}
        if org_id:
            claims["org"] = org_id
        return self.key.sign(claims, TYPE), expires

    def check(self, token: str) -> tuple[str, str, datetime]:
        """The user and the organisation a token was signed for, and when it ends. Raises CredentialInvalid for every
        other token."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("kid") != self.key.kid:
                raise CredentialInvalid("the access token is not one of ours")
            claims = jwt.decode(
                token, self.key.public, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER,
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            raise CredentialInvalid("the access token is not valid") from None
        expires = datetime.fromtimestamp(int(claims["exp"]), self.clock.now().tzinfo)
        if expires <= self.clock.now():  # by the injected clock, not the library's
            raise CredentialInvalid("the access token has expired; sign in or refresh the session")
        return str(claims["sub"]), str(claims.get("org", "")), expires
