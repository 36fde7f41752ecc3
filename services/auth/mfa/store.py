"""The tables of second factors, one typed method per named query."""

from collections.abc import Sequence
from datetime import datetime

from services.auth.store import Row
from services.common.db import Connection, load_queries


class FactorStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.mfa")

    async def get_totp(self, c: Connection, user_id: str) -> Row | None:
        row: Row | None = await self._q.get_totp(c, user_id=user_id)
        return row

    async def enroll_totp(self, c: Connection, user_id: str, sealed_secret: bytes, now: datetime) -> bool:
        """False when there is a confirmed one."""
        return await self._q.enroll_totp(c, user_id=user_id, sealed_secret=sealed_secret, now=now) is not None

    async def use_step(self, c: Connection, user_id: str, sealed_secret: bytes, step: int) -> bool:
        """False when the step, or a later one, was used before."""
        return await self._q.use_step(c, user_id=user_id, sealed_secret=sealed_secret, step=step) is not None

    async def confirm_totp(self, c: Connection, user_id: str, sealed_secret: bytes, step: int, now: datetime) -> bool:
        """False when it was confirmed or made anew meanwhile."""
        found = await self._q.confirm_totp(c, user_id=user_id, sealed_secret=sealed_secret, step=step, now=now)
        return found is not None

    async def end_totp(self, c: Connection, user_id: str) -> bool:
        """False when there is none."""
        return await self._q.end_totp(c, user_id=user_id) is not None

    async def lock_totp(self, c: Connection, user_id: str) -> bool:
        """False when there is none; else nobody changes it until the transaction ends."""
        return await self._q.lock_totp(c, user_id=user_id) is not None

    async def replace_recovery_codes(self, c: Connection, user_id: str, code_hashes: Sequence[bytes]) -> None:
        await self._q.end_recovery_codes(c, user_id=user_id)
        await self._q.add_recovery_codes(c, user_id=user_id, code_hashes=list(code_hashes))

    async def use_recovery_code(self, c: Connection, user_id: str, code_hash: bytes) -> bool:
        """False when there is no such code left."""
        return await self._q.use_recovery_code(c, user_id=user_id, code_hash=code_hash) is not None

    async def count_recovery_codes(self, c: Connection, user_id: str) -> int:
        return int(await self._q.count_recovery_codes(c, user_id=user_id))
