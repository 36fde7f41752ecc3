"""Keeps listings and index as the registry and billing have things: from events, or all of it at once.

One process hears of an event and writes the listing; every process follows the table with an index of its own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TypeAlias

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
_VERSIONS = 200  # the newest of a model that feeds know; of others they hear when they end
Ended: TypeAlias = event_pb2.VersionDeprecated | event_pb2.VersionRetired | event_pb2.VersionYanked
KINDS: list[type[Message]] = [
    event_pb2.ModelChanged, event_pb2.ModelMoved, event_pb2.PriceChanged, event_pb2.UsageStored,
    event_pb2.VersionDeprecated, event_pb2.VersionRetired, event_pb2.VersionYanked,
]  # fmt: skip
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
        if isinstance(event, Ended):
            await self._ended(connection, event)
            return
        if isinstance(event, event_pb2.ModelMoved):
            await self._store.rename_listing(connection, event.from_model, event.to_model)
            names = [event.from_model, event.to_model]
        else:
            assert isinstance(event, event_pb2.ModelChanged | event_pb2.PriceChanged)
            names = [event.model]
        for name in names:
            await self._take(connection, name)
        self.changed()

    async def _take(self, connection: Connection, name: str) -> bool:
        """Writes down how a model is now; whether it is listed. What ended of one that has nothing to call any more is
        known as long as the model is."""
        model = await self._model(name)
        listing = await self._compose(model) if model is not None else None
        if listing is None:
            await self._store.remove_listing(connection, name)
        else:
            await self._store.put_listing(connection, listing, digest_of(listing), self._clock.now())
        if model is None:
            await self._store.forget_endings(connection, name)
            return False
        versions = (
            await self._registry.ListVersions(registry_pb2.ListVersionsRequest(model=name, page_size=_VERSIONS))
        ).versions
        if listing is not None:
            await self._store.put_publications(connection, name, [v for v in versions if _is_published(v)])
        await self._store.put_endings(connection, name, versions, self._clock.now())
        return listing is not None

    async def _ended(self, connection: Connection, event: Ended) -> None:
        """Of one version, which may be older than those that are looked at otherwise."""
        try:
            found = await self._registry.GetVersion(
                registry_pb2.GetVersionRequest(model=event.model, version=event.version)
            )
        except NotFound:  # it is private by now, or gone
            return
        if await self._model(event.model) is not None:
            await self._store.put_endings(connection, event.model, [found.version], self._clock.now())

    def changed(self) -> None:
        """A listing changes with the transaction under way."""
        self._wake.set()

    async def _model(self, name: str) -> registry_pb2.Model | None:
        """As anybody may see it: None for one that others may not know of, or that has not this address any more."""
        try:
            found = (await self._registry.GetModel(registry_pb2.GetModelRequest(model=name))).model
        except NotFound:
            return None
        return found if found.model == name else None

    async def _compose(self, model: registry_pb2.Model) -> marketplace_pb2.Listing | None:
        """None for a model that has no published version."""
        if not model.latest_version:
            return None
        try:
            version = await self._registry.GetVersion(
                registry_pb2.GetVersionRequest(model=model.model, version=model.latest_version)
            )
        except NotFound:
            return None
        price = await self._billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model.model))
        return marketplace_pb2.Listing(model=model, version=version.version, price=price.price)

    async def address(self, model: str) -> str:
        """Where a model is now that had another address; empty when there is none that others may know of."""
        try:
            return (await self._registry.GetModel(registry_pb2.GetModelRequest(model=model))).model.model
        except NotFound:
            return ""

    async def rebuild(self) -> int:
        """Writes down every model anew, and the index with it; answers how many are listed."""
        async with self._database.transaction() as connection:
            await self._store.await_changes(connection)
            names = set(await self._store.known_models(connection))
            async for model in self._published():
                names.add(model)
            listed = [await self._take(connection, name) for name in sorted(names)]
        await self.load()
        self._meaning.wake.set()
        return sum(listed)

    async def _published(self) -> AsyncIterator[str]:
        token = ""
        while True:
            page = await self._registry.ListModels(registry_pb2.ListModelsRequest(page_size=500, page_token=token))
            for model in page.models:
                yield model.model
            token = page.next_page_token
            if not token:
                return

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


def _is_published(version: registry_pb2.Version) -> bool:
    return version.state == registry_pb2.VERSION_STATE_PUBLISHED and not version.HasField("yank")
