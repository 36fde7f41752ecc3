"""The tables of identities, one typed method per named query."""

from datetime import datetime

from services.auth.identities.protocol import Found
from services.auth.store import Row
from services.common.db import Connection, load_queries


class IdentityStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.identities")

    async def add_attempt(
        self, c: Connection, *, state_hash: bytes, provider: str, sealed: bytes, redirect_uri: str, client_state: str,
        code_challenge: str, link_user_id: str, now: datetime, expires_at: datetime,
    ) -> None:  # fmt: skip
        """`link_user_id`: whom the identity is to be linked with; empty: it signs in."""
        await self._q.add_attempt(
            c, state_hash=state_hash, provider=provider, sealed=sealed, redirect_uri=redirect_uri,
            client_state=client_state, code_challenge=code_challenge, link_user_id=link_user_id or None, now=now,
            expires_at=expires_at,
        )  # fmt: skip

    async def find_attempt(self, c: Connection, state_hash: bytes, now: datetime) -> Row | None:
        """One that nobody has come back from."""
        row: Row | None = await self._q.find_attempt(c, state_hash=state_hash, now=now)
        return row

    async def complete_attempt(
        self, c: Connection, state_hash: bytes, code_hash: bytes, found: bytes, now: datetime
    ) -> bool:
        """False when it was completed meanwhile."""
        done = await self._q.complete_attempt(c, state_hash=state_hash, code_hash=code_hash, found=found, now=now)
        return done is not None

    async def end_attempt(self, c: Connection, state_hash: bytes) -> None:
        await self._q.end_attempt(c, state_hash=state_hash)

    async def find_completed(self, c: Connection, code_hash: bytes, now: datetime) -> Row | None:
        row: Row | None = await self._q.find_completed(c, code_hash=code_hash, now=now)
        return row

    async def take_completed(self, c: Connection, code_hash: bytes, now: datetime) -> bool:
        """Uses the code up; False when it was."""
        return await self._q.take_completed(c, code_hash=code_hash, now=now) is not None

    async def find_identity(self, c: Connection, found: Found) -> Row | None:
        """(id, user_id)"""
        row: Row | None = await self._q.find_identity(c, issuer=found.issuer, subject=found.subject)
        return row

    async def add_identity(
        self, c: Connection, identity_id: str, user_id: str, provider: str, found: Found, now: datetime
    ) -> Row | None:
        """None when it is linked, with whomever."""
        row: Row | None = await self._q.add_identity(
            c, id=identity_id, user_id=user_id, provider=provider, issuer=found.issuer, subject=found.subject,
            email=found.email, now=now,
        )  # fmt: skip
        return row

    async def use_identity(self, c: Connection, identity_id: str, email: str, now: datetime) -> None:
        await self._q.use_identity(c, identity_id=identity_id, email=email, now=now)

    async def list_identities(self, c: Connection, user_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_identities(c, user_id=user_id, before=before, most=most)]

    async def delete_identity(self, c: Connection, identity_id: str, user_id: str) -> Row | None:
        row: Row | None = await self._q.delete_identity(c, identity_id=identity_id, user_id=user_id)
        return row
