"""The tables of exports and erasures, one typed method per named query."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.common.db import Connection, load_queries

Row = Mapping[str, Any]


class PrivacyStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.privacy")

    async def lock_person(self, c: Connection, user_id: str) -> Row | None:
        """(id, email, username, display_name, role, org_id, handle); None when the account is closed."""
        row: Row | None = await self._q.lock_person(c, user_id=user_id)
        return row

    async def memberships(self, c: Connection, user_id: str) -> list[Row]:
        """(org_id, handle, personal, role, others, other_owners), the organisations locked."""
        return [r async for r in self._q.memberships(c, user_id=user_id)]

    async def count_other_admins(self, c: Connection, user_id: str, role: int) -> int:
        return int(await self._q.count_other_admins(c, user_id=user_id, role=role))

    async def places(self, c: Connection, user_id: str) -> list[tuple[str, str]]:
        """Network addresses and user agents that came together."""
        return [(r["address"], r["user_agent"]) async for r in self._q.places(c, user_id=user_id)]

    async def close_account(self, c: Connection, user_id: str, org_ids: Sequence[str], now: datetime) -> None:
        """Nobody acts as the user, nor as anything of these organisations, from the commit on."""
        await self._q.close_account(c, user_id=user_id, now=now)
        await self._q.end_keys(c, user_id=user_id, org_ids=org_ids)
        await self._q.end_service_accounts(c, org_ids=org_ids, now=now)
        await self._q.end_clients(c, org_ids=org_ids, now=now)

    async def add_request(self, c: Connection, **columns: Any) -> None:
        await self._q.add_request(c, **columns)

    async def get_request(self, c: Connection, request_id: str, kind: int) -> Row | None:
        row: Row | None = await self._q.get_request(c, id=request_id, kind=kind)
        return row

    async def list_requests(self, c: Connection, user_id: str, kind: int) -> list[Row]:
        return [r async for r in self._q.list_requests(c, user_id=user_id, kind=kind)]

    async def add_part(self, c: Connection, request_id: str, service: str, done: bytes) -> None:
        """Nothing when it is there, or nobody waits for it any more."""
        await self._q.add_part(c, request_id=request_id, service=service, done=done)

    async def list_parts(self, c: Connection, request_id: str) -> dict[str, bytes]:
        return {r["service"]: r["done"] async for r in self._q.list_parts(c, request_id=request_id)}

    async def list_complete(self, c: Connection, services: Sequence[str]) -> list[Row]:
        return [r async for r in self._q.list_complete(c, services=services)]

    async def finish_request(self, c: Connection, request_id: str, now: datetime) -> None:
        await self._q.finish_request(c, id=request_id, now=now)

    async def list_expired(self, c: Connection, now: datetime) -> list[str]:
        return [r["id"] async for r in self._q.list_expired(c, now=now)]

    async def delete_request(self, c: Connection, request_id: str) -> None:
        await self._q.delete_request(c, id=request_id)

    async def add_consent(self, c: Connection, **columns: Any) -> None:
        await self._q.add_consent(c, **columns)

    async def list_consents(self, c: Connection, user_id: str) -> dict[int, Row]:
        """By kind how it stands."""
        return {r["kind"]: r async for r in self._q.list_consents(c, user_id=user_id)}

    async def requests(self, c: Connection, org_ids: Sequence[str]) -> set[str]:
        """What is in the logs of organisations was done by these."""
        return {r["request_id"] async for r in self._q.requests(c, org_ids=org_ids)}

    async def erase_traces(
        self, c: Connection, after: str, most: int, user_id: str, org_ids: Sequence[str],
        needles: Sequence[str], places: Sequence[Sequence[str]],
    ) -> str | None:  # fmt: skip
        """Erases details in a page of the audit log, after an entry; the last one of the page, None: there is none."""
        row = await self._q.erase_traces(
            c, after=after, most=most, user_id=user_id, org_ids=org_ids, needles=needles,
            addresses=[p[0] for p in places], agents=[p[1] for p in places],
        )  # fmt: skip
        return row["last"]  # type: ignore[no-any-return]
