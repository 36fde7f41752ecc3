"""Tells the inference workers and billing what a model reference means now."""

from datetime import timedelta

from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import FailedPrecondition, ModelNotFound, NotFound
from services.common.rpc.context import Context
from services.registry import references, visibility
from services.registry.access.store import AccessStore
from services.registry.lifecycle import CALLABLE, is_retired
from services.registry.quarantine import Quarantine
from services.registry.repository import Repository
from services.registry.steps import VersionNotFound
from services.registry.store import Store

_MARGIN = timedelta(seconds=5)  # between the last moment to take a version back and the first to remove its files


class AliasNotFound(NotFound, reason="ALIAS_NOT_FOUND"): ...


class VersionQuarantined(FailedPrecondition, reason="VERSION_QUARANTINED"):
    """The version was taken out of service because it kept bringing its engine down."""


class VersionYanked(FailedPrecondition, reason="VERSION_YANKED"):
    """The version was taken back; only who names it exactly gets it."""


class DeploymentServicer(registry_pb2_grpc.DeploymentServiceServicer):
    """Serves `mercat.registry.v1.DeploymentService`."""

    def __init__(
        self, database: Database, store: Store, accesses: AccessStore, repository: Repository, quarantine: Quarantine,
        clock: Clock, undelete: timedelta,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._undelete = undelete
        self._database = database
        self._store = store
        self._accesses = accesses
        self._repository = repository
        self._quarantine = quarantine

    async def ResolveDeployment(
        self, request: registry_pb2.ResolveDeploymentRequest, context: Context
    ) -> registry_pb2.ResolveDeploymentResponse:
        reference = references.parse(request.reference)
        # One text for what does not exist and what is not published: the difference is nobody's business.
        async with self._database.connection() as connection:
            model = await self._store.get_model(connection, reference.publisher, reference.name)
            if model is None or not model["published_at"]:
                raise ModelNotFound.to_call(reference.model)
            kept = visibility.kept(model)
            wanted = reference.version or model["latest_version"]
            if reference.alias:
                found = await self._store.get_alias(connection, model["id"], reference.alias)
                if found is None:
                    raise AliasNotFound(f"{reference.model} has no alias {reference.alias}", metadata=kept)
                wanted = found
            row = await self._store.get_version(connection, model["id"], wanted) if wanted else None
            if row is not None and row["state"] == registry_pb2.VERSION_STATE_QUARANTINED:
                # Who named it exactly gets no other one.
                spare = registry_pb2.Version.FromString(row["document"]).settings.fallback_version
                if reference.version or not spare:
                    raise VersionQuarantined(
                        f"{reference.model}@{wanted} was taken out of service: it kept bringing its engine down",
                        metadata=kept,
                    )
                row = await self._store.get_version(connection, model["id"], spare)
            if row is not None and row["yanked_by"] and not reference.version:
                raise VersionYanked(
                    f"{reference.model}@{row['version']}, to which {request.reference} leads, was yanked: "
                    f"{row['yank_reason']}",
                    metadata={**kept, "model": reference.model, "version": row["version"]},
                )
            former = await self._store.former_addresses(connection, model["id"])
            granted: list[str] = []
            if model["visibility"] == visibility.GATED:
                granted = await self._accesses.list_granted(connection, model["id"])
        retired = row is not None and is_retired(row["state"], row["sunset_at"], self._clock.now())
        if row is None or not (retired or row["state"] in CALLABLE):
            if not wanted:
                raise ModelNotFound.to_call(reference.model)
            raise VersionNotFound(f"{reference.model} has no version {wanted} that can be called", metadata=kept)
        deployment = self._repository.deployment(model, row)
        if retired:  # the worker that is asked for it refuses, and knows to do so without asking again
            deployment.state = registry_pb2.VERSION_STATE_RETIRED
        deployment.former_models.extend(former)
        deployment.granted_org_ids.extend(granted)
        return registry_pb2.ResolveDeploymentResponse(deployment=deployment)

    async def ReportCrash(
        self, request: registry_pb2.ReportCrashRequest, context: Context
    ) -> registry_pb2.ReportCrashResponse:
        return await self._quarantine.report(request)

    async def ResolveDigest(
        self, request: registry_pb2.ResolveDigestRequest, context: Context
    ) -> registry_pb2.ResolveDigestResponse:
        async with self._database.connection() as connection:
            row = await self._store.get_version(connection, request.model_id, request.version)
        if row is None:
            raise VersionNotFound(f"{request.model_id} has no version {request.version}")
        return registry_pb2.ResolveDigestResponse(digest=row["digest"])

    async def ListNeededArtifacts(
        self, request: registry_pb2.ListNeededArtifactsRequest, context: Context
    ) -> registry_pb2.ListNeededArtifactsResponse:
        since = self._clock.now() - self._undelete - _MARGIN
        async with self._database.connection() as connection:
            digests = await self._store.needed_artifacts(connection, list(request.digests), since)
        return registry_pb2.ListNeededArtifactsResponse(digests=digests)

    async def ResolvePublisher(
        self, request: registry_pb2.ResolvePublisherRequest, context: Context
    ) -> registry_pb2.ResolvePublisherResponse:
        async with self._database.connection() as connection:
            known = await self._store.is_publisher(connection, request.publisher)
        return registry_pb2.ResolvePublisherResponse(known=known)

    async def ResolveOwner(
        self, request: registry_pb2.ResolveOwnerRequest, context: Context
    ) -> registry_pb2.ResolveOwnerResponse:
        reference = references.parse(request.model)
        async with self._database.connection() as connection:
            model = await self._store.get_model(connection, reference.publisher, reference.name)
        if model is None:
            raise ModelNotFound(f"there is no model {reference.model}")
        return registry_pb2.ResolveOwnerResponse(
            model_id=model["id"],
            org_id=model["org_id"],
            published=visibility.listed(model),
            model=f"{model['publisher']}/{model['name']}",
        )
