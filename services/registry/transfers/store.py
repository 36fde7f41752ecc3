"""The tables of transfers and addresses, one typed method per named query."""

from datetime import datetime

from services.common.db import Connection, load_queries
from services.common.names import skeleton
from services.registry.store import Row


class TransferStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.registry.transfers")

    async def add_transfer(
        self, c: Connection, *, transfer_id: str, model: Row, to_org_id: str, organisation: str, user_id: str,
        now: datetime, expires_at: datetime,
    ) -> Row:  # fmt: skip
        """In place of the open one of a model, which is locked."""
        await self._q.end_transfers(c, model_id=model["id"], now=now)
        row: Row = await self._q.add_transfer(
            c, id=transfer_id, model_id=model["id"], from_org_id=model["org_id"], to_org_id=to_org_id,
            organisation=organisation, user_id=user_id, now=now, expires_at=expires_at,
        )  # fmt: skip
        return row

    async def list_transfers(self, c: Connection, org_id: str, before: str, now: datetime, most: int) -> list[Row]:
        """With the models' publisher and name; open ones from and to an organisation."""
        return [r async for r in self._q.list_transfers(c, org_id=org_id, before=before, now=now, most=most)]

    async def get_transfer(self, c: Connection, transfer_id: str, now: datetime) -> Row | None:
        """An open one, with the model's publisher and name."""
        row: Row | None = await self._q.get_transfer(c, transfer_id=transfer_id, now=now)
        return row

    async def end_transfer(self, c: Connection, transfer_id: str, now: datetime) -> bool:
        """False when it was ended meanwhile."""
        return await self._q.end_transfer(c, transfer_id=transfer_id, now=now) is not None

    async def digests_of(self, c: Connection, model_id: str) -> list[str]:
        """Of the artifacts of a model's versions, whatever they are there for."""
        return [r["digest"] async for r in self._q.digests_of(c, model_id=model_id)]

    async def move(self, c: Connection, model: Row, org_id: str, publisher: str, name: str, now: datetime) -> None:
        """Gives a model, which is locked, another owner and address; the one before leads to it. Raises
        asyncpg.UniqueViolationError when the new owner has a model of this name, or one that looks like it."""
        await self._q.end_transfers(c, model_id=model["id"], now=now)
        await self._q.move_model(
            c, id=model["id"], org_id=org_id, publisher=publisher, name=name, skeleton=skeleton(name)
        )
        await self._q.add_address(c, publisher=model["publisher"], name=model["name"], model_id=model["id"], now=now)
