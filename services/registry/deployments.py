"""Tells the inference workers and billing what a model reference means now."""

from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.db import Database
from services.common.errors import ModelNotFound, NotFound
from services.common.rpc.context import Context
from services.registry import references
from services.registry.lifecycle import CALLABLE
from services.registry.repository import Repository
from services.registry.store import Store


class VersionNotFound(NotFound, reason="VERSION_NOT_FOUND"): ...


class AliasNotFound(NotFound, reason="ALIAS_NOT_FOUND"): ...


class DeploymentServicer(registry_pb2_grpc.DeploymentServiceServicer):
    """Serves `mercat.registry.v1.DeploymentService`."""

    def __init__(self, database: Database, store: Store, repository: Repository) -> None:
        self._database = database
        self._store = store
        self._repository = repository

    async def ResolveDeployment(
        self, request: registry_pb2.ResolveDeploymentRequest, context: Context
    ) -> registry_pb2.ResolveDeploymentResponse:
        reference = references.parse(request.reference)
        # One text for what does not exist and what is not published: the difference is nobody's business.
        missing = f"there is no model {reference.model} that can be called; find one with `mercat search`"
        async with self._database.connection() as connection:
            model = await self._store.get_model(connection, reference.publisher, reference.name)
            if model is None or not model["published_at"]:
                raise ModelNotFound(missing)
            wanted = reference.version or model["latest_version"]
            if reference.alias:
                found = await self._store.get_alias(connection, model["id"], reference.alias)
                if found is None:
                    raise AliasNotFound(f"{reference.model} has no alias {reference.alias}")
                wanted = found
            row = await self._store.get_version(connection, model["id"], wanted) if wanted else None
        if row is None or row["state"] not in CALLABLE:
            if not wanted:
                raise ModelNotFound(missing)
            raise VersionNotFound(f"{reference.model} has no version {wanted} that can be called")
        return registry_pb2.ResolveDeploymentResponse(deployment=self._repository.deployment(model, row))

    async def ResolveOwner(
        self, request: registry_pb2.ResolveOwnerRequest, context: Context
    ) -> registry_pb2.ResolveOwnerResponse:
        reference = references.parse(request.model)
        async with self._database.connection() as connection:
            model = await self._store.get_model(connection, reference.publisher, reference.name)
        if model is None:
            raise ModelNotFound(f"there is no model {reference.model}")
        return registry_pb2.ResolveOwnerResponse(
            model_id=model["id"], org_id=model["org_id"], published=bool(model["published_at"])
        )
