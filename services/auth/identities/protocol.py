"""The way to a provider and back: authorization code with PKCE, state and nonce (RFC 6749, RFC 7636, OpenID Connect
Core 1.0), and for GitHub its own questions in place of an ID token."""

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2
import jwt
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from services.auth.identities.providers import Provider
from services.auth.identities.reaching import check_outside
from services.common.errors import Unauthenticated, Unavailable

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_TIMEOUT = 10.0  # seconds of each question
_KEPT = 3600.0  # seconds for which what a provider says of itself is believed
_LEEWAY = 60  # seconds that clocks may differ
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint")
_LARGEST = 1024 * 1024  # bytes of an answer


class ProviderUnavailable(Unavailable, reason="PROVIDER_UNAVAILABLE"):
    """The provider does not answer, or not as the protocol has it."""


class IdentityRefused(Unauthenticated, reason="IDENTITY_REFUSED"):
    """The provider refused, or what it said does not prove anything."""


@dataclass(frozen=True)
class Secrets:
    """What is kept of an attempt, so that only the answer to it is taken."""

    nonce: str
    verifier: str


@dataclass(frozen=True)
class Found:
    """Who somebody is elsewhere. `owned`: the address is the provider's to give."""

    issuer: str
    subject: str
    email: str = ""
    verified: bool = False
    owned: bool = False
    username: str = ""
    name: str = ""


class Relying:
    """Asks providers. `back`: the URL that they send people back to."""

    def __init__(self, back: str) -> None:
        self._back = back
        self._known: dict[str, tuple[float, Mapping[str, Any]]] = {}

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Of all questions: to read the authorities takes tens of milliseconds."""
        return httpx2.create_ssl_context()

    async def check(self, provider: Provider) -> None:
        """That a provider answers as it should. Raises ProviderUnavailable, InvalidFields."""
        await self._metadata(provider, fresh=True)

    async def begin(self, provider: Provider, state: str, secrets: Secrets) -> str:
        """The URL to open in a browser. Raises ProviderUnavailable."""
        said = await self._metadata(provider)
        more = {} if provider.kind == "github" else {"nonce": secrets.nonce}
        async with self._client(provider) as client:
            url, _ = client.create_authorization_url(
                said["authorization_endpoint"], state=state, code_verifier=secrets.verifier, **more
            )
        return str(url)

    async def finish(self, provider: Provider, code: str, secrets: Secrets) -> Found:
        """Who it is that came back with a code. Raises IdentityRefused, ProviderUnavailable."""
        said = await self._metadata(provider)
        async with self._client(provider) as client, _failures(provider):
            token = await client.fetch_token(
                said["token_endpoint"], grant_type="authorization_code", code=code, code_verifier=secrets.verifier,
                headers={"accept": "application/json"},
            )  # fmt: skip
            if provider.kind == "github":
                return await self._github(provider, client, said)
            claims = await self._claims(provider, said, str(token.get("id_token", "")), secrets.nonce)
            if not claims.get("email") and isinstance(said.get("userinfo_endpoint"), str):
                answer = (await client.get(said["userinfo_endpoint"])).raise_for_status().json()
                if answer.get("sub") != claims["sub"]:  # it may be of another token (OpenID Connect Core, 5.3.2)
                    raise IdentityRefused(f"{provider.name} tells of somebody else")
                claims = {**answer, **claims}
        return _of_claims(provider, claims)

    def _client(self, provider: Provider) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            provider.client_id, provider.client_secret or None, scope=provider.asked, redirect_uri=self._back,
            code_challenge_method="S256", timeout=_TIMEOUT, follow_redirects=False, verify=self._trust,
            token_endpoint_auth_method="client_secret_basic" if provider.client_secret else "none",
        )  # fmt: skip

    async def _metadata(self, provider: Provider, *, fresh: bool = False) -> Mapping[str, Any]:
        """OpenID Connect Discovery 1.0; of GitHub what its documentation says."""
        issuer = provider.issuer.rstrip("/")
        if provider.kind == "github":
            api = "https://api.github.com" if issuer == "https://github.com" else f"{issuer}/api/v3"
            return {
                "authorization_endpoint": f"{issuer}/login/oauth/authorize",
                "token_endpoint": f"{issuer}/login/oauth/access_token", "api": api,
            }  # fmt: skip
        if provider.outside:
            await check_outside(provider.issuer)
        said = await self._get(provider, f"{issuer}/.well-known/openid-configuration", fresh=fresh)
        if said.get("issuer") != provider.issuer:
            raise ProviderUnavailable(f"{provider.name} says that it is another issuer")
        if not all(isinstance(said.get(n), str) for n in ("authorization_endpoint", "token_endpoint", "jwks_uri")):
            raise ProviderUnavailable(f"{provider.name} does not say where it is asked")
        if provider.outside:
            for endpoint in _ENDPOINTS:
                if endpoint in said:
                    await check_outside(str(said[endpoint]))
        return said

    async def _get(self, provider: Provider, url: str, *, fresh: bool = False) -> Mapping[str, Any]:
        kept = self._known.get(url)
        if kept is not None and not fresh and time.monotonic() - kept[0] < _KEPT:
            return kept[1]
        async with (
            _failures(provider),
            httpx2.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, verify=self._trust) as client,
        ):
            answer = await client.get(url)
            answer.raise_for_status()
            said = answer.json() if len(answer.content) <= _LARGEST else None
        if not isinstance(said, dict):
            raise ProviderUnavailable(f"{provider.name} does not answer as it should")
        self._known[url] = (time.monotonic(), said)
        return said

    async def _claims(
        self, provider: Provider, said: Mapping[str, Any], id_token: str, nonce: str
    ) -> Mapping[str, Any]:
        """Of an ID token that is the provider's, for us, of now, and of this attempt (OpenID Connect Core, 3.1.3.7)."""
        try:
            key = await self._key(provider, str(said["jwks_uri"]), jwt.get_unverified_header(id_token))
            claims: Mapping[str, Any] = jwt.decode(
                id_token, key, algorithms=_ALGORITHMS, audience=provider.client_id,
                issuer=provider.issuer, leeway=_LEEWAY, options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )  # fmt: skip
        except jwt.PyJWTError as e:
            raise IdentityRefused(f"the ID token of {provider.name} is not valid: {e}") from None
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if (several or "azp" in claims) and claims.get("azp") != provider.client_id:
            raise IdentityRefused(f"the ID token of {provider.name} is for somebody else")
        if claims.get("nonce") != nonce:
            raise IdentityRefused(f"the ID token of {provider.name} is not of this attempt")
        return claims

    async def _key(self, provider: Provider, url: str, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key that a token names; asked for anew when it is not known, for keys are replaced. Raises PyJWTError."""
        for fresh in (False, True):
            found = jwt.PyJWKSet.from_dict(dict(await self._get(provider, url, fresh=fresh))).keys
            usable = [k for k in found if k.public_key_use in (None, "sig")]
            named = [k for k in usable if k.key_id == header.get("kid")]
            if named or ("kid" not in header and len(usable) == 1):
                return (named or usable)[0]
        raise jwt.InvalidKeyError("it names no key of theirs")

    async def _github(self, provider: Provider, client: AsyncOAuth2Client, said: Mapping[str, Any]) -> Found:
        headers = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
        user = (await client.get(f"{said['api']}/user", headers=headers)).raise_for_status().json()
        mails = (await client.get(f"{said['api']}/user/emails", headers=headers)).raise_for_status().json()
        primary: Mapping[str, Any] = next((m for m in mails if m.get("primary") and m.get("verified")), {})
        return Found(
            provider.issuer, str(int(user["id"])), str(primary.get("email", "")), bool(primary),
            bool(primary) and provider.trusted, str(user.get("login", "")), str(user.get("name") or ""),
        )  # fmt: skip


def _of_claims(provider: Provider, claims: Mapping[str, Any]) -> Found:
    email, verified = str(claims.get("email") or ""), claims.get("email_verified") is True
    owned = provider.trusted
    if provider.issuer == "https://accounts.google.com":
        # Of other addresses Google verified once that somebody had them; whose they are now it does not know.
        owned = owned and (email.lower().endswith("@gmail.com") or bool(claims.get("hd")))
    return Found(
        provider.issuer, str(claims["sub"]), email, bool(email) and verified, bool(email) and verified and owned,
        str(claims.get("preferred_username") or ""), str(claims.get("name") or "")[:100],
    )  # fmt: skip


@asynccontextmanager
async def _failures(provider: Provider) -> AsyncIterator[None]:
    """What goes wrong with a provider, as errors of ours. What it says itself is shown to nobody."""
    try:
        yield
    except AuthlibBaseError as e:
        raise IdentityRefused(f"{provider.name} refused: {e.error or 'no reason given'}") from None
    except httpx2.HTTPStatusError as e:
        raise ProviderUnavailable(f"{provider.name} answers {e.response.status_code}") from None
    except httpx2.HTTPError:
        raise ProviderUnavailable(f"{provider.name} does not answer; try again", retry_after=5) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ProviderUnavailable(f"{provider.name} does not answer as it should") from None
