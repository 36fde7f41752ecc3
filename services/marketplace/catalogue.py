"""Keeps listings and index as the registry and billing have things: from events, or all of it at once.

One process hears of an event and writes the listing; every process follows the table with an index of its own."""

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
from services.marketplace.meaning import Meaning, digest_of
from services.marketplace.store import EVERYTHING, Store

log = logging.getLogger(__name__)
_STATISTICS = 15.0  # seconds between takeovers of what was measured into listings and index
_EVERY = 240  # of those takeovers until all models are looked at, called or not
_FOLLOW = 1.0  # seconds between looks for changes of which this process was not told
_VERSIONS = 200  # the newest of a model that feeds know
_GATHER = 0.1  # seconds that changes gather before the index is written


class Catalogue:
    """Composes listings and writes them to table and index."""

    def __init__(
        self, database: Database, store: Store, index: Index, meaning: Meaning, control: InternalChannel, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._meaning = meaning
        self._registry = registry_pb2_grpc.RegistryServiceStub(control)
        self._billing = billing_pb2_grpc.BillingServiceStub(control)
        self._clock = clock
        self._writing = asyncio.Lock()
        self._since = ""  # changes of transactions from this one on may be missing in the index
        self._followed: dict[str, str] = {}  # of those the ones that are not, by the transaction that made them
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()

    async def load(self) -> None:
        """Fills the index from the table, at every start: the last process may have died between the two."""
        async with self._writing:
            async with self._database.connection() as connection:
                self._since, self._followed = await self._store.horizon(connection), {}
            await self._fill()
            self._index.complete()
            self._loaded.set()

    async def _fill(self) -> None:
        async with self._database.connection() as connection:
            listings = [listing async for listing in self._store.all_listings(connection)]
        await asyncio.to_thread(self._index.put, listings, clear=True)

    async def apply(self, connection: Connection, event: Message) -> None:
        """Takes over what an event says has changed."""
        if isinstance(event, event_pb2.UsageStored):
            await self._store.count_calls(connection, event.models, self._clock.now().date())
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
                await self._put(connection, listing)
        self.changed()

    async def _put(self, connection: Connection, listing: marketplace_pb2.Listing) -> None:
        await self._store.put_listing(connection, listing, digest_of(listing), self._clock.now())
        request = registry_pb2.ListVersionsRequest(model=listing.model.model, page_size=_VERSIONS)
        versions = (await self._registry.ListVersions(request)).versions
        published = [v for v in versions if v.state == registry_pb2.VERSION_STATE_PUBLISHED and not v.HasField("yank")]
        await self._store.put_publications(connection, listing.model.model, published)

    def changed(self) -> None:
        """A listing changes with the transaction under way."""
        self._wake.set()

    async def _compose(self, model: str) -> marketplace_pb2.Listing | None:
        """As anybody may see it: None for a model that has no published version, or not this address any more."""
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
                await self._put(connection, listing)
        await self.load()
        self._meaning.wake.set()
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
        """Follows the table with the index, for ever."""
        await self._loaded.wait()
        while True:
            try:
                await asyncio.wait_for(self._wake.wait(), _FOLLOW)
                await asyncio.sleep(_GATHER)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._follow()
            except MercatError as e:
                log.warning("the search index waits: %s", e)
                await asyncio.sleep(1)

    async def _follow(self) -> None:
        async with self._writing:
            async with self._database.connection() as connection:
                horizon = await self._store.horizon(connection)
                changes = await self._store.list_changes(connection, self._since)
                names = {model for model, by in changes.items() if self._followed.get(model) != by}
                listings = await self._store.get_listings(connection, sorted(names)) if names else {}
            if EVERYTHING in names:
                await self._fill()
            elif names:
                await asyncio.to_thread(self._index.put, list(listings.values()), gone=names - listings.keys())
            if names:
                self._meaning.wake.set()
            self._since, self._followed = horizon, changes

    async def keep_statistics(self) -> None:
        """Takes what was measured over into listings and index, for ever."""
        rounds = 0
        while True:
            await asyncio.sleep(_STATISTICS)
            try:
                async with self._database.transaction() as connection:
                    names = await self._store.refresh_latencies(
                        connection, 2 * _STATISTICS, self._clock.now().date(), every=rounds % _EVERY == 0
                    )
                if names and self._loaded.is_set():
                    async with self._writing:  # or a listing that goes meanwhile would be put back
                        async with self._database.connection() as connection:
                            listings = await self._store.get_listings(connection, names)
                        await asyncio.to_thread(self._index.put, list(listings.values()))
                rounds += 1
            except Exception as e:  # two processes may have been in each other's way
                log.warning("statistics wait: %s", e)
