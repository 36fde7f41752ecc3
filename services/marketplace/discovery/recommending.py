"""What goes with what: by the accounts that call both, and by what descriptions mean."""

import asyncio
import logging

from mercat.marketplace.v1 import discovery_pb2, marketplace_pb2

from services.common.db import Database
from services.marketplace.discovery.calling import Calling
from services.marketplace.discovery.store import DiscoveryStore
from services.marketplace.discovery.together import together
from services.marketplace.index import Index
from services.marketplace.meaning import Meaning, MeaningAbsent
from services.marketplace.questions import Wanted
from services.marketplace.ranking import fuse

log = logging.getLogger(__name__)
TOGETHER = discovery_pb2.RECOMMENDATION_REASON_CALLED_TOGETHER
SIMILAR = discovery_pb2.RECOMMENDATION_REASON_SIMILAR
POPULAR = discovery_pb2.RECOMMENDATION_REASON_POPULAR
Reason = tuple["discovery_pb2.RecommendationReason.ValueType", str]  # and of which model
MOST = 100  # recommendations that pages can reach
_SEEDS, _ALIKE = 10, 20  # models of an account whose likes are looked for, and how many of each


class Recommender:
    """Answers names of published models, each with its reason."""

    def __init__(
        self, database: Database, store: DiscoveryStore, index: Index, meaning: Meaning, calling: Calling, every: float
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._index = index
        self._meaning = meaning
        self._calling = calling
        self._every = every

    async def keep(self) -> None:
        """Makes anew what is called together, for ever."""
        while True:
            try:
                await self.refresh()
            except Exception as e:  # what was is good enough until the next time
                log.warning("what is called together waits: %s", e)
            await asyncio.sleep(self._every)

    async def refresh(self) -> None:
        """Without the calls of those who want no part in it."""
        async with self._database.connection() as connection:
            out = await self._store.opted_out(connection)
        called = [caller.models for caller in await self._calling.all() if caller.org_id not in out]
        pairs = await asyncio.to_thread(together, called)
        async with self._database.transaction() as connection:
            await self._store.put_together(connection, pairs)

    async def related(self, model: str) -> dict[str, Reason]:
        """To one model, the best first."""
        return await self._like([model], set())

    async def personal(self, org_id: str) -> dict[str, Reason]:
        """For an organisation, by what it called and made favourites; empty when it wants none, or did neither."""
        async with self._database.connection() as connection:
            if await self._store.get_preferences(connection, org_id):
                return {}
            rows = await self._store.list_favourites(connection, org_id, 2**62, _SEEDS)
        called = await self._calling.models(org_id)
        seeds = list(dict.fromkeys([*(r["model"] for r in rows), *called]))
        return await self._like(seeds, set(called)) if seeds else {}

    async def popular(self) -> dict[str, Reason]:
        """For who is not known."""
        wanted = Wanted(sort=marketplace_pb2.SORT_ORDER_POPULARITY)
        names, _ = await asyncio.to_thread(self._index.search, wanted, 0, MOST)
        return dict.fromkeys(names, (POPULAR, ""))

    async def _like(self, seeds: list[str], known: set[str]) -> dict[str, Reason]:
        """What goes with any of the seeds and is not known."""
        known = known | set(seeds)
        async with self._database.connection() as connection:
            pairs = await self._store.list_together(connection, seeds, MOST)
        reasons: dict[str, Reason] = {}
        lists = [list(dict.fromkeys(other for _, other in pairs if other not in known))]
        for seed, other in pairs:
            reasons.setdefault(other, (TOGETHER, seed))
        for seed in seeds[:_SEEDS]:
            try:
                near = await self._meaning.similar(seed, _ALIKE)
            except MeaningAbsent:
                continue
            lists.append([name for name in near if name not in known])
            for name in near:
                reasons.setdefault(name, (SIMILAR, seed))
        return {name: reasons[name] for name in fuse(*lists)[:MOST]}
