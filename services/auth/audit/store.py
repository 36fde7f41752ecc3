"""The tables of the audit log, one typed method per named query."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mercat.auth.v1 import audit_pb2

from services.common.audit_chain import entry_of
from services.common.db import Connection, load_queries, rows_affected

Row = Mapping[str, Any]


class AuditStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.audit")

    async def add_entry(self, c: Connection, **columns: Any) -> Row | None:
        """The row; None when it was there already."""
        row: Row | None = await self._q.add_entry(c, **columns)
        return row

    async def is_closed(self, c: Connection, user_id: str) -> bool:
        """Whether it is an account that was closed, of which no more is said than must be."""
        return bool(user_id) and bool(await self._q.is_closed(c, user_id=user_id))

    async def strip_entry(self, c: Connection, audit_id: str) -> None:
        """Marks an entry without details as erased."""
        await self._q.strip_entry(c, id=audit_id)

    async def lock_chain(self, c: Connection, chain: str) -> tuple[int, bytes]:
        """The last entry's place and hash; nobody else adds one until the transaction ends."""
        row = await self._q.lock_chain(c, chain=chain)
        return row["sequence"], bytes(row["hash"])

    async def link_entry(self, c: Connection, entry: audit_pb2.AuditEntry) -> None:
        """Puts an entry at the end of its chain, which is locked."""
        await self._q.link_entry(
            c, id=entry.audit_id, chain=entry.chain, sequence=entry.sequence, salt=entry.salt,
            details_hash=entry.details_hash, previous_hash=entry.previous_hash, hash=entry.hash,
        )  # fmt: skip
        await self._q.move_chain(c, chain=entry.chain, sequence=entry.sequence, hash=entry.hash)

    async def loose_entries(self, c: Connection, most: int) -> list[Row]:
        """Rows that are in no chain, oldest first, locked; those that somebody else has locked are left out."""
        return [r async for r in self._q.loose_entries(c, most=most)]

    async def list_entries(
        self, c: Connection, chain: str, filters: Mapping[str, Any], beyond: int, most: int, *, oldest_first: bool
    ) -> list[audit_pb2.AuditEntry]:
        """Those beyond an entry's place, which is 0 for all."""
        query = self._q.oldest_entries if oldest_first else self._q.newest_entries
        return [entry_of(r) async for r in query(c, chain=chain, beyond=beyond, most=most, **filters)]

    async def platform_entries(
        self, c: Connection, chain: str, filters: Mapping[str, Any], before: str, most: int
    ) -> list[audit_pb2.AuditEntry]:
        rows = self._q.platform_entries(c, chain=chain, before=before, most=most, **filters)
        return [entry_of(r) async for r in rows]

    async def unsigned_chains(self, c: Connection) -> list[str]:
        return [r["chain"] async for r in self._q.unsigned_chains(c)]

    async def entries_from(self, c: Connection, chain: str, sequence: int, most: int) -> list[audit_pb2.AuditEntry]:
        return [entry_of(r) async for r in self._q.entries_from(c, chain=chain, sequence=sequence, most=most)]

    async def mark_signed(self, c: Connection, chain: str, sequence: int) -> None:
        await self._q.mark_signed(c, chain=chain, sequence=sequence)

    async def erase_details(self, c: Connection, before: datetime, most: int) -> int:
        """Of how many entries."""
        return rows_affected(await self._q.erase_details(c, before=before, most=most))

    async def old_entries(self, c: Connection, before: datetime) -> dict[str, int]:
        """By chain the place of the last entry that is older."""
        return {r["chain"]: r["sequence"] async for r in self._q.old_entries(c, before=before)}

    async def drop_entries(self, c: Connection, chain: str, sequence: int) -> None:
        await self._q.drop_entries(c, chain=chain, sequence=sequence)
