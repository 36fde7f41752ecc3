"""The steps of a version's life, by its owner and by platform admins."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from mercat.auth.v1 import auth_pb2
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc

from services.common import audit, ids, outbox
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition, InvalidFields, ModelNotFound, Violation
from services.common.rpc.context import Context, caller
from services.registry import lifecycle, references
from services.registry.lifecycle import CALLABLE, SERVED, Actor
from services.registry.repository import Repository
from services.registry.rows import version_of
from services.registry.steps import Steps, VersionNotFound, standing_of, told
from services.registry.store import Row, Store

V = registry_pb2


class SamplesNotRun(FailedPrecondition, reason="SAMPLES_NOT_RUN"):
    """The check that a version's samples work has not passed."""


class LifecycleMethods(registry_pb2_grpc.RegistryServiceServicer):
    """The part of RegistryService that moves versions and aliases; `RegistryServicer` adds the rest."""

    _database: Database
    _store: Store
    _clock: Clock
    _steps: Steps
    _repository: Repository
    _undelete: timedelta
    _visible: Callable[[Connection, str], Any]
    _owned: Callable[[Connection, str], Any]
    _changed: Callable[..., Any]

    async def _step(
        self, step: str, name: str, number: str, note: str | None = None, actor: Actor = Actor.OWNER
    ) -> registry_pb2.Version:
        """Raises ModelNotFound, VersionNotFound, WrongState."""
        async with self._database.transaction() as connection:
            model = await (self._owned if actor is Actor.OWNER else self._visible)(connection, name)
            row = await self._steps.lock(connection, model, number, step)
            audit.about("version", row["id"])
            if step == "undelete":
                lifecycle.undeletable(standing_of(row), row["deleted_at"], self._clock.now(), self._undelete)
            # What was said of one that is in service would be seen by all once the model is public.
            said = "" if step == "approve" and row["state"] in SERVED else note
            row = await self._steps.take(connection, model, row, step, actor, note=said)
            if step in ("submit", "publish"):
                _check_samples(row)
            if step == "release":  # what it did before is not held against it again
                await self._store.forget_crashes(connection, row["id"])
            if step == "publish":
                await outbox.add(connection, event_pb2.VersionPublished(**told(row, model)))
            if step in ("approve", "reject"):
                await self._decided(connection, model, row, step == "approve", note or "")
        return version_of(row, name)

    async def _decided(self, connection: Connection, model: Row, row: Row, approved: bool, reason: str) -> None:
        await self._store.add_decision(
            connection, id=ids.new("rvd"), version_id=row["id"], user_id=caller().user_id, approved=approved,
            reason=reason, now=self._clock.now(),
        )  # fmt: skip
        await outbox.add(
            connection, event_pb2.VersionReviewed(**told(row, model), approved=approved, reason=reason)
        )  # fmt: skip

    async def SubmitVersion(
        self, request: registry_pb2.SubmitVersionRequest, context: Context
    ) -> registry_pb2.SubmitVersionResponse:
        version = await self._step("submit", request.model, request.version, "")
        return registry_pb2.SubmitVersionResponse(version=version)

    async def ApproveVersion(
        self, request: registry_pb2.ApproveVersionRequest, context: Context
    ) -> registry_pb2.ApproveVersionResponse:
        version = await self._step("approve", request.model, request.version, request.reason, Actor.ADMIN)
        return registry_pb2.ApproveVersionResponse(version=version)

    async def RejectVersion(
        self, request: registry_pb2.RejectVersionRequest, context: Context
    ) -> registry_pb2.RejectVersionResponse:
        version = await self._step("reject", request.model, request.version, request.reason, Actor.ADMIN)
        return registry_pb2.RejectVersionResponse(version=version)

    async def PublishVersion(
        self, request: registry_pb2.PublishVersionRequest, context: Context
    ) -> registry_pb2.PublishVersionResponse:
        # Before it can be called, and outside the transaction: a large file takes its time.
        async with self._database.connection() as connection:
            model = await self._owned(connection, request.model)
            row = await self._store.get_version(connection, model["id"], request.version)
        if row is not None and lifecycle.may("publish", standing_of(row), Actor.OWNER):
            await self._repository.write(self._repository.deployment(model, row))
        # What was said in review is between reviewer and owner.
        version = await self._step("publish", request.model, request.version, "")
        return registry_pb2.PublishVersionResponse(version=version)

    async def ReleaseVersion(
        self, request: registry_pb2.ReleaseVersionRequest, context: Context
    ) -> registry_pb2.ReleaseVersionResponse:
        version = await self._step("release", request.model, request.version, actor=Actor.ADMIN)
        return registry_pb2.ReleaseVersionResponse(version=version)

    async def DeleteVersion(
        self, request: registry_pb2.DeleteVersionRequest, context: Context
    ) -> registry_pb2.DeleteVersionResponse:
        return registry_pb2.DeleteVersionResponse(version=await self._step("delete", request.model, request.version))

    async def UndeleteVersion(
        self, request: registry_pb2.UndeleteVersionRequest, context: Context
    ) -> registry_pb2.UndeleteVersionResponse:
        version = await self._step("undelete", request.model, request.version)
        return registry_pb2.UndeleteVersionResponse(version=version)

    async def DeprecateVersion(
        self, request: registry_pb2.DeprecateVersionRequest, context: Context
    ) -> registry_pb2.DeprecateVersionResponse:
        sunset_at = request.sunset_at.ToDatetime(UTC) if request.HasField("sunset_at") else None
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            row = await self._steps.lock(connection, model, request.version, "deprecate")
            audit.about("version", row["id"])
            before = version_of(row, request.model)
            successor = await self._successor(connection, model, row, request.successor)
            noted = row["sunset_at"]
            row = await self._steps.take(connection, model, row, "deprecate", Actor.OWNER)
            _check_sunset(sunset_at, noted, self._clock.now())
            await self._store.deprecate_version(connection, row["id"], sunset_at, successor, request.reason)
            event = event_pb2.VersionDeprecated(**told(row, model), successor=successor, reason=request.reason)
            if request.HasField("sunset_at"):
                event.sunset_at.CopyFrom(request.sunset_at)
            await outbox.add(connection, event)
            moved = await self._store.get_version(connection, model["id"], request.version)
            assert moved is not None
            version = version_of(moved, request.model)
            audit.changed(before.deprecation, version.deprecation)
        return registry_pb2.DeprecateVersionResponse(version=version)

    async def _successor(self, connection: Connection, model: Row, row: Row, text: str) -> str:
        """As `publisher/model@1.5.0` or `publisher/model`. Raises InvalidFields for what nobody can call."""
        if not text:
            return ""
        whole = text if "/" in text else f"{model['publisher']}/{model['name']}@{text}"
        wanted = references.parse(whole, "successor")
        if wanted.alias:
            raise _bad("successor", "names a version or a model; an alias may lead elsewhere tomorrow")
        found = await self._store.get_model(connection, wanted.publisher, wanted.name)
        number = wanted.version or (found["latest_version"] if found else "")
        version = await self._store.get_version(connection, found["id"], number) if found and number else None
        if version is None or version["state"] != V.VERSION_STATE_PUBLISHED or version["yanked_by"]:
            raise _bad("successor", f"{whole} is not published")
        if wanted.version and version["id"] == row["id"]:
            raise _bad("successor", "is this version itself")
        return whole

    async def YankVersion(
        self, request: registry_pb2.YankVersionRequest, context: Context
    ) -> registry_pb2.YankVersionResponse:
        version = await self._take_back("yank", request.model, request.version, request.reason)
        return registry_pb2.YankVersionResponse(version=version)

    async def UnyankVersion(
        self, request: registry_pb2.UnyankVersionRequest, context: Context
    ) -> registry_pb2.UnyankVersionResponse:
        return registry_pb2.UnyankVersionResponse(
            version=await self._take_back("unyank", request.model, request.version, "")
        )

    async def _take_back(self, step: str, name: str, number: str, reason: str) -> registry_pb2.Version:
        """By the owner, or a platform admin. Raises ModelNotFound, VersionNotFound, WrongState, StepDenied."""
        principal = caller()
        async with self._database.transaction() as connection:
            model = await self._visible(connection, name)
            actor = Actor.OWNER if principal.org_id == model["org_id"] else Actor.ADMIN
            if actor is Actor.ADMIN and principal.role != auth_pb2.ROLE_ADMIN:
                raise ModelNotFound(f"you have no model {name}")
            row = await self._steps.lock(connection, model, number, step)
            audit.about("version", row["id"])
            row = await self._steps.take(connection, model, row, step, actor, reason=reason)
            await outbox.add(
                connection, event_pb2.VersionYanked(**told(row, model), yanked=step == "yank", reason=reason)
            )  # fmt: skip
        return version_of(row, name)

    async def SetAlias(self, request: registry_pb2.SetAliasRequest, context: Context) -> registry_pb2.SetAliasResponse:
        async with self._database.transaction() as connection:
            model = await self._owned(connection, request.model)
            audit.about("model", model["id"])
            await self._store.touch_model(connection, model["id"], self._clock.now())
            row = await self._store.get_version(connection, model["id"], request.version)
            if row is None:
                raise VersionNotFound(f"{request.model} has no version {request.version}")
            if row["yanked_by"] or standing_of(row, self._clock.now()).state not in CALLABLE:
                raise FailedPrecondition("an alias names a published version", reason="VERSION_STATE")
            before = await self._store.get_alias(connection, model["id"], request.alias)
            await self._store.set_alias(connection, model["id"], request.alias, request.version)
            await self._changed(connection, model, published=bool(model["latest_version"]))
            made = registry_pb2.SetAliasResponse(model=request.model, alias=request.alias, version=request.version)
            was = registry_pb2.SetAliasResponse(model=request.model, alias=request.alias, version=before or "")
            audit.changed(was, made)
        return made


def _check_samples(row: Row) -> None:
    """Raises SamplesNotRun for a version that validation accepted before samples were run."""
    if row["sample_replies"] is None and V.Version.FromString(row["document"]).samples:
        raise SamplesNotRun("its samples were never run: push it as a new version, and validation runs them")


def _check_sunset(sunset_at: datetime | None, noted: datetime | None, now: datetime) -> None:
    """Raises InvalidFields for one that has come, or comes before the one that callers were told."""
    if sunset_at is None:
        return
    if sunset_at <= now:
        raise _bad("sunset_at", "must be in the future")
    if noted is not None and sunset_at < noted:
        raise _bad("sunset_at", f"was announced for {noted:%Y-%m-%dT%H:%M:%SZ}; it can only be put off")


def _bad(field: str, problem: str) -> InvalidFields:
    return InvalidFields(violations=[Violation(field, problem)])
