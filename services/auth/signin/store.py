"""The tables of passwords, mailed codes and failures, one typed method per named query."""

from collections.abc import Sequence
from datetime import datetime

from services.auth.store import Row
from services.common.db import Connection, load_queries


class SignInStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.signin")

    async def list_locks(self, c: Connection, subjects: Sequence[str], now: datetime) -> dict[str, datetime]:
        """Until when subjects are locked; those that are not are left out."""
        rows = self._q.list_locks(c, subjects=list(subjects), now=now)
        return {r["subject"]: r["locked_until"] async for r in rows}

    async def count_failure(
        self, c: Connection, subject: str, free: int, now: datetime, since: datetime
    ) -> datetime | None:
        """Counts a failure; those from the `free`th on lock the subject, for twice as long each time and an hour at
        most. Answers until when it was locked already; such a failure does not count."""
        await self._q.open_failures(c, subject=subject, now=now)
        locked: datetime | None = await self._q.count_failure(c, subject=subject, free=free, now=now, since=since)
        return locked if locked is not None and locked > now else None

    async def forget_failures(self, c: Connection, subject: str, now: datetime) -> datetime | None:
        """Forgets a subject's failures, unless it is locked; answers until when it is."""
        locked: datetime | None = await self._q.forget_failures(c, subject=subject, now=now)
        return locked

    async def end_lock(self, c: Connection, subject: str) -> None:
        await self._q.end_lock(c, subject=subject)

    async def lock_user(self, c: Connection, user_id: str) -> Row | None:
        """A user, whose row nobody else changes until the transaction ends."""
        row: Row | None = await self._q.lock_user(c, user_id=user_id)
        return row

    async def list_codes(self, c: Connection, user_id: str, purpose: str, since: datetime) -> list[datetime]:
        """When codes were sent since, the oldest first."""
        rows = self._q.list_codes(c, user_id=user_id, purpose=purpose, since=since)
        return [r["created_at"] async for r in rows]

    async def add_code(
        self, c: Connection, code_hash: bytes, purpose: str, user_id: str, email: str, now: datetime,
        expires_at: datetime,
    ) -> None:  # fmt: skip
        await self._q.add_code(
            c, code_hash=code_hash, purpose=purpose, user_id=user_id, email=email, now=now, expires_at=expires_at
        )

    async def find_code(self, c: Connection, code_hash: bytes, purpose: str, now: datetime) -> Row | None:
        """Whose a code is that is good now."""
        row: Row | None = await self._q.find_code(c, code_hash=code_hash, purpose=purpose, now=now)
        return row

    async def take_code(self, c: Connection, code_hash: bytes, purpose: str, now: datetime) -> Row | None:
        """Uses up a code that is good now; (user_id, email) that it was sent to."""
        row: Row | None = await self._q.take_code(c, code_hash=code_hash, purpose=purpose, now=now)
        return row

    async def end_codes(self, c: Connection, user_id: str, purpose: str) -> None:
        await self._q.end_codes(c, user_id=user_id, purpose=purpose)

    async def verify_user(self, c: Connection, user_id: str, email: str, now: datetime) -> bool:
        """False when the account has another address by now."""
        return await self._q.verify_user(c, user_id=user_id, email=email, now=now) is not None

    async def set_password(self, c: Connection, user_id: str, password_hash: str, now: datetime) -> None:
        await self._q.set_password(c, user_id=user_id, password_hash=password_hash, now=now)

    async def forget(self, c: Connection, now: datetime, since: datetime) -> None:
        """Codes that have expired, and failures before `since`."""
        await self._q.forget_codes(c, now=now)
        await self._q.forget_old_failures(c, since=since, now=now)

    async def count_other_ways(self, c: Connection, user_id: str) -> int:
        """In which a user signs in, beside a password."""
        return int(await self._q.count_other_ways(c, user_id=user_id))
