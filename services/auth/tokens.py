"""Access tokens: short-lived JWTs signed with Ed25519 (RFC 7519, RFC 8037, RFC 9068)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from services.common.clock import Clock
from services.common.errors import CredentialInvalid
from services.common.signing import ALGORITHM, KeyFile, SigningKey

AUDIENCE = "mercat"
TYPE = "at+jwt"  # RFC 9068
LIFETIME = timedelta(minutes=15)
# Values of `acr`: NIST SP 800-63B's assurance levels.
PASSWORD, SECOND_FACTOR = "aal1", "aal2"


@dataclass(frozen=True)
class Proof:
    """The session that a token is of, when its owner last proved who they are, whether a second factor was part of
    that, the organisation (empty: the personal one), the scopes it is held to (None: all), and the OAuth client that
    it was given to (empty: none)."""

    user_id: str
    session_id: str
    at: datetime
    second_factor: bool
    org_id: str = ""
    scopes: frozenset[str] | None = None
    client_id: str = ""


@dataclass(frozen=True)
class ClientProof:
    """The OAuth client that a token is of, the service account it acts as, and the scopes it is held to."""

    account_id: str
    client_id: str
    scopes: frozenset[str]
    token_id: str


class Signer:
    """Signs access tokens with the first of its keys, and checks those that any of them signed: a key is replaced by
    putting another before it, and goes when the last token it signed has ended."""

    def __init__(self, path: Path, clock: Clock, issuer: str) -> None:
        """`issuer`: the URL of this platform. Raises as SigningKey.load_all."""
        self._file, self._clock, self._issuer = KeyFile(path), clock, issuer

    @property
    def keys(self) -> Sequence[SigningKey]:
        """Of now."""
        return self._file.keys

    def sign(self, proof: Proof) -> tuple[str, datetime]:
        """A token of a session, and when it ends."""
        claims: dict[str, object] = {
            "sub": proof.user_id, "sid": proof.session_id, "auth_time": int(proof.at.timestamp()),
            "acr": SECOND_FACTOR if proof.second_factor else PASSWORD,
        }  # fmt: skip
        if proof.org_id:
            claims["org"] = proof.org_id
        if proof.client_id:
            claims["client_id"] = proof.client_id
        return self._sign(claims, proof.scopes)

    def sign_for_client(self, proof: ClientProof) -> tuple[str, datetime]:
        """A token of a client's own, and when it ends."""
        claims = {"sub": proof.account_id, "client_id": proof.client_id, "jti": proof.token_id}
        return self._sign(claims, proof.scopes)

    def _sign(self, claims: Mapping[str, object], scopes: frozenset[str] | None) -> tuple[str, datetime]:
        now = self._clock.now()
        expires = now + LIFETIME
        said = {"iss": self._issuer, "aud": AUDIENCE, "iat": now, "exp": expires, **claims}
        if scopes is not None:
            said["scope"] = " ".join(sorted(scopes))
        return self.keys[0].sign(said, TYPE), expires

    def check(self, token: str) -> tuple[Proof | ClientProof, datetime]:
        """What a token was signed for, and when it ends. Raises CredentialInvalid for every other token."""
        try:
            header = jwt.get_unverified_header(token)
            key = next((k for k in self.keys if k.kid == header.get("kid")), None)
            if header.get("typ") != TYPE or key is None:
                raise CredentialInvalid("the access token is not one of ours")
            claims = jwt.decode(
                token, key.public, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=[self._issuer, AUDIENCE],
                options={"require": ["exp", "iat", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
            proof = self._proof(claims)
        except (jwt.InvalidTokenError, KeyError):
            raise CredentialInvalid("the access token is not valid") from None
        expires = datetime.fromtimestamp(int(claims["exp"]), self._clock.now().tzinfo)
        if expires <= self._clock.now():  # by the injected clock, not the library's
            raise CredentialInvalid("the access token has expired; sign in or refresh the session")
        return proof, expires

    def _proof(self, claims: Mapping[str, Any]) -> Proof | ClientProof:
        """Raises KeyError where a claim is missing."""
        scopes = frozenset(str(claims["scope"]).split()) if "scope" in claims else None
        if "jti" in claims:
            return ClientProof(str(claims["sub"]), str(claims["client_id"]), scopes or frozenset(), str(claims["jti"]))
        at = datetime.fromtimestamp(int(claims["auth_time"]), self._clock.now().tzinfo)
        return Proof(
            str(claims["sub"]), str(claims["sid"]), at, claims.get("acr") == SECOND_FACTOR, str(claims.get("org", "")),
            scopes, str(claims.get("client_id", "")),
        )  # fmt: skip
