"""Serves `mercat.auth.v1.IdentityService`. Providers are asked outside of every transaction."""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass
from datetime import timedelta
from urllib.parse import urlencode

from mercat.auth.v1 import auth_pb2, identity_pb2, identity_pb2_grpc

from services.auth.accounts import Accounts
from services.auth.handles.reserved import is_reserved
from services.auth.identities.protocol import Found, Relying, Secrets
from services.auth.identities.providers import Provider
from services.auth.identities.resolving import Way, usernames, way
from services.auth.identities.store import IdentityStore
from services.auth.service import profile_of
from services.auth.signing_in import SigningIn
from services.auth.sso.connecting import Connecting, is_sso
from services.auth.sso.requiring import domain_of
from services.auth.store import Row, Store
from services.common import audit, ids, pages
from services.common.db import Connection
from services.common.errors import (
    AlreadyExists,
    CredentialInvalid,
    FailedPrecondition,
    InvalidFields,
    NotFound,
    Violation,
)
from services.common.rpc.context import Context, caller
from services.common.sealing import Unsealable
from services.common.service import Deps

_LIFETIME = timedelta(minutes=10)
_NOBODY = "sign-ins"  # owns what belongs to no account yet, for those minutes
Begin = identity_pb2.BeginIdentitySignInRequest | identity_pb2.BeginIdentityLinkRequest


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass
class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Signs people in whom a provider has proved, and links accounts elsewhere with accounts here."""

    deps: Deps
    providers: dict[str, Provider]
    relying: Relying
    store: IdentityStore
    users: Store
    accounts: Accounts
    signing_in: SigningIn
    sso: Connecting
    page: str  # where people go on who sign in on a page of the platform's

    async def ListIdentityProviders(
        self, request: identity_pb2.ListIdentityProvidersRequest, context: Context
    ) -> identity_pb2.ListIdentityProvidersResponse:
        shown = [identity_pb2.IdentityProvider(provider=p.id, name=p.name) for p in self.providers.values()]
        return identity_pb2.ListIdentityProvidersResponse(providers=shown)

    async def BeginIdentitySignIn(
        self, request: identity_pb2.BeginIdentitySignInRequest, context: Context
    ) -> identity_pb2.BeginIdentitySignInResponse:
        return identity_pb2.BeginIdentitySignInResponse(authorization_url=await self._begin(request, ""))

    async def BeginIdentityLink(
        self, request: identity_pb2.BeginIdentityLinkRequest, context: Context
    ) -> identity_pb2.BeginIdentityLinkResponse:
        url = await self._begin(request, caller().user_id)
        return identity_pb2.BeginIdentityLinkResponse(authorization_url=url)

    async def _provider(self, provider_id: str) -> Provider:
        if is_sso(provider_id):
            return await self.sso.provider(provider_id)
        provider = self.providers.get(provider_id)
        if provider is None:
            known = ", ".join(self.providers) or "none"
            raise NotFound(f"nobody signs in with {provider_id} here; there is: {known}", reason="PROVIDER_NOT_FOUND")
        return provider

    async def _asked(self, request: Begin) -> Provider:
        if bool(request.provider) == bool(request.domain):
            raise InvalidFields(violations=[Violation("provider", "or domain is required, and not both")])
        return await (self.sso.of_domain(request.domain) if request.domain else self._provider(request.provider))

    async def _begin(self, request: Begin, link_user_id: str) -> str:
        provider, now = await self._asked(request), self.deps.clock.now()
        state, kept = secrets.token_urlsafe(32), Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        url = await self.relying.begin(provider, state, kept)
        async with self.deps.database.transaction() as connection:
            sealed = await self.signing_in.keyring.seal(
                connection, link_user_id or _NOBODY, json.dumps(asdict(kept)).encode(), f"identity/{_hash(state).hex()}"
            )
            await self.store.add_attempt(
                connection, state_hash=_hash(state), provider=provider.id, sealed=sealed,
                redirect_uri=request.redirect_uri or self.page, client_state=request.state,
                code_challenge=request.code_challenge, link_user_id=link_user_id, now=now, expires_at=now + _LIFETIME,
            )  # fmt: skip
        return url

    async def CompleteIdentitySignIn(
        self, request: identity_pb2.CompleteIdentitySignInRequest, context: Context
    ) -> identity_pb2.CompleteIdentitySignInResponse:
        state_hash = _hash(request.state)
        async with self.deps.database.connection() as connection:
            row = await self.store.find_attempt(connection, state_hash, self.deps.clock.now())
        if row is None:
            raise _over("state")
        said = {"state": row["client_state"]} if row["client_state"] else {}
        if request.error or not request.code:
            async with self.deps.database.transaction() as connection:
                await self.store.end_attempt(connection, state_hash)
            said["error"] = "access_denied"
            return identity_pb2.CompleteIdentitySignInResponse(redirect_uri=_with(row["redirect_uri"], said))
        owner = row["link_user_id"] or _NOBODY
        kept = Secrets(**json.loads(await self._open(owner, row["sealed"], f"identity/{state_hash.hex()}", "state")))
        found = await self.relying.finish(await self._provider(row["provider"]), request.code, kept)
        said["code"] = code = secrets.token_urlsafe(32)
        async with self.deps.database.transaction() as connection:
            sealed = await self.signing_in.keyring.seal(
                connection, owner, json.dumps(asdict(found)).encode(), f"found/{_hash(code).hex()}"
            )
            if not await self.store.complete_attempt(
                connection, state_hash, _hash(code), sealed, self.deps.clock.now()
            ):
                raise _over("state")
        return identity_pb2.CompleteIdentitySignInResponse(redirect_uri=_with(row["redirect_uri"], said))

    async def _completed(self, code: str, verifier: str, link_user_id: str) -> tuple[Provider, Found]:
        """Who it is that a code is for, which stays good. Raises InvalidFields when it is none of this caller's, and
        FailedPrecondition when an organisation's provider tells an address that is not its own."""
        async with self.deps.database.connection() as connection:
            row = await self.store.find_completed(connection, _hash(code), self.deps.clock.now())
        if row is None or (row["link_user_id"] or "") != link_user_id:
            raise _over("identity_code")
        challenge = base64.urlsafe_b64encode(_hash(verifier)).rstrip(b"=")
        if not hmac.compare_digest(challenge, row["code_challenge"].encode()):
            raise InvalidFields(violations=[Violation("code_verifier", "is not that of the program that began")])
        text = await self._open(link_user_id or _NOBODY, row["found"], f"found/{_hash(code).hex()}", "identity_code")
        provider, found = await self._provider(row["provider"]), Found(**json.loads(text))
        return provider, await self.sso.judged(provider, found) if is_sso(provider.id) else found

    async def _open(self, owner_id: str, sealed: bytes, about: str, field: str) -> bytes:
        """Raises InvalidFields when its key is gone."""
        async with self.deps.database.connection() as connection:
            try:
                return await self.signing_in.keyring.open(connection, owner_id, sealed, about)
            except Unsealable:
                raise _over(field) from None

    async def _take(self, connection: Connection, code: str) -> None:
        if not await self.store.take_completed(connection, _hash(code), self.deps.clock.now()):
            raise _over("identity_code")

    async def SignInWithIdentity(
        self, request: identity_pb2.SignInWithIdentityRequest, context: Context
    ) -> identity_pb2.SignInWithIdentityResponse:
        provider, found = await self._completed(request.identity_code, request.code_verifier, "")
        async with self.deps.database.connection() as connection:
            identity = await self.store.find_identity(connection, found)
            account = await self.users.find_user(connection, found.email) if found.email else None
        chosen = way(found, identity is not None, account)
        if chosen is Way.UNKNOWN:
            raise FailedPrecondition(
                f"{provider.name} tells no email address; allow that, or sign up with one",
                reason="IDENTITY_WITHOUT_EMAIL",
            )
        if chosen is Way.PROVE:
            raise FailedPrecondition(
                f"there is an account of {found.email}; sign in to it, with `mercat password forgot` if need be, and "
                f"link with `mercat identities link {_option(provider, found)}`", reason="IDENTITY_UNLINKED",
            )  # fmt: skip
        if chosen is Way.CREATE:
            return await self._create(request, provider, found)
        user_id = identity["user_id"] if identity is not None else account["id"] if account is not None else ""
        async with self.signing_in.proving.elsewhere(user_id, request.code) as (connection, user, second_factor):
            await self._take(connection, request.identity_code)
            audit.about("user", user["id"])
            audit.by(user["id"], user["org_id"])
            if identity is None:
                await self._link(connection, user, provider, found)
            else:
                await self.store.use_identity(connection, identity["id"], found.email, self.deps.clock.now())
            await self.signing_in.requiring.check(connection, user["id"], provider.id)
            organisation = await self._joined(connection, provider, user["id"])
            session = await self.signing_in.sessions.open(
                connection, user["id"], second_factor=second_factor, via=_via(provider)
            )
        return identity_pb2.SignInWithIdentityResponse(
            profile=profile_of(user), session=session, organisation=organisation
        )

    async def _joined(self, connection: Connection, provider: Provider, user_id: str) -> str:
        """The organisation that somebody has come into by its provider; empty: by no organisation's."""
        return await self.sso.join(connection, provider, user_id) if is_sso(provider.id) else ""

    async def _create(
        self, request: identity_pb2.SignInWithIdentityRequest, provider: Provider, found: Found
    ) -> identity_pb2.SignInWithIdentityResponse:
        self.signing_in.handles.check_allowed(request.username, "username")
        names = [request.username] if request.username else usernames(found, is_reserved)
        for name in names:
            try:
                return await self._created(request.identity_code, provider, found, name)
            except AlreadyExists as e:
                if name == names[-1] or [v.field for v in e.violations] != ["username"]:
                    raise
        raise AssertionError("the last name is tried or refused")

    async def _created(
        self, code: str, provider: Provider, found: Found, username: str
    ) -> identity_pb2.SignInWithIdentityResponse:
        async with self.deps.database.transaction() as connection:
            await self._take(connection, code)
            await self.signing_in.requiring.check_new(connection, found.email, provider.id)
            user_id = await self.accounts.add(
                connection, found.email, username, "", auth_pb2.ROLE_CONSUMER, found.name, known=found.owned
            )
            row = await self.store.add_identity(
                connection, ids.new("idn"), user_id, provider.id, found, self.deps.clock.now()
            )
            if row is None:
                raise _taken(provider)
            user = await self.users.get_user(connection, user_id)
            assert user is not None
            organisation = await self._joined(connection, provider, user_id)
            session = await self.signing_in.sessions.open(connection, user_id, via=_via(provider))
        return identity_pb2.SignInWithIdentityResponse(
            profile=profile_of(user), session=session, created=True, organisation=organisation
        )

    async def _link(self, connection: Connection, user: Row, provider: Provider, found: Found) -> Row:
        row = await self.store.add_identity(
            connection, ids.new("idn"), user["id"], provider.id, found, self.deps.clock.now()
        )
        if row is None:
            raise _taken(provider)
        await self.signing_in.letters.changed(
            connection, user, f"Your account at {provider.name} signs in to your account from now on"
        )
        return row

    async def LinkIdentity(
        self, request: identity_pb2.LinkIdentityRequest, context: Context
    ) -> identity_pb2.LinkIdentityResponse:
        user_id = caller().user_id
        provider, found = await self._completed(request.identity_code, request.code_verifier, user_id)
        audit.about("user", user_id)
        async with self.deps.database.transaction() as connection:
            user = await self.users.get_user(connection, user_id)
            if user is None:
                raise CredentialInvalid("this account is closed")
            await self._take(connection, request.identity_code)
            made = _message(await self._link(connection, user, provider, found))
            audit.changed(after=made)
            await self._joined(connection, provider, user_id)
        return identity_pb2.LinkIdentityResponse(identity=made)

    async def ListIdentities(
        self, request: identity_pb2.ListIdentitiesRequest, context: Context
    ) -> identity_pb2.ListIdentitiesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self.deps.database.connection() as connection:
            before = str(key[0]) if key else ""
            rows = await self.store.list_identities(connection, caller().user_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return identity_pb2.ListIdentitiesResponse(identities=[_message(r) for r in rows[:most]], next_page_token=token)

    async def UnlinkIdentity(
        self, request: identity_pb2.UnlinkIdentityRequest, context: Context
    ) -> identity_pb2.UnlinkIdentityResponse:
        user_id = caller().user_id
        audit.about("user", user_id)
        async with self.deps.database.transaction() as connection:
            user = await self.signing_in.store.lock_user(connection, user_id)
            row = await self.store.delete_identity(connection, request.identity_id, user_id)
            if user is None or row is None:
                raise NotFound("you have no such account elsewhere; see `mercat identities list`",
                               reason="IDENTITY_NOT_FOUND")  # fmt: skip
            await self.signing_in.check_another_way(connection, user)
            audit.changed(_message(row))
            name = self.providers[row["provider"]].name if row["provider"] in self.providers else row["provider"]
            await self.signing_in.letters.changed(
                connection, user, f"Your account at {name} does not sign in to your account any more"
            )
        return identity_pb2.UnlinkIdentityResponse()


def _via(provider: Provider) -> str:
    return provider.id if is_sso(provider.id) else ""


def _option(provider: Provider, found: Found) -> str:
    return f"--sso {domain_of(found.email)}" if is_sso(provider.id) else provider.id


def _over(field: str) -> InvalidFields:
    return InvalidFields(violations=[Violation(field, "is unknown, used or too old; begin anew")])


def _taken(provider: Provider) -> AlreadyExists:
    return AlreadyExists(f"this account at {provider.name} is linked with an account already", reason="IDENTITY_TAKEN")


def _with(uri: str, said: dict[str, str]) -> str:
    return f"{uri}?{urlencode(said)}"


def _message(row: Row) -> identity_pb2.Identity:
    identity = identity_pb2.Identity(identity_id=row["id"], provider=row["provider"], email=row["email"])
    identity.created_at.FromDatetime(row["created_at"])
    identity.last_used_at.FromDatetime(row["last_used_at"])
    return identity
