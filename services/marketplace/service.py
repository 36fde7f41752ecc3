"""Search and listings."""

import asyncio
from collections.abc import Sequence

from mercat.marketplace.v1 import marketplace_pb2, marketplace_pb2_grpc

from services.common import pages
from services.common.db import Database
from services.common.errors import ModelNotFound
from services.common.rpc.context import Context, current
from services.marketplace.allowances import Allowances
from services.marketplace.catalogue import Catalogue
from services.marketplace.hits import hit
from services.marketplace.index import Index
from services.marketplace.meaning import Meaning, MeaningAbsent
from services.marketplace.profiles.publishers import Publishers
from services.marketplace.search import LEXICAL, SEMANTIC, Searches
from services.marketplace.store import Listing, Store

_ALIKE = 100  # similar models that pages can reach


class MarketplaceServicer(marketplace_pb2_grpc.MarketplaceServiceServicer):
    """Serves `mercat.marketplace.v1.MarketplaceService`."""

    def __init__(
        self, database: Database, store: Store, index: Index, meaning: Meaning, catalogue: Catalogue,
        publishers: Publishers, allowances: Allowances,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._index = index
        self._meaning = meaning
        self._catalogue = catalogue
        self._publishers = publishers
        self._allowances = allowances
        self._searches = Searches(index, meaning)

    async def SearchModels(
        self, request: marketplace_pb2.SearchModelsRequest, context: Context
    ) -> marketplace_pb2.SearchModelsResponse:
        search, (names, token), absent = await self._searches.page(request)
        listings = await self._listings(names)
        words = self._index.asker.words(request.query)
        response = marketplace_pb2.SearchModelsResponse(
            hits=[hit(listing, words) for listing in listings], next_page_token=token, total=search.total,
            mode=search.mode, semantic_absent=absent, relaxed=search.wanted.relaxed,
        )  # fmt: skip
        if not request.page_token:
            for name, counts in (await asyncio.to_thread(search.facets)).items():
                response.facets.add(field=name, counts=counts)
        return response

    async def GetListing(
        self, request: marketplace_pb2.GetListingRequest, context: Context
    ) -> marketplace_pb2.GetListingResponse:
        listing = await self._listing(request.model)
        listing.allowances.extend(await self._allowances.of(listing, current().principal.org_id))
        return marketplace_pb2.GetListingResponse(listing=listing)

    async def ListSimilarModels(
        self, request: marketplace_pb2.ListSimilarModelsRequest, context: Context
    ) -> marketplace_pb2.ListSimilarModelsResponse:
        key, most = pages.decode(request.page_token, int), request.page_size or 10
        offset = max(0, int(key[0])) if key else 0
        listing = await self._listing(request.model)
        response = marketplace_pb2.ListSimilarModelsResponse(mode=SEMANTIC)
        try:
            names = await self._meaning.similar(listing.model.model, _ALIKE)
        except MeaningAbsent as e:
            response.mode, response.semantic_absent = LEXICAL, str(e)
            names = await asyncio.to_thread(self._index.snapshot().alike, listing, _ALIKE)
        response.hits.extend(hit(x) for x in await self._listings(names[offset : offset + most]))
        if offset + most < len(names):
            response.next_page_token = pages.encode([offset + most])
        return response

    async def RebuildIndex(
        self, request: marketplace_pb2.RebuildIndexRequest, context: Context
    ) -> marketplace_pb2.RebuildIndexResponse:
        await self._publishers.verify_all()
        return marketplace_pb2.RebuildIndexResponse(models=await self._catalogue.rebuild())

    async def _listing(self, model: str) -> Listing:
        async with self._database.connection() as connection:
            listing = await self._store.get_listing(connection, model)
        if listing is None and (address := await self._catalogue.address(model)):
            async with self._database.connection() as connection:
                listing = await self._store.get_listing(connection, address)
        if listing is None:
            raise ModelNotFound(f"there is no published model {model}; find one with `mercat search`")
        return listing

    async def _listings(self, names: Sequence[str]) -> list[Listing]:
        """Of those that are still published."""
        async with self._database.connection() as connection:
            listings = await self._store.get_listings(connection, names)
        return [listings[name] for name in names if name in listings]
