"""A session from its sign-in to its end: an access token of minutes, and a refresh token that works once."""

import hashlib
import ipaddress
import json
import secrets
from dataclasses import replace
from datetime import datetime, timedelta

from mercat.auth.v1 import auth_pb2
from mercat.event.v1 import event_pb2

from services.auth.sessions.store import SessionStore
from services.auth.sso.requiring import check_session
from services.auth.store import Row, Store
from services.auth.tokens import Proof, Signer
from services.common import audit, ids
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import CredentialInvalid, NotFound, PermissionDenied
from services.common.events import Events, broadcast
from services.common.rpc.context import current
from services.common.rpc.principals import FORGET_SUBJECT, Principals

REFRESH_LIFETIME = timedelta(days=30)
_ENDED = "this refresh token is unknown, used or expired; sign in again"


class Sessions:
    """Opens, renews, proves and ends sessions."""

    def __init__(
        self,
        database: Database,
        store: SessionStore,
        members: Store,
        signer: Signer,
        principals: Principals,
        events: Events,
        clock: Clock,
    ) -> None:
        self._database = database
        self._store = store
        self._members = members
        self._signer = signer
        self._principals = principals
        self._events = events
        self._clock = clock

    async def open(
        self, connection: Connection, user_id: str, *, second_factor: bool = False, at: datetime | None = None,
        client_id: str = "", scopes: frozenset[str] | None = None, via: str = "",
    ) -> auth_pb2.Session:  # fmt: skip
        """A new session of the caller's device; forgets those that have run out. `at`: when its owner proved who they
        are, otherwise now. For an OAuth client, and held to scopes, where they are given. `via`: the organisation
        by whose provider they came."""
        now, session_id = self._clock.now(), ids.new("ses")
        await self._store.forget_sessions(connection, now)
        proof = Proof(user_id, session_id, at or now, second_factor, "", scopes, client_id)
        await self._store.add_session(
            connection, proof, now=now, expires_at=now + REFRESH_LIFETIME, ip_address=_address(),
            user_agent=current().user_agent, via=via,
        )  # fmt: skip
        return await self._with_refresh_token(connection, self.access(proof), proof)

    def access(self, proof: Proof) -> auth_pb2.Session:
        """An access token alone."""
        token, expires = self._signer.sign(proof)
        session = auth_pb2.Session(access_token=token)
        session.access_expires_at.FromDatetime(expires)
        return session

    async def _with_refresh_token(
        self, connection: Connection, session: auth_pb2.Session, proof: Proof
    ) -> auth_pb2.Session:
        token, expires = "mr_" + secrets.token_urlsafe(32), self._clock.now() + REFRESH_LIFETIME
        await self._store.add_refresh_token(
            connection, _hash(token), proof.session_id, proof.user_id, proof.org_id, expires
        )
        session.refresh_token = token
        session.refresh_expires_at.FromDatetime(expires)
        return session

    async def refresh(
        self, token: str, organisation: str = "", narrowed: frozenset[str] | None = None
    ) -> auth_pb2.Session:
        """Trades a refresh token for new tokens, of the organisation whose handle is given, else of the one of before.
        `narrowed`: scopes among those of the session that the access token is held to; None: all of them.

        Raises:
            CredentialInvalid: it is unknown, used or expired. One that is used a second time ends its session, since
                one of the two who have it is a thief.
            NotFound, PermissionDenied: the user is not in the organisation; the token is as good as before.
            SsoRequired: the organisation does not let a session in that was opened as this one; so is the token.
        """
        now = self._clock.now()
        async with self._database.transaction() as connection:
            used = await self._store.use_refresh_token(connection, _hash(token), now)
            if used is not None:
                call, session_id = current(), used["session_id"]
                row = await self._store.use_session(
                    connection, session_id, now, now + REFRESH_LIFETIME, _address(), call.user_agent
                )
                if row is None:
                    raise CredentialInvalid(_ENDED)
                user_id = row["user_id"]
                org_id = await self._organisation(connection, user_id, used["org_id"] or "", organisation, row["via"])
                proof = _proof(row, user_id, session_id, org_id)
                access = self.access(proof if narrowed is None else replace(proof, scopes=narrowed))
                return await self._with_refresh_token(connection, access, proof)
        async with self._database.transaction() as connection:
            found = await self._store.find_session_of(connection, _hash(token))
            if found is not None and found["used"]:
                call = current()
                call.audited = True  # a sensitive act after all
                audit.about("session", found["session_id"])
                await self._store.end_session(connection, found["session_id"], found["user_id"])
        if found is not None:
            await self.forget(found["user_id"])
        raise CredentialInvalid(_ENDED)

    async def _organisation(self, connection: Connection, user_id: str, org_id: str, handle: str, via: str) -> str:
        """The organisation of a renewed session: the one asked for, else the one of before; empty is the personal one.
        Raises NotFound or PermissionDenied, and nothing has happened, when the user is not in it, and SsoRequired."""
        if handle:
            found = await self._members.find_membership(connection, user_id, handle)
            if found is None:
                raise NotFound(f"you are in no organisation {handle}", reason="ORGANISATION_NOT_FOUND")
            org_id = found
        if org_id:
            member = await self._members.get_member_principal(connection, user_id, org_id)
            if member is None:
                raise PermissionDenied("you are not in this session's organisation any more", reason="NOT_A_MEMBER")
            check_session(member, via)
        return org_id

    async def end(self, connection: Connection, session_id: str, user_id: str) -> None:
        """Ends one, if it has not ended. Call `forget` when it has committed."""
        await self._store.end_session(connection, session_id, user_id)

    async def end_by_token(self, token: str) -> None:
        """Signs out; nothing for a token that is unknown."""
        async with self._database.transaction() as connection:
            found = await self._store.find_session_of(connection, _hash(token))
            if found is not None:
                audit.about("session", found["session_id"])
                await self._store.end_session(connection, found["session_id"], found["user_id"])
        if found is not None:
            await self.forget(found["user_id"])

    async def prove(
        self, connection: Connection, user_id: str, session_id: str, org_id: str, *, second_factor: bool
    ) -> Proof:
        """Notes that a session's owner proved just now who they are; the proof is of an organisation. Raises
        CredentialInvalid when it has ended."""
        now = self._clock.now()
        row = await self._store.prove_session(connection, session_id, user_id, now, second_factor=second_factor)
        if row is None:
            raise CredentialInvalid("this session has ended; sign in again")
        return _proof(row, user_id, session_id, org_id)

    async def end_all(self, connection: Connection, user_id: str, kept: str = "") -> int:
        """Ends a user's sessions but one; how many. Call `forget` when it has committed."""
        return await self._store.end_sessions_of(connection, user_id, kept)

    async def forget(self, user_id: str) -> None:
        """Makes everybody ask anew who a user's credentials belong to, sooner than they would by themselves."""
        changed = event_pb2.PrincipalChanged(user_id=user_id)
        self._principals.forget(changed)  # here before the answer, elsewhere as soon as they hear of it
        await broadcast(self._events, FORGET_SUBJECT, changed.SerializeToString())


def _proof(row: Row, user_id: str, session_id: str, org_id: str) -> Proof:
    scopes = None if row["scopes"] is None else frozenset(json.loads(row["scopes"]))
    return Proof(
        user_id, session_id, row["authenticated_at"], row["second_factor"], org_id, scopes, row["client_id"] or ""
    )


def _address() -> str | None:
    """The caller's, where it is one."""
    try:
        return str(ipaddress.ip_address(current().address))
    except ValueError:
        return None


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
