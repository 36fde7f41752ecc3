"""What goes with what: by the accounts that call both, and by what descriptions mean."""

import asyncio
import logging
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.marketplace.v1 import discovery_pb2, marketplace_pb2
from mercat.usage.v1 import callers_pb2, callers_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.rpc.channels import InternalChannel
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
_LOOKED_AT = timedelta(days=90)  # of calls
_SEEDS, _ALIKE = 10, 20  # models of an account whose likes are looked for, and how many of each


class Recommender:
    """Answers names of published models, each with its reason."""

    def __init__(
        self, database: Database, store: DiscoveryStore, index: Index, meaning: Meaning, control: InternalChannel,
        clock: Clock, every: float,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._index = index
        self._meaning = meaning
        self._callers = callers_pb2_grpc.CallerServiceStub(control)
        self._clock = clock
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
        called = [caller.models for caller in await self._called() if caller.org_id not in out]
        pairs = await asyncio.to_thread(together, called)
        async with self._database.transaction() as connection:
            await self._store.put_together(connection, pairs)

    async def _called(self, org_id: str = "") -> list[callers_pb2.Caller]:
        start = Timestamp()
        start.FromDatetime(self._clock.now() - _LOOKED_AT)
        request = callers_pb2.ListCallersRequest(start_time=start, org_id=org_id)
        return [caller async for page in self._callers.ListCallers(request) for caller in page.callers]

    async def related(self, model: str) -> dict[str, Reason]:
        """To one model, the best first."""
        return await self._like([model], set())

    async def personal(self, org_id: str) -> dict[str, Reason]:
        """For an organisation, by what it called and made favourites; empty when it wants none, or did neither."""
        async with self._database.connection() as connection:
            if await self._store.get_preferences(connection, org_id):
                return {}
            rows = await self._store.list_favourites(connection, org_id, 2**62, _SEEDS)
        called = [m for caller in await self._called(org_id) for m in caller.models]
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
