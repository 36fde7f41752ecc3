"""Search and listings."""

import asyncio

from mercat.marketplace.v1 import marketplace_pb2, marketplace_pb2_grpc

from services.common import pages
from services.common.db import Database
from services.common.errors import InvalidFields, ModelNotFound, Violation
from services.common.rpc.context import Context
from services.marketplace.catalogue import Catalogue
from services.marketplace.index import Index, Wanted
from services.marketplace.store import Listing, Store

_MOST = 10_000  # hits that pages can reach


class MarketplaceServicer(marketplace_pb2_grpc.MarketplaceServiceServicer):
    """Serves `mercat.marketplace.v1.MarketplaceService`."""

    def __init__(self, database: Database, store: Store, index: Index, catalogue: Catalogue) -> None:
        self._database = database
        self._store = store
        self._index = index
        self._catalogue = catalogue

    async def SearchModels(
        self, request: marketplace_pb2.SearchModelsRequest, context: Context
    ) -> marketplace_pb2.SearchModelsResponse:
        key, most = pages.decode(request.page_token, int), min(request.page_size or 20, 100)
        offset = int(key[0]) if key else 0
        if not 0 <= offset < _MOST:
            raise InvalidFields(
                violations=[Violation("page_token", f"pages end after {_MOST} hits; narrow the search")]
            )
        single = ("category", "task", "framework", "license", "publisher")
        filters: dict[str, list[str]] = {name: [getattr(request, name)] for name in single if getattr(request, name)}
        filters["tags"] = list(request.tags)
        wanted = Wanted(request.query, filters, request.sort)
        models, total = await asyncio.to_thread(self._index.search, wanted, offset, most)
        async with self._database.connection() as connection:
            listings = await self._store.get_listings(connection, models)
        response = marketplace_pb2.SearchModelsResponse(
            hits=[_hit(listings[m]) for m in models if m in listings], total=total
        )
        if offset + most < min(total, _MOST):
            response.next_page_token = pages.encode([offset + most])
        if not offset:
            for name, counts in (await asyncio.to_thread(self._index.facets, wanted)).items():
                response.facets.add(field=name, counts=counts)
        return response

    async def GetListing(
        self, request: marketplace_pb2.GetListingRequest, context: Context
    ) -> marketplace_pb2.GetListingResponse:
        async with self._database.connection() as connection:
            listing = await self._store.get_listing(connection, request.model)
        if listing is None and (address := await self._catalogue.address(request.model)):
            async with self._database.connection() as connection:
                listing = await self._store.get_listing(connection, address)
        if listing is None:
            raise ModelNotFound(f"there is no published model {request.model}; find one with `mercat search`")
        return marketplace_pb2.GetListingResponse(listing=listing)

    async def RebuildIndex(
        self, request: marketplace_pb2.RebuildIndexRequest, context: Context
    ) -> marketplace_pb2.RebuildIndexResponse:
        return marketplace_pb2.RebuildIndexResponse(models=await self._catalogue.rebuild())


def _hit(listing: Listing) -> marketplace_pb2.SearchHit:
    model = listing.model
    return marketplace_pb2.SearchHit(
        model=model.model, display_name=model.display_name, summary=model.summary, category=model.category,
        task=model.task, tags=model.tags, framework=listing.version.framework, license=model.license,
        latest_version=model.latest_version, price=listing.price, published_at=model.published_at,
        total_requests=listing.total_requests,
    )  # fmt: skip
