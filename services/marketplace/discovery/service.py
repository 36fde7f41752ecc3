"""Categories, leaderboards, comparison and recommendations."""

import asyncio
from collections.abc import Mapping

from mercat.marketplace.v1 import discovery_pb2, discovery_pb2_grpc, marketplace_pb2

from services.common import pages, pricing
from services.common.db import Database
from services.common.errors import InvalidFields, ModelNotFound, Violation
from services.common.rpc.context import Context, caller, current
from services.marketplace.discovery.recommending import Reason, Recommender
from services.marketplace.discovery.store import DiscoveryStore
from services.marketplace.hits import hit
from services.marketplace.index import Index
from services.marketplace.questions import BOARDS, Wanted
from services.marketplace.store import Listing, Store
from services.marketplace.tasks import CATEGORIES, TASKS, modality


class DiscoveryServicer(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Serves `mercat.marketplace.v1.DiscoveryService`."""

    def __init__(
        self, database: Database, listings: Store, store: DiscoveryStore, index: Index, recommender: Recommender
    ) -> None:
        self._database = database
        self._listings = listings
        self._store = store
        self._index = index
        self._recommender = recommender

    async def GetCategories(
        self, request: discovery_pb2.GetCategoriesRequest, context: Context
    ) -> discovery_pb2.GetCategoriesResponse:
        response = discovery_pb2.GetCategoriesResponse()
        snapshot = self._index.snapshot()
        for category, title in CATEGORIES.items():
            wanted = Wanted(filters={"category": [category]})
            facets = await asyncio.to_thread(snapshot.facets, wanted)
            one = response.categories.add(
                category=category, title=title, models=facets["category"].get(category, 0)
            )  # fmt: skip
            known = [name for name, task in TASKS.items() if task.category == category]
            for name in dict.fromkeys([*known, *sorted(facets["task"])]):
                said = TASKS[name].title if name in TASKS else name.replace("-", " ").capitalize()
                one.tasks.add(
                    task=name, title=said, modality=modality(category, name), models=facets["task"].get(name, 0)
                )
        return response

    async def GetLeaderboard(
        self, request: discovery_pb2.GetLeaderboardRequest, context: Context
    ) -> discovery_pb2.GetLeaderboardResponse:
        sort, ranges = BOARDS[request.board]
        filters = {name: [getattr(request, name)] for name in ("category", "task") if getattr(request, name)}
        wanted = Wanted("", filters, sort, ranges)
        names, _ = await asyncio.to_thread(self._index.search, wanted, 0, request.limit or 10)
        listings = await self._known(names)
        return discovery_pb2.GetLeaderboardResponse(hits=[hit(listings[n]) for n in names if n in listings])

    async def CompareModels(
        self, request: discovery_pb2.CompareModelsRequest, context: Context
    ) -> discovery_pb2.CompareModelsResponse:
        names = list(dict.fromkeys(request.models))
        if len(names) < 2:
            raise InvalidFields(violations=[Violation("models", "name two to five different models")])
        if any(count < 0 for count in request.units.values()):
            raise InvalidFields(violations=[Violation("units", "cannot be negative")])
        pricing.check_meters(request.units)
        listings = await self._known(names)
        if missing := [name for name in names if name not in listings]:
            raise ModelNotFound(f"there is no published model {missing[0]}; find one with `mercat search`")
        return discovery_pb2.CompareModelsResponse(models=[_compared(listings[n], request.units) for n in names])

    async def ListRelatedModels(
        self, request: discovery_pb2.ListRelatedModelsRequest, context: Context
    ) -> discovery_pb2.ListRelatedModelsResponse:
        if not await self._known([request.model]):
            raise ModelNotFound(f"there is no published model {request.model}; find one with `mercat search`")
        found = await self._recommender.related(request.model)
        models, token = await self._page(found, request.page_size, request.page_token)
        return discovery_pb2.ListRelatedModelsResponse(models=models, next_page_token=token)

    async def ListRecommendations(
        self, request: discovery_pb2.ListRecommendationsRequest, context: Context
    ) -> discovery_pb2.ListRecommendationsResponse:
        call = current()
        may = "usage:read" in call.principal.scopes  # they tell what was called
        found = await self._recommender.personal(call.principal.org_id) if may else {}
        personal = bool(found)
        if not found:
            found = await self._recommender.popular()
        models, token = await self._page(found, request.page_size, request.page_token)
        return discovery_pb2.ListRecommendationsResponse(models=models, next_page_token=token, personal=personal)

    async def GetDiscoveryPreferences(
        self, request: discovery_pb2.GetDiscoveryPreferencesRequest, context: Context
    ) -> discovery_pb2.GetDiscoveryPreferencesResponse:
        async with self._database.connection() as connection:
            off = await self._store.get_preferences(connection, caller().org_id)
        preferences = discovery_pb2.DiscoveryPreferences(recommendations_off=off)
        return discovery_pb2.GetDiscoveryPreferencesResponse(preferences=preferences)

    async def SetDiscoveryPreferences(
        self, request: discovery_pb2.SetDiscoveryPreferencesRequest, context: Context
    ) -> discovery_pb2.SetDiscoveryPreferencesResponse:
        async with self._database.transaction() as connection:
            await self._store.set_preferences(connection, caller().org_id, off=request.recommendations_off)
        preferences = discovery_pb2.DiscoveryPreferences(recommendations_off=request.recommendations_off)
        return discovery_pb2.SetDiscoveryPreferencesResponse(preferences=preferences)

    async def _known(self, names: list[str]) -> dict[str, Listing]:
        async with self._database.connection() as connection:
            return await self._listings.get_listings(connection, names)

    async def _page(
        self, found: Mapping[str, Reason], size: int, page_token: str
    ) -> tuple[list[discovery_pb2.Recommendation], str]:
        key, most = pages.decode(page_token, int), size or 10
        offset = max(0, int(key[0])) if key else 0
        names = list(found)[offset : offset + most]
        listings = await self._known(names)
        models = [
            discovery_pb2.Recommendation(hit=hit(listings[n]), reason=found[n][0], because=found[n][1])
            for n in names if n in listings
        ]  # fmt: skip
        return models, pages.encode([offset + most]) if offset + most < len(found) else ""


def _compared(listing: marketplace_pb2.Listing, units: Mapping[str, int]) -> discovery_pb2.ComparedModel:
    price = pricing.read(listing.price)
    known = {component.meter for component in price.components}
    made = discovery_pb2.ComparedModel(listing=listing, free_meters=sorted(set(units) - known))
    if units and (known & set(units) or not known):
        try:
            made.cost_nanos = pricing.cost(price, units)
        except pricing.TooDear:
            text = f"cost more with {listing.model.model} than can be counted"
            raise InvalidFields(violations=[Violation("units", text)]) from None
    return made
