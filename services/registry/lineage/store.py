"""The table of lineage, one typed method per named query."""

from collections.abc import Sequence

from services.common.db import Connection, load_queries
from services.registry.store import Row

BASE, DATASET = 1, 2  # kinds of edges


class LineageStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.registry.lineage")

    async def forget_lineage(self, c: Connection, model_id: str) -> None:
        """What the card of a model itself said."""
        await self._q.forget_lineage(c, model_id=model_id)

    async def add_lineage(
        self, c: Connection, model_id: str, version: str, edges: Sequence[tuple[int, str, str]]
    ) -> None:
        """`edges`: kind, name, and the id of a base model that is one of Mercat's."""
        if edges:
            kinds, names, bases = zip(*edges, strict=True)
            await self._q.add_lineage(c, model_id=model_id, version=version, kinds=kinds, names=names, bases=bases)

    async def made_from(
        self, c: Connection, model_ids: Sequence[str], org_id: str, *, everything: bool, most: int
    ) -> list[Row]:
        """Edges up, as an organisation may see them."""
        found = self._q.made_from(c, model_ids=list(model_ids), org_id=org_id, everything=everything, most=most)
        return [r async for r in found]

    async def made_of(
        self, c: Connection, model_ids: Sequence[str], org_id: str, *, everything: bool, most: int
    ) -> list[Row]:
        """Edges down."""
        found = self._q.made_of(c, model_ids=list(model_ids), org_id=org_id, everything=everything, most=most)
        return [r async for r in found]
