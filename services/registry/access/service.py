"""Serves `mercat.registry.v1.AccessService`."""

from mercat.event.v1 import event_pb2
from mercat.registry.v1 import access_pb2, access_pb2_grpc

from services.common import audit, outbox
from services.common.db import Connection
from services.common.errors import ModelNotFound
from services.common.rpc.context import Context, caller
from services.common.service import Deps
from services.registry import references
from services.registry.rows import model_of
from services.registry.store import Row, Store


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Every change is told as ModelChanged, on which marketplace and workers look again."""

    def __init__(self, deps: Deps, store: Store) -> None:
        self._database = deps.database
        self._clock = deps.clock
        self._store = store

    async def SetModelVisibility(
        self, request: access_pb2.SetModelVisibilityRequest, context: Context
    ) -> access_pb2.SetModelVisibilityResponse:
        async with self._database.transaction() as connection:
            before = await self._own(connection, request.model)
            audit.about("model", before["id"])
            await self._store.set_visibility(connection, before["id"], request.visibility, self._clock.now())
            model = await self._own(connection, request.model)
            audit.changed(model_of(before), model_of(model))
            await self._changed(connection, model)
        return access_pb2.SetModelVisibilityResponse(model=model_of(model))

    async def _own(self, connection: Connection, name: str) -> Row:
        """Raises ModelNotFound for what is not the caller's."""
        reference = references.parse_model(name)
        model = await self._store.get_model(connection, reference.publisher, reference.name)
        if model is None or model["org_id"] != caller().org_id:
            raise ModelNotFound(f"you have no model {reference.model}")
        return model

    async def _changed(self, connection: Connection, model: Row) -> None:
        name, published = f"{model['publisher']}/{model['name']}", bool(model["latest_version"])
        await outbox.add(connection, event_pb2.ModelChanged(model_id=model["id"], model=name, published=published))
