"""The tables of gates and accesses, one typed method per named query."""

from datetime import datetime

from services.common.db import Connection, load_queries
from services.registry.store import Row


class AccessStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.registry.access")

    async def get_gate(self, c: Connection, model_id: str) -> Row | None:
        """With its terms, which stay as they are until the transaction ends."""
        row: Row | None = await self._q.get_gate(c, model_id=model_id)
        return row

    async def put_gate(
        self,
        c: Connection,
        model_id: str,
        approval: int,
        *,
        digest: str,
        version: str,
        url: str,
        text: str,
        now: datetime,
    ) -> None:
        """An empty digest: without terms."""
        if digest:
            await self._q.add_terms(c, model_id=model_id, digest=digest, version=version, url=url, text=text, now=now)
        await self._q.put_gate(c, model_id=model_id, approval=approval, digest=digest)

    async def add_access(
        self, c: Connection, access_id: str, model_id: str, org_id: str, organisation: str, now: datetime
    ) -> bool:
        """As REQUESTED. False when there is one already."""
        made = await self._q.add_access(
            c, id=access_id, model_id=model_id, org_id=org_id, organisation=organisation, now=now
        )
        return made is not None

    async def lock_access(self, c: Connection, model_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.lock_access(c, model_id=model_id, org_id=org_id)
        return row

    async def find_access(self, c: Connection, model_id: str, organisation: str) -> str | None:
        """The id of the organisation of this handle, where it has asked."""
        org_id: str | None = await self._q.find_access(c, model_id=model_id, organisation=organisation)
        return org_id

    async def ask_access(
        self, c: Connection, access_id: str, state: int, message: str, user_id: str, now: datetime
    ) -> None:
        await self._q.ask_access(c, id=access_id, state=state, message=message, user_id=user_id, now=now)

    async def decide_access(self, c: Connection, access_id: str, state: int, reason: str, now: datetime) -> None:
        await self._q.decide_access(c, id=access_id, state=state, reason=reason, now=now)

    async def accept_terms(
        self, c: Connection, model_id: str, org_id: str, user_id: str, digest: str, now: datetime
    ) -> None:
        """Accepted again they stay as they were accepted first."""
        await self._q.accept_terms(c, model_id=model_id, org_id=org_id, user_id=user_id, digest=digest, now=now)

    async def count_granted(self, c: Connection, model_id: str) -> int:
        return int(await self._q.count_granted(c, model_id=model_id))

    async def list_accesses(
        self, c: Connection, *, model_id: str = "", org_id: str = "", viewer: str, state: int = 0, before: str = "",
        most: int,
    ) -> list[Row]:  # fmt: skip
        """Of a model, an organisation or both, with what was accepted; of models that `viewer` may know of."""
        found = self._q.list_accesses(
            c, model_id=model_id, org_id=org_id, viewer=viewer, state=state, before=before, most=most
        )
        return [r async for r in found]

    async def list_granted(self, c: Connection, model_id: str) -> list[str]:
        """Ids of the organisations that may call a gated model beside its own."""
        return [r["org_id"] async for r in self._q.list_granted(c, model_id=model_id)]
