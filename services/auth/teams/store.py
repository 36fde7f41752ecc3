"""The tables of teams, one typed method per named query."""

from datetime import datetime

from services.auth.store import Row
from services.common.db import Connection, load_queries
from services.common.errors import NotFound


class TeamNotFound(NotFound, reason="TEAM_NOT_FOUND"): ...


class TeamStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.teams")

    async def count_teams(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_teams(c, org_id=org_id))

    async def add_team(self, c: Connection, *, team_id: str, org_id: str, name: str, role: str, now: datetime) -> None:
        """Raises asyncpg.UniqueViolationError when the name is taken."""
        await self._q.add_team(c, id=team_id, org_id=org_id, name=name, role=role, now=now)

    async def get_team(self, c: Connection, team_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_team(c, team_id=team_id, org_id=org_id)
        return row

    async def list_teams(self, c: Connection, org_id: str, user_id: str, after: str, most: int) -> list[Row]:
        """`user_id`: whose teams; empty: all."""
        return [r async for r in self._q.list_teams(c, org_id=org_id, user_id=user_id, after=after, most=most)]

    async def update_team(self, c: Connection, team_id: str, name: str, role: str) -> None:
        """Raises asyncpg.UniqueViolationError when the name is taken."""
        await self._q.update_team(c, team_id=team_id, name=name, role=role)

    async def delete_team(self, c: Connection, team_id: str) -> None:
        await self._q.delete_team(c, team_id=team_id)

    async def list_team_members(self, c: Connection, team_id: str, org_id: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_team_members(c, team_id=team_id, org_id=org_id, after=after, most=most)]

    async def add_team_member(self, c: Connection, team_id: str, org_id: str, user_id: str, now: datetime) -> None:
        await self._q.add_team_member(c, team_id=team_id, org_id=org_id, user_id=user_id, now=now)

    async def remove_team_member(self, c: Connection, team_id: str, user_id: str) -> bool:
        """False when they are not in it."""
        return await self._q.remove_team_member(c, team_id=team_id, user_id=user_id) is not None
