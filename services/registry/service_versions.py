"""Versions: create, see, and move through their life; aliases."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc
from mercat.storage.v1 import storage_pb2_grpc

from services.common import audit, ids, outbox, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import AlreadyExists, FailedPrecondition, InvalidFields, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller
from services.registry import files, lifecycle, references, visibility
from services.registry.deployments import VersionNotFound
from services.registry.lifecycle import CALLABLE, Actor
from services.registry.repository import Repository
from services.registry.rows import version_of
from services.registry.store import Store

V = registry_pb2


class VersionExists(AlreadyExists, reason="VERSION_EXISTS"): ...


class VersionMethods(registry_pb2_grpc.RegistryServiceServicer):
    """The part of RegistryService that is about versions; `RegistryServicer` adds the rest."""

    _database: Database
    _store: Store
    _clock: Clock
    _visible: Callable[[Connection, str], Any]
    _owned: Callable[[Connection, str], Any]
    _changed: Callable[..., Any]

    def __init__(
        self, control: InternalChannel, wake: Callable[[], None], repository: Repository, undelete: timedelta
    ) -> None:  # fmt: skip
        self._undelete = undelete
        self._storage = storage_pb2_grpc.ArtifactServiceStub(control)
        self._wake = wake
        self._repository = repository

    async def CreateVersion(
        self, request: registry_pb2.CreateVersionRequest, context: Context
    ) -> registry_pb2.CreateVersionResponse:
        principal = caller()
        _check_samples(request)
        _check_settings(request.settings)
        async with self._database.connection() as connection:
            model = await self._owned(connection, request.model)
        artifact = await files.stat(self._storage, "digest", request.digest, principal.org_id)
        version_id = ids.new("ver")
        audit.about("version", version_id)
        document = registry_pb2.Version(settings=request.settings, samples=request.samples)
        for name in request.labels:
            document.labels[name].CopyFrom(request.labels[name])
        await files.describe(self._storage, request.files, principal.org_id, document)
        try:
            async with self._database.transaction() as connection:
                await self._store.add_version(
                    connection, id=version_id, model_id=model["id"], version=request.version,
                    state=V.VERSION_STATE_VALIDATING, framework=request.framework, digest=request.digest,
                    size_bytes=artifact.size_bytes, signature=request.signature.SerializeToString(),
                    document=document.SerializeToString(deterministic=True), release_notes=request.release_notes,
                    now=self._clock.now(),
                )  # fmt: skip
                for file in document.files:
                    await self._store.add_version_file(connection, version_id, file.digest)
                row = await self._store.get_version(connection, model["id"], request.version)
        except asyncpg.UniqueViolationError:
            problem = Violation("version", "exists already; versions are immutable, choose the next number")
            raise VersionExists(f"{request.model} has a version {request.version}", violations=[problem]) from None
        self._wake()
        assert row is not None
        return registry_pb2.CreateVersionResponse(version=version_of(row, request.model))

    async def GetVersion(
        self, request: registry_pb2.GetVersionRequest, context: Context
    ) -> registry_pb2.GetVersionResponse:
        async with self._database.connection() as connection:
            model = await self._visible(connection, request.model)
            row = await self._store.get_version(connection, model["id"], request.version)
        if row is None or not (row["state"] in CALLABLE or visibility.sees_all(model)):
            raise VersionNotFound(f"{request.model} has no version {request.version}")
        return registry_pb2.GetVersionResponse(version=version_of(row, request.model))

    async def ListVersions(
        self, request: registry_pb2.ListVersionsRequest, context: Context
    ) -> registry_pb2.ListVersionsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before = str(key[0]) if key else None
        async with self._database.connection() as connection:
            model = await self._visible(connection, request.model)
            rows = await self._store.list_versions(
                connection, model["id"], all_states=visibility.sees_all(model), before=before, most=most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        versions = [version_of(r, request.model) for r in rows[:most]]
        return registry_pb2.ListVersionsResponse(versions=versions, next_page_token=token)

    async def ListReviews(
        self, request: registry_pb2.ListReviewsRequest, context: Context
    ) -> registry_pb2.ListReviewsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_reviews(connection, str(key[0]) if key else None, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        versions = [version_of(r, f"{r['publisher']}/{r['name']}") for r in rows[:most]]
        return registry_pb2.ListReviewsResponse(versions=versions, next_page_token=token)

    async def _step(self, step: str, name: str, number: str, note: str = "") -> registry_pb2.Version:
        """Moves a version on. Raises ModelNotFound, VersionNotFound, or WrongState."""
        async with self._database.transaction() as connection:
            owner = lifecycle.STEPS[step].actor is Actor.OWNER
            model = await (self._owned(connection, name) if owner else self._visible(connection, name))
            changes_model = lifecycle.STEPS[step].target in CALLABLE
            if changes_model:  # or two versions published at once would each miss the other, and one be the default
                await self._store.touch_model(connection, model["id"], self._clock.now())
            row = await self._store.get_version(connection, model["id"], number, lock=True)
            if row is None:
                raise VersionNotFound(f"{name} has no version {number}")
            audit.about("version", row["id"])
            state = lifecycle.advance(step, row["state"])
            await self._store.move_version(connection, row["id"], state, note, self._clock.now())
            if step == "release":  # what it did before is not held against it again
                await self._store.forget_crashes(connection, row["id"])
            if changes_model:
                published = await self._store.published_versions(connection, model["id"])
                latest = references.newest(published)
                await self._store.set_latest(connection, model["id"], latest, self._clock.now())
                await self._changed(connection, model, published=bool(latest))
            if step == "publish":
                told = event_pb2.VersionPublished(
                    version_id=row["id"], model=name, version=number, org_id=model["org_id"]
                )
                await outbox.add(connection, told)
            row = await self._store.get_version(connection, model["id"], number)
        assert row is not None
        return version_of(row, name)

    async def SubmitVersion(
        self, request: registry_pb2.SubmitVersionRequest, context: Context
    ) -> registry_pb2.SubmitVersionResponse:
        return registry_pb2.SubmitVersionResponse(version=await self._step("submit", request.model, request.version))

    async def ApproveVersion(
        self, request: registry_pb2.ApproveVersionRequest, context: Context
    ) -> registry_pb2.ApproveVersionResponse:
        return registry_pb2.ApproveVersionResponse(version=await self._step("approve", request.model, request.version))

    async def RejectVersion(
        self, request: registry_pb2.RejectVersionRequest, context: Context
    ) -> registry_pb2.RejectVersionResponse:
        version = await self._step("reject", request.model, request.version, request.reason)
        return registry_pb2.RejectVersionResponse(version=version)

    async def PublishVersion(
        self, request: registry_pb2.PublishVersionRequest, context: Context
    ) -> registry_pb2.PublishVersionResponse:
        # Before it can be called, and outside the transaction: a large file takes its time.
        async with self._database.connection() as connection:
            model = await self._owned(connection, request.model)
            row = await self._store.get_version(connection, model["id"], request.version)
        if row is not None and row["state"] == V.VERSION_STATE_APPROVED:
            await self._repository.write(self._repository.deployment(model, row))
        return registry_pb2.PublishVersionResponse(version=await self._step("publish", request.model, request.version))

    async def ReleaseVersion(
        self, request: registry_pb2.ReleaseVersionRequest, context: Context
    ) -> registry_pb2.ReleaseVersionResponse:
        return registry_pb2.ReleaseVersionResponse(version=await self._step("release", request.model, request.version))

    async def DeprecateVersion(
        self, request: registry_pb2.DeprecateVersionRequest, context: Context
    ) -> registry_pb2.DeprecateVersionResponse:
        version = await self._step("deprecate", request.model, request.version, request.reason)
        return registry_pb2.DeprecateVersionResponse(version=version)

    async def DeleteVersion(
        self, request: registry_pb2.DeleteVersionRequest, context: Context
    ) -> registry_pb2.DeleteVersionResponse:
        return registry_pb2.DeleteVersionResponse(version=await self._step("delete", request.model, request.version))

    async def UndeleteVersion(
        self, request: registry_pb2.UndeleteVersionRequest, context: Context
    ) -> registry_pb2.UndeleteVersionResponse:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            row = await self._store.get_version(connection, model["id"], request.version, lock=True)
            if row is None:
                raise VersionNotFound(f"{request.model} has no version {request.version}")
            audit.about("version", row["id"])
            state = lifecycle.undeleted(row["state"], row["deleted_from"], row["deleted_at"], now, self._undelete)
            await self._store.move_version(connection, row["id"], state, row["review_note"], now)
            row = await self._store.get_version(connection, model["id"], request.version)
        assert row is not None
        return registry_pb2.UndeleteVersionResponse(version=version_of(row, request.model))

    async def SetAlias(self, request: registry_pb2.SetAliasRequest, context: Context) -> registry_pb2.SetAliasResponse:
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            audit.about("model", model["id"])
            await self._store.touch_model(connection, model["id"], self._clock.now())
            row = await self._store.get_version(connection, model["id"], request.version)
            if row is None:
                raise VersionNotFound(f"{request.model} has no version {request.version}")
            if row["state"] not in CALLABLE:
                raise FailedPrecondition("an alias names a published version", reason="VERSION_STATE")
            await self._store.set_alias(connection, model["id"], request.alias, request.version)
            await self._changed(connection, model, published=bool(model["latest_version"]))
        return registry_pb2.SetAliasResponse(model=request.model, alias=request.alias, version=request.version)


def _check_samples(request: registry_pb2.CreateVersionRequest) -> None:
    found: list[Violation] = []
    for i, sample in enumerate(request.samples):
        try:
            body = json.loads(sample.request_json)
        except (ValueError, RecursionError) as e:
            found.append(Violation(f"samples[{i}].request_json", f"is not JSON: {e}"))
            continue
        kinds = (("inputs", list), ("messages", list), ("prompt", str))
        if not isinstance(body, dict) or not any(isinstance(body.get(name), kind) for name, kind in kinds):
            problem = 'must be an object with a list "inputs" or "messages", or a text "prompt"'
            found.append(Violation(f"samples[{i}].request_json", problem))
    for i, spec in enumerate([*request.signature.inputs, *request.signature.outputs]):
        if not spec.name or not spec.datatype:
            found.append(Violation(f"signature[{i}]", "needs a name and a datatype"))
    if found:
        raise InvalidFields(violations=found)


def _check_settings(settings: V.InferenceSettings) -> None:
    found: list[Violation] = []
    for i, rows in enumerate(settings.preferred_batch_sizes):
        if rows > settings.max_batch_size:
            problem = f"must be at most max_batch_size, {settings.max_batch_size}"
            found.append(Violation(f"settings.preferred_batch_sizes[{i}]", problem))
    if settings.default_priority_level > settings.priority_levels:
        problem = f"must be at most priority_levels, {settings.priority_levels}"
        found.append(Violation("settings.default_priority_level", problem))
    if found:
        raise InvalidFields(violations=found)
