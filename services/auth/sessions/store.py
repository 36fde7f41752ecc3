"""The tables of sessions, one typed method per named query."""

import json
from datetime import datetime

from services.auth.store import Row
from services.auth.tokens import Proof
from services.common.db import Connection, load_queries


class SessionStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.sessions")

    async def add_session(
        self, c: Connection, proof: Proof, *, now: datetime, expires_at: datetime, ip_address: str | None,
        user_agent: str, via: str,
    ) -> None:  # fmt: skip
        """`via`: the organisation by whose provider it is opened; empty: by none."""
        await self._q.add_session(
            c, id=proof.session_id, user_id=proof.user_id, now=now, expires_at=expires_at, at=proof.at,
            second_factor=proof.second_factor, ip_address=ip_address, user_agent=user_agent, via=via,
            client_id=proof.client_id or None,
            scopes=None if proof.scopes is None else json.dumps(sorted(proof.scopes)),
        )  # fmt: skip

    async def add_refresh_token(
        self, c: Connection, token_hash: bytes, session_id: str, user_id: str, org_id: str, expires_at: datetime
    ) -> None:
        """For an organisation; empty: the personal one."""
        await self._q.add_refresh_token(
            c, token_hash=token_hash, session_id=session_id, user_id=user_id, org_id=org_id or None,
            expires_at=expires_at,
        )  # fmt: skip

    async def use_refresh_token(self, c: Connection, token_hash: bytes, now: datetime) -> Row | None:
        """The session and the organisation of a token that is good now and is used up by this."""
        row: Row | None = await self._q.use_refresh_token(c, token_hash=token_hash, now=now)
        return row

    async def use_session(
        self, c: Connection, session_id: str, now: datetime, expires_at: datetime, ip_address: str | None,
        user_agent: str,
    ) -> Row | None:  # fmt: skip
        row: Row | None = await self._q.use_session(
            c, session_id=session_id, now=now, expires_at=expires_at, ip_address=ip_address, user_agent=user_agent
        )
        return row

    async def prove_session(
        self, c: Connection, session_id: str, user_id: str, now: datetime, *, second_factor: bool
    ) -> Row | None:
        row: Row | None = await self._q.prove_session(
            c, session_id=session_id, user_id=user_id, now=now, second_factor=second_factor
        )
        return row

    async def get_via(self, c: Connection, session_id: str, user_id: str) -> str | None:
        """The organisation by whose provider a session was opened; empty: by none. None: the session has ended."""
        via: str | None = await self._q.get_via(c, session_id=session_id, user_id=user_id)
        return via

    async def list_sessions(
        self, c: Connection, user_id: str, before: str | None, most: int, now: datetime
    ) -> list[Row]:
        return [r async for r in self._q.list_sessions(c, user_id=user_id, before=before, most=most, now=now)]

    async def find_session_of(self, c: Connection, token_hash: bytes) -> Row | None:
        """The session of a refresh token, and whether the token is used up."""
        row: Row | None = await self._q.find_session_of(c, token_hash=token_hash)
        return row

    async def end_session(self, c: Connection, session_id: str, user_id: str) -> bool:
        """False when the user has no such session."""
        return await self._q.end_session(c, session_id=session_id, user_id=user_id) is not None

    async def end_sessions_of(self, c: Connection, user_id: str, kept: str = "") -> int:
        """Ends all but one, and what they let in that has not come in yet; how many."""
        return int(await self._q.end_sessions_of(c, user_id=user_id, kept=kept))

    async def forget_sessions(self, c: Connection, now: datetime) -> None:
        """Those that have run out."""
        await self._q.forget_sessions(c, now=now)
