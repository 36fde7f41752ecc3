"""Serves `mercat.auth.v1.PasskeyService`."""

import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from mercat.auth.v1 import passkey_pb2, passkey_pb2_grpc

from services.auth.passkeys.ceremonies import Ceremonies, name_of
from services.auth.passkeys.store import PasskeyStore
from services.auth.service import profile_of
from services.auth.signing_in import SigningIn
from services.auth.store import Row, Store
from services.common import audit, ids, pages
from services.common.db import Connection
from services.common.errors import (
    AlreadyExists,
    CredentialInvalid,
    InvalidFields,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from services.common.rpc.context import Context, caller
from services.common.service import Deps

_LIFETIME = timedelta(minutes=5)
_MOST = 50  # of an account


class PasskeyWrong(Unauthenticated, reason="PASSKEY_WRONG"):
    """Not a passkey of an account here, or not one's own, or not used as it should be."""


@dataclass
class PasskeyServicer(passkey_pb2_grpc.PasskeyServiceServicer):
    """Registers, uses and removes passkeys."""

    deps: Deps
    ceremonies: Ceremonies
    store: PasskeyStore
    users: Store
    signing_in: SigningIn

    async def BeginPasskeyRegistration(
        self, request: passkey_pb2.BeginPasskeyRegistrationRequest, context: Context
    ) -> passkey_pb2.BeginPasskeyRegistrationResponse:
        async with self.deps.database.transaction() as connection:
            user = await self._user(connection)
            known = await self.store.list_passkeys(connection, user["id"], "", _MOST)
            if len(known) >= _MOST:
                raise ResourceExhausted(f"an account has {_MOST} passkeys at most", reason="TOO_MANY_PASSKEYS")
            challenge = await self._challenge(connection, user["id"])
        options = self.ceremonies.registration(user, challenge, [row["credential_id"] for row in known])
        return passkey_pb2.BeginPasskeyRegistrationResponse(options=options)

    async def RegisterPasskey(
        self, request: passkey_pb2.RegisterPasskeyRequest, context: Context
    ) -> passkey_pb2.RegisterPasskeyResponse:
        now = self.deps.clock.now()
        challenge, _, _ = self.ceremonies.answered(request.credential, new=True)
        made = self.ceremonies.registered(request.credential, challenge)
        async with self.deps.database.transaction() as connection:
            user = await self._user(connection)
            if not await self.store.take_challenge(connection, challenge, user["id"], now):
                raise _too_late()
            row = await self.store.add_passkey(
                connection, id=ids.new("psk"), user_id=user["id"], credential_id=made.credential_id,
                public_key=made.public_key, sign_count=made.sign_count, synced=made.synced,
                name=request.name or name_of(request.credential), now=now,
            )  # fmt: skip
            if row is None:
                raise AlreadyExists("this passkey is registered already", reason="PASSKEY_EXISTS")
            passkey = _message(row)
            audit.changed(after=passkey)
            await self.signing_in.letters.changed(
                connection, user, f"A passkey, {row['name']}, signs in to your account from now on"
            )
        return passkey_pb2.RegisterPasskeyResponse(passkey=passkey)

    async def BeginPasskeySignIn(
        self, request: passkey_pb2.BeginPasskeySignInRequest, context: Context
    ) -> passkey_pb2.BeginPasskeySignInResponse:
        async with self.deps.database.transaction() as connection:
            challenge = await self._challenge(connection, "")
        return passkey_pb2.BeginPasskeySignInResponse(options=self.ceremonies.sign_in(challenge))

    async def SignInWithPasskey(
        self, request: passkey_pb2.SignInWithPasskeyRequest, context: Context
    ) -> passkey_pb2.SignInWithPasskeyResponse:
        async with self._proved(request.credential) as (connection, user_id):
            user = await self.users.get_user(connection, user_id)
            if user is None:
                raise CredentialInvalid("this account is closed")
            audit.about("user", user["id"])
            audit.by(user["id"], user["org_id"])
            await self.signing_in.requiring.check(connection, user["id"])
            session = await self.signing_in.sessions.open(connection, user["id"], second_factor=True)
        return passkey_pb2.SignInWithPasskeyResponse(profile=profile_of(user), session=session)

    async def ReauthenticateWithPasskey(
        self, request: passkey_pb2.ReauthenticateWithPasskeyRequest, context: Context
    ) -> passkey_pb2.ReauthenticateWithPasskeyResponse:
        own, sessions = caller(), self.signing_in.sessions
        if not own.session_id:
            raise PermissionDenied("an API key is no session; sign in", reason="SESSION_REQUIRED")
        audit.about("session", own.session_id)
        async with self._proved(request.credential, own.user_id) as (connection, _):
            proof = await sessions.prove(connection, own.user_id, own.session_id, own.org_id, second_factor=True)
        return passkey_pb2.ReauthenticateWithPasskeyResponse(session=sessions.access(proof))

    @asynccontextmanager
    async def _proved(self, credential: str, of: str = "") -> AsyncIterator[tuple[Connection, str]]:
        """The transaction in which a passkey was used, and whose it is: `of`, where that is given. Raises PasskeyWrong,
        which counts against the network address; ResourceExhausted, with a retry hint."""
        lockout, now = self.signing_in.lockout, self.deps.clock.now()
        subjects = lockout.addresses()
        await lockout.check(subjects)
        challenge, credential_id, handle = self.ceremonies.answered(credential, new=False)
        async with self.deps.database.connection() as connection:
            row = await self.store.find_passkey(connection, credential_id)
        try:
            if row is None or (of and row["user_id"] != of):
                raise PasskeyWrong("this passkey is not one of an account here; it may have been removed")
            if handle and not hmac.compare_digest(handle, row["user_id"].encode()):
                raise PasskeyWrong("this passkey is of another account")
            used = self.ceremonies.used(credential, challenge, row)
        except InvalidFields as e:
            await lockout.fail(subjects)
            raise PasskeyWrong(e.violations[0].description) from None
        except PasskeyWrong:
            await lockout.fail(subjects)
            raise
        async with self.deps.database.transaction() as connection:
            if not await self.store.take_challenge(connection, challenge, "", now):
                raise _too_late()
            if not await self.store.use_passkey(connection, row["id"], used.sign_count, now, synced=used.synced):
                raise _too_late()
            yield connection, row["user_id"]

    async def ListPasskeys(
        self, request: passkey_pb2.ListPasskeysRequest, context: Context
    ) -> passkey_pb2.ListPasskeysResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self.deps.database.connection() as connection:
            before = str(key[0]) if key else ""
            rows = await self.store.list_passkeys(connection, caller().user_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return passkey_pb2.ListPasskeysResponse(
            passkeys=[_message(r) for r in rows[:most]], next_page_token=token,
            page=f"{self.ceremonies.origin}/oauth/passkeys",
        )  # fmt: skip

    async def DeletePasskey(
        self, request: passkey_pb2.DeletePasskeyRequest, context: Context
    ) -> passkey_pb2.DeletePasskeyResponse:
        async with self.deps.database.transaction() as connection:
            user = await self._user(connection)
            row = await self.store.delete_passkey(connection, request.passkey_id, user["id"])
            if row is None:
                raise NotFound("you have no such passkey; see `mercat passkeys list`", reason="PASSKEY_NOT_FOUND")
            await self.signing_in.check_another_way(connection, user)
            audit.changed(_message(row))
            await self.signing_in.letters.changed(
                connection, user, f"A passkey, {row['name']}, does not sign in to your account any more"
            )
        return passkey_pb2.DeletePasskeyResponse()

    async def _challenge(self, connection: Connection, user_id: str) -> bytes:
        challenge, now = secrets.token_bytes(32), self.deps.clock.now()
        await self.store.add_challenge(connection, challenge, user_id, now, now + _LIFETIME)
        return challenge

    async def _user(self, connection: Connection) -> Row:
        user = await self.signing_in.store.lock_user(connection, caller().user_id)
        if user is None:
            raise CredentialInvalid("this account is closed")
        audit.about("user", user["id"])
        return user


def _too_late() -> PasskeyWrong:
    return PasskeyWrong("this was answered already, or too late; begin anew")


def _message(row: Row) -> passkey_pb2.Passkey:
    passkey = passkey_pb2.Passkey(passkey_id=row["id"], name=row["name"], synced=row["synced"])
    passkey.created_at.FromDatetime(row["created_at"])
    if row["last_used_at"] is not None:
        passkey.last_used_at.FromDatetime(row["last_used_at"])
    return passkey
