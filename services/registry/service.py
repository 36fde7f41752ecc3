"""Models: create, describe, list. Their versions are in `service_versions.py`."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import asyncpg
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2

from services.common import audit, call_limits, etags, ids, outbox, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import EtagMismatch, InvalidFields, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller, current
from services.registry import visibility
from services.registry.addresses import Addresses, taken
from services.registry.cards import front_matter
from services.registry.lineage.noting import note
from services.registry.lineage.store import LineageStore
from services.registry.provenance.store import KeyStore
from services.registry.repository import Repository
from services.registry.rows import model_of
from services.registry.service_lifecycle import LifecycleMethods
from services.registry.service_versions import VersionMethods
from services.registry.steps import Steps
from services.registry.store import Row, Store


class RegistryServicer(VersionMethods, LifecycleMethods):
    """Serves `mercat.registry.v1.RegistryService`."""

    def __init__(
        self, database: Database, store: Store, control: InternalChannel, clock: Clock, wake: Callable[[], None],
        repository: Repository, undelete: timedelta, keys: KeyStore, lineage: LineageStore, addresses: Addresses,
    ) -> None:  # fmt: skip
        super().__init__(control, wake, repository, undelete, keys, lineage)
        self._database = database
        self._store = store
        self._clock = clock
        self._steps = Steps(store, clock)
        self._addresses = addresses

    async def _visible(self, connection: Connection, name: str) -> Row:
        """The model. Raises ModelNotFound when there is none that the caller may know of."""
        return await visibility.find_known(self._store, connection, name)

    async def _owned(self, connection: Connection, name: str) -> Row:
        """The caller's own model. Raises ModelNotFound for everybody else's too."""
        return await visibility.find_own(self._store, connection, name)

    async def _changed(self, connection: Connection, model: Row, *, published: bool) -> None:
        name = f"{model['publisher']}/{model['name']}"
        await outbox.add(connection, event_pb2.ModelChanged(model_id=model["id"], model=name, published=published))

    async def CreateModel(
        self, request: registry_pb2.CreateModelRequest, context: Context
    ) -> registry_pb2.CreateModelResponse:
        principal = caller()
        said = await asyncio.to_thread(front_matter.read, request.description, "description")
        if said and said.license not in ("", request.license):
            differs = f"is {said.license}, and license says {request.license}"
            raise front_matter.CardInvalid(violations=[Violation("description.license", differs)])
        model_id = ids.new("mdl")
        audit.about("model", model_id)
        try:
            async with self._database.transaction() as connection:
                await self._store.add_model(
                    connection, id=model_id, org_id=principal.org_id, publisher=principal.handle, name=request.name,
                    display_name=request.display_name or request.name, summary=request.summary,
                    description=request.description, card=said.SerializeToString() if said else b"",
                    category=request.category, task=request.task,
                    tags=list(dict.fromkeys(request.tags)), license=request.license, homepage=request.homepage,
                    visibility=request.visibility or visibility.PUBLIC, now=self._clock.now(),
                )  # fmt: skip
                await self._addresses.take(connection, principal.handle, request.name, model_id)
                row = await self._store.get_model(connection, principal.handle, request.name)
                if said and row:
                    await note(connection, self._store, self._lineage, row, "", said)
        except asyncpg.UniqueViolationError as e:
            raise taken(e, "you have", request.name) from None
        assert row is not None
        return registry_pb2.CreateModelResponse(model=model_of(row))

    async def GetModel(self, request: registry_pb2.GetModelRequest, context: Context) -> registry_pb2.GetModelResponse:
        async with self._database.connection() as connection:
            return registry_pb2.GetModelResponse(model=model_of(await self._visible(connection, request.model)))

    async def ListModels(
        self, request: registry_pb2.ListModelsRequest, context: Context
    ) -> registry_pb2.ListModelsResponse:
        org_id = caller().org_id if request.mine else ""
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_models(
                connection, org_id, current().principal.org_id, str(key[0]) if key else None, most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return registry_pb2.ListModelsResponse(models=[model_of(r) for r in rows[:most]], next_page_token=token)

    async def UpdateModel(
        self, request: registry_pb2.UpdateModelRequest, context: Context
    ) -> registry_pb2.UpdateModelResponse:
        revision = etags.revision(request.etag, "model")
        if request.HasField("summary") and not request.summary:
            raise InvalidFields(violations=[Violation("summary", "must not be empty; leave it out to keep it")])
        said = await asyncio.to_thread(front_matter.read, request.description, "description")
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            audit.about("model", model["id"])
            name = request.display_name or model["name"]  # as in CreateModel
            changed = await self._store.update_model(
                connection, model["id"],
                display_name=name if request.HasField("display_name") else None,
                summary=request.summary if request.HasField("summary") else None,
                description=request.description if request.HasField("description") else None,
                card=(said.SerializeToString() if said else b"") if request.HasField("description") else None,
                license_=(said and said.license) or None,
                tags=list(dict.fromkeys(request.tags)) or None, revision=revision, now=self._clock.now(),
            )  # fmt: skip
            if not changed:
                raise EtagMismatch("the model was changed meanwhile; read it again")
            if request.HasField("description"):
                await self._lineage.forget_lineage(connection, model["id"])
                if said:
                    await note(connection, self._store, self._lineage, model, "", said)
            model = await self._owned(connection, request.model)
            await self._changed(connection, model, published=bool(model["latest_version"]))
        return registry_pb2.UpdateModelResponse(model=model_of(model))

    async def SetModelLimit(
        self, request: registry_pb2.SetModelLimitRequest, context: Context
    ) -> registry_pb2.SetModelLimitResponse:
        limit = call_limits.column(request.limit if request.HasField("limit") else None)
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            audit.about("model", model["id"])
            await self._store.touch_model(connection, model["id"], self._clock.now())
            await self._store.set_model_limit(connection, model["id"], limit)
            model = await self._owned(connection, request.model)
            await self._changed(connection, model, published=bool(model["latest_version"]))
        return registry_pb2.SetModelLimitResponse(model=model_of(model))
