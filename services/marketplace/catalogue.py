"""Keeps listings and index as the registry and billing have things: from events, or all of it at once."""

import asyncio
import logging

from google.protobuf.message import Message
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import MercatError, NotFound
from services.common.rpc.channels import InternalChannel
from services.marketplace.index import Index
from services.marketplace.store import Store

log = logging.getLogger(__name__)
_STATISTICS = 60.0  # seconds between takeovers of call counts into the index
_SETTLED = 30.0  # seconds after the start by which a process that this one took over from hears of no change any more
_GATHER = 0.1  # seconds that changes gather before the index is written


class Catalogue:
    """Composes listings and writes them to table and index."""

    def __init__(self, database: Database, store: Store, index: Index, control: InternalChannel, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._registry = registry_pb2_grpc.RegistryServiceStub(control)
        self._billing = billing_pb2_grpc.BillingServiceStub(control)
        self._clock = clock
        self._writing = asyncio.Lock()
        self._dirty: set[str] = set()  # models whose calls were counted since the index took them over
        self._changed: set[str] = set()  # models whose listing the index does not have yet
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Fills the index from the table, at every start: the last process may have died between the two."""
        async with self._writing:
            async with self._database.connection() as connection:
                listings = [listing async for listing in self._store.all_listings(connection)]
            await asyncio.to_thread(self._index.put, listings, clear=True)
            self._index.complete()

    async def apply(self, connection: Connection, event: Message) -> None:
        """Takes over what an event says has changed."""
        if isinstance(event, event_pb2.UsageStored):
            await self._store.count_calls(connection, event.models)
            self._dirty.update(m.model for m in event.models)
            return
        await self._store.begin_change(connection)
        if isinstance(event, event_pb2.ModelMoved):
            await self._store.rename_listing(connection, event.from_model, event.to_model)
            names = [event.from_model, event.to_model]
        else:
            assert isinstance(event, event_pb2.ModelChanged | event_pb2.PriceChanged)
            names = [event.model]
        for name in names:
            listing = await self._compose(name)
            if listing is None:
                await self._store.remove_listing(connection, name)
            else:
                await self._store.put_listing(connection, listing, self._clock.now())
        self._changed.update(names)
        self._wake.set()

    async def _compose(self, model: str) -> marketplace_pb2.Listing | None:
        """None for a model that has no published version, or not this address any more."""
        try:
            found = (await self._registry.GetModel(registry_pb2.GetModelRequest(model=model))).model
            if not found.latest_version or found.model != model:
                return None
            version = await self._registry.GetVersion(
                registry_pb2.GetVersionRequest(model=model, version=found.latest_version)
            )
        except NotFound:
            return None
        price = await self._billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model))
        return marketplace_pb2.Listing(model=found, version=version.version, price=price.price)

    async def address(self, model: str) -> str:
        """Where a model is now that had another address; empty when there is none that others may know of."""
        try:
            return (await self._registry.GetModel(registry_pb2.GetModelRequest(model=model))).model.model
        except NotFound:
            return ""

    async def rebuild(self) -> int:
        """Composes every published model anew, and the index with it; answers how many there are."""
        async with self._database.transaction() as connection:
            await self._store.await_changes(connection)
            listings = await self._published()
            names = {x.model.model for x in listings}
            async for known in self._store.all_listings(connection):
                if known.model.model not in names:
                    await self._store.remove_listing(connection, known.model.model)
            for listing in listings:
                await self._store.put_listing(connection, listing, self._clock.now())
        await self.load()
        return len(listings)

    async def _published(self) -> list[marketplace_pb2.Listing]:
        listings: list[marketplace_pb2.Listing] = []
        token = ""
        while True:
            page = await self._registry.ListModels(registry_pb2.ListModelsRequest(page_size=500, page_token=token))
            listings += [x for m in page.models if (x := await self._compose(m.model)) is not None]
            token = page.next_page_token
            if not token:
                return listings

    async def keep_fresh(self) -> None:
        """Writes changed listings to the index at once, and call counts now and then, for ever."""
        loop = asyncio.get_running_loop()
        counted = loop.time()
        settled: float | None = counted + _SETTLED
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), _STATISTICS if settled is None else _SETTLED)
                await asyncio.sleep(_GATHER)
            except TimeoutError:
                pass
            if settled is not None and loop.time() >= settled:
                try:
                    await self.load()
                    settled = None
                except MercatError as e:
                    log.warning("the search index waits: %s", e)
            self._wake.clear()
            names, self._changed = self._changed, set()
            if loop.time() - counted >= _STATISTICS:
                names, self._dirty, counted = names | self._dirty, set(), loop.time()
            try:
                await self._write(names)
            except MercatError as e:
                log.warning("the search index waits: %s", e)
                self._changed |= names
                self._wake.set()
                await asyncio.sleep(1)

    async def _write(self, names: set[str]) -> None:
        if not names:
            return
        async with self._writing:
            async with self._database.transaction() as connection:
                await self._store.await_changes(connection)
                listings = await self._store.get_listings(connection, sorted(names))
            await asyncio.to_thread(self._index.put, list(listings.values()), gone=names - listings.keys())
