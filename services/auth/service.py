"""Sign-up, sign-in, profile and API keys."""

import hashlib
import secrets
from datetime import datetime, timedelta

import asyncpg
from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth import keys, passwords
from services.auth.organisations.roles import is_person
from services.auth.organisations.service import RESERVED
from services.auth.store import Row, Store
from services.auth.tokens import Signer
from services.common import audit, etags, ids, outbox, pages
from services.common.db import Connection
from services.common.errors import (
    AlreadyExists,
    CredentialInvalid,
    EtagMismatch,
    InvalidFields,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Violation,
)
from services.common.events import broadcast
from services.common.rpc.context import Context, caller
from services.common.rpc.principals import FORGET_SUBJECT
from services.common.service import Deps

REFRESH_LIFETIME = timedelta(days=30)
_FREE_FAILURES = 5  # wrong passwords before an account is locked, for twice as long each time, at most an hour
_WRONG = "the email or the password is wrong"


class SignInFailed(Unauthenticated, reason="SIGN_IN_FAILED"):
    """Wrong email or password; which of them is not said."""


class AccountTaken(AlreadyExists, reason="ACCOUNT_TAKEN"):
    """The email or the username has an account; the violation names the field."""


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Serves `mercat.auth.v1.AuthService`."""

    def __init__(self, deps: Deps, store: Store, signer: Signer) -> None:
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._signer = signer

    async def ensure_admin(self, email: str, password: str) -> None:
        """Makes the first administrator when there is none of this email."""
        async with self._database.connection() as connection:
            known = await self._store.find_user(connection, email)
        if known is None and password:
            try:
                await self._add_user(email, "admin", password, auth_pb2.ROLE_ADMIN, "Administrator")
            except AccountTaken:  # another process was first
                return

    async def _add_user(self, email: str, username: str, password: str, role: int, display_name: str) -> str:
        user_id, org_id = ids.new("usr"), ids.new("org")
        audit.about("user", user_id)
        audit.by(user_id, org_id)
        password_hash = await passwords.hash_password(password)
        try:
            async with self._database.transaction() as connection:
                await self._store.add_user(
                    connection, user_id=user_id, org_id=org_id, email=email, username=username,
                    password_hash=password_hash, role=role, display_name=display_name, now=self._clock.now(),
                )  # fmt: skip
                event = event_pb2.UserSignedUp(user_id=user_id, org_id=org_id, email=email)
                await outbox.add(connection, event)
        except asyncpg.UniqueViolationError as e:
            field = "email" if e.constraint_name == "users_email" else "username"
            problem = Violation(field, "has an account already; sign in, or choose another")
            raise AccountTaken(f"this {field} is taken", violations=[problem]) from None
        return user_id

    async def SignUp(self, request: auth_pb2.SignUpRequest, context: Context) -> auth_pb2.SignUpResponse:
        role = request.role or auth_pb2.ROLE_CONSUMER
        if role not in (auth_pb2.ROLE_CONSUMER, auth_pb2.ROLE_PUBLISHER):
            raise InvalidFields(violations=[Violation("role", "must be ROLE_CONSUMER or ROLE_PUBLISHER")])
        if request.username in RESERVED:
            raise InvalidFields(violations=[Violation("username", "is reserved; choose another")])
        user_id = await self._add_user(request.email, request.username, request.password, role, request.display_name)
        async with self._database.transaction() as connection:
            user = await self._store.get_user(connection, user_id)
            session = await self._new_session(connection, user_id, "", ids.new("ses"))
        assert user is not None
        return auth_pb2.SignUpResponse(profile=_profile(user), session=session)

    async def SignIn(self, request: auth_pb2.SignInRequest, context: Context) -> auth_pb2.SignInResponse:
        async with self._database.connection() as connection:
            user = await self._store.find_user(connection, request.email)
        now = self._clock.now()
        if user is not None:
            _unlocked(user["locked_until"], now)
        right = await passwords.verify_password(user["password_hash"] if user else None, request.password)
        if user is None:
            raise SignInFailed(_WRONG)
        # The lock is looked at again: of many attempts made at once only the free ones are told anything.
        now = self._clock.now()
        if not right:
            async with self._database.connection() as connection:
                locked = await self._store.fail_sign_in(connection, user["id"], now, _FREE_FAILURES)
            _unlocked(locked, now)
            raise SignInFailed(_WRONG)
        audit.about("user", user["id"])
        audit.by(user["id"], user["org_id"])
        async with self._database.transaction() as connection:
            _unlocked(await self._store.pass_sign_in(connection, user["id"], now), now)
            await self._store.forget_refresh_tokens(connection, now)
            session = await self._new_session(connection, user["id"], "", ids.new("ses"))
        return auth_pb2.SignInResponse(profile=_profile(user), session=session)

    async def _new_session(self, connection: Connection, user_id: str, org_id: str, family: str) -> auth_pb2.Session:
        refresh, refresh_expires = "mr_" + secrets.token_urlsafe(32), self._clock.now() + REFRESH_LIFETIME
        await self._store.add_refresh_token(connection, _hash(refresh), family, user_id, org_id, refresh_expires)
        access, access_expires = self._signer.sign(user_id, org_id)
        session = auth_pb2.Session(access_token=access, refresh_token=refresh)
        session.access_expires_at.FromDatetime(access_expires)
        session.refresh_expires_at.FromDatetime(refresh_expires)
        return session

    async def RefreshSession(
        self, request: auth_pb2.RefreshSessionRequest, context: Context
    ) -> auth_pb2.RefreshSessionResponse:
        token_hash = _hash(request.refresh_token)
        async with self._database.transaction() as connection:
            used = await self._store.use_refresh_token(connection, token_hash, self._clock.now())
            if used is not None:
                family, user_id, org_id = used
                org_id = await self._organisation(connection, user_id, org_id, request.organisation)
                session = await self._new_session(connection, user_id, org_id, family)
                return auth_pb2.RefreshSessionResponse(session=session)
        # Used before, perhaps by a thief: nobody keeps a session of this family.
        async with self._database.transaction() as connection:
            await self._store.end_family_of(connection, token_hash)
        raise CredentialInvalid("this refresh token is unknown, used or expired; sign in again")

    async def _organisation(self, connection: Connection, user_id: str, org_id: str, handle: str) -> str:
        """The organisation of a renewed session: the one asked for, else the one of before; empty is the personal one.
        Raises NotFound or PermissionDenied, and nothing has happened, when the user is not in it."""
        if handle:
            found = await self._store.find_membership(connection, user_id, handle)
            if found is None:
                raise NotFound(f"you are in no organisation {handle}", reason="ORGANISATION_NOT_FOUND")
            return found
        if org_id and await self._store.get_member_principal(connection, user_id, org_id) is None:
            raise PermissionDenied("you are not in this session's organisation any more", reason="NOT_A_MEMBER")
        return org_id

    async def SignOut(self, request: auth_pb2.SignOutRequest, context: Context) -> auth_pb2.SignOutResponse:
        async with self._database.transaction() as connection:
            await self._store.end_family_of(connection, _hash(request.refresh_token))
        return auth_pb2.SignOutResponse()

    async def GetProfile(self, request: auth_pb2.GetProfileRequest, context: Context) -> auth_pb2.GetProfileResponse:
        return auth_pb2.GetProfileResponse(profile=await self._own_profile())

    async def _own_profile(self) -> auth_pb2.Profile:
        principal = caller()
        if not is_person(principal.user_id):
            return auth_pb2.Profile(
                user_id=principal.user_id, role=principal.role, org_id=principal.org_id, organisation=principal.handle
            )
        async with self._database.connection() as connection:
            user = await self._store.get_user(connection, principal.user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        profile = _profile(user)
        profile.org_id, profile.organisation = principal.org_id, principal.handle
        return profile

    async def UpdateProfile(
        self, request: auth_pb2.UpdateProfileRequest, context: Context
    ) -> auth_pb2.UpdateProfileResponse:
        revision = etags.revision(request.etag, "profile")
        user_id = caller().user_id
        audit.about("user", user_id)
        before = await self._own_profile()
        async with self._database.transaction() as connection:
            changed = await self._store.update_profile(
                connection, user_id, request.display_name, revision, self._clock.now()
            )
            if not changed:
                raise EtagMismatch("the profile was changed meanwhile; read it again")
            audit.changed(auth_pb2.Profile(display_name=before.display_name))
        return auth_pb2.UpdateProfileResponse(profile=await self._own_profile())

    async def CreateApiKey(
        self, request: auth_pb2.CreateApiKeyRequest, context: Context
    ) -> auth_pb2.CreateApiKeyResponse:
        principal, now = caller(), self._clock.now()
        scopes = keys.choose(request.scopes, frozenset(principal.scopes))
        expires = keys.future(request.expires_at, now) if request.HasField("expires_at") else None
        secret = keys.generate(test=request.test)
        key_id = ids.new("key")
        audit.about("api_key", key_id)
        async with self._database.transaction() as connection:
            row = await self._store.add_api_key(
                connection, key_id=key_id, owner_id=principal.user_id, org_id=principal.org_id,
                created_by=principal.user_id, key_hash=keys.digest(secret), prefix=keys.prefix(secret),
                name=request.name, scopes=scopes, test=request.test, expires_at=expires, now=now,
            )  # fmt: skip
            key = keys.message_of(row)
            audit.changed(after=key)
        return auth_pb2.CreateApiKeyResponse(api_key=key, secret=secret)

    async def ListApiKeys(self, request: auth_pb2.ListApiKeysRequest, context: Context) -> auth_pb2.ListApiKeysResponse:
        principal = caller()
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before = str(key[0]) if key else None
        async with self._database.connection() as connection:
            rows = await self._store.list_api_keys(connection, principal.user_id, principal.org_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return auth_pb2.ListApiKeysResponse(api_keys=[keys.message_of(r) for r in rows[:most]], next_page_token=token)

    async def RevokeApiKey(
        self, request: auth_pb2.RevokeApiKeyRequest, context: Context
    ) -> auth_pb2.RevokeApiKeyResponse:
        principal = caller()
        audit.about("api_key", request.key_id)
        async with self._database.transaction() as connection:
            row = await self._store.revoke_api_key(connection, request.key_id, principal.user_id, principal.org_id)
            if row is None:
                raise NotFound("you have no such key; see `mercat keys list`", reason="API_KEY_NOT_FOUND")
            key = keys.message_of(row)
            audit.changed(after=key)
        # Quicker than the few seconds that others trust what they know of the key; those hold without any event.
        changed = event_pb2.PrincipalChanged(org_id=row["org_id"], key_id=row["id"])
        await broadcast(self._events, FORGET_SUBJECT, changed.SerializeToString())
        return auth_pb2.RevokeApiKeyResponse(api_key=key)

    async def GetJwks(self, request: auth_pb2.GetJwksRequest, context: Context) -> auth_pb2.GetJwksResponse:
        return auth_pb2.GetJwksResponse(keys=[self._signer.key.public_jwk()])


def _unlocked(locked_until: datetime | None, now: datetime) -> None:
    """Raises ResourceExhausted, with a retry hint, while an account is locked."""
    if locked_until is not None and locked_until > now:
        raise ResourceExhausted(
            "too many wrong passwords; wait before the next attempt", reason="ACCOUNT_LOCKED",
            retry_after=(locked_until - now).total_seconds(),
        )  # fmt: skip


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _profile(user: Row) -> auth_pb2.Profile:
    profile = auth_pb2.Profile(
        user_id=user["id"], email=user["email"], username=user["username"], role=user["role"],
        is_verified=user["is_verified"], org_id=user["org_id"], organisation=user["username"],
        display_name=user["display_name"], etag=str(user["revision"]),
    )  # fmt: skip
    profile.created_at.FromDatetime(user["created_at"])
    profile.updated_at.FromDatetime(user["updated_at"])
    return profile
