"""The tables of single sign-on, one typed method per named query."""

from datetime import datetime
from typing import Any

from services.auth.store import Row
from services.common.db import Connection, load_queries

_NAMED = 20  # people who are named where they would be locked out


class SsoStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.sso")

    async def put_connection(self, c: Connection, **columns: Any) -> Row:
        row: Row = await self._q.put_connection(c, **columns)
        return row

    async def get_connection(self, c: Connection, org_id: str) -> Row | None:
        """With the organisation's handle."""
        row: Row | None = await self._q.get_connection(c, org_id=org_id)
        return row

    async def get_connection_of(self, c: Connection, domain: str) -> Row | None:
        """Of whoever has proved that the domain is theirs."""
        row: Row | None = await self._q.get_connection_of(c, domain=domain)
        return row

    async def delete_connection(self, c: Connection, org_id: str) -> None:
        """And that people sign in by it."""
        await self._q.delete_connection(c, org_id=org_id)
        await self._q.delete_identities(c, org_id=org_id)

    async def only_way_of(self, c: Connection, org_id: str, domain: str = "") -> list[str]:
        """Usernames of people who sign in by the connection and in no other way; the first of them."""
        rows = self._q.only_way_of(c, org_id=org_id, domain=domain, most=_NAMED)
        return [r["username"] async for r in rows]

    async def add_domain(self, c: Connection, org_id: str, domain: str, token: str, now: datetime) -> Row:
        await self._q.add_domain(c, org_id=org_id, domain=domain, token=token, now=now)
        row: Row = await self._q.get_domain(c, org_id=org_id, domain=domain)
        return row

    async def count_domains(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_domains(c, org_id=org_id))

    async def get_domain(self, c: Connection, org_id: str, domain: str) -> Row | None:
        row: Row | None = await self._q.get_domain(c, org_id=org_id, domain=domain)
        return row

    async def list_domains(self, c: Connection, org_id: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_domains(c, org_id=org_id, after=after, most=most)]

    async def verify_domain(self, c: Connection, org_id: str, domain: str, now: datetime) -> Row | None:
        """None when it was removed meanwhile. Raises asyncpg.UniqueViolationError when it is another's."""
        row: Row | None = await self._q.verify_domain(c, org_id=org_id, domain=domain, now=now)
        return row

    async def remove_domain(self, c: Connection, org_id: str, domain: str) -> None:
        await self._q.remove_domain(c, org_id=org_id, domain=domain)

    async def required_of(self, c: Connection, user_id: str) -> Row | None:
        """(org_id, domain) of the connection that a user must sign in by."""
        row: Row | None = await self._q.required_of(c, user_id=user_id)
        return row

    async def required_for(self, c: Connection, domain: str) -> str | None:
        """The organisation whose connection people of a domain must sign in by, from the first time on."""
        org_id: str | None = await self._q.required_for(c, domain=domain)
        return org_id
