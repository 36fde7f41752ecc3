"""Serves `mercat.registry.v1.CardService`."""

import asyncio

from mercat.registry.v1 import card_pb2, card_pb2_grpc, registry_pb2

from services.common.rpc.context import Context
from services.registry.cards import front_matter
from services.registry.cards.rendering import rendered
from services.registry.service import RegistryServicer


class CardServicer(card_pb2_grpc.CardServiceServicer):
    """Cards of what the registry lets the caller see."""

    def __init__(self, registry: RegistryServicer) -> None:
        self._registry = registry
        self._rendering = asyncio.Lock()  # of a burst of large cards one is rendered at a time, and calls go on

    async def GetCard(self, request: card_pb2.GetCardRequest, context: Context) -> card_pb2.GetCardResponse:
        asked = registry_pb2.GetModelRequest(model=request.model)
        model = (await self._registry.GetModel(asked, context)).model
        card = card_pb2.Card(model=model.model, metadata=model.card_metadata)
        text = model.description
        if number := request.version or model.latest_version:
            version_asked = registry_pb2.GetVersionRequest(model=model.model, version=number)
            version = (await self._registry.GetVersion(version_asked, context)).version
            if request.version or version.card:
                card = card_pb2.Card(model=model.model, version=number, metadata=version.card_metadata)
                text = version.card
        _, card.markdown = front_matter.split(text)
        async with self._rendering:
            card.html = await asyncio.to_thread(rendered, card.markdown)
        return card_pb2.GetCardResponse(card=card)
