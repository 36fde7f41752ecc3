"""Versions: create and see. How they move through their life is in `service_lifecycle.py`."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc
from mercat.storage.v1 import storage_pb2_grpc

from services.common import audit, ids, pages
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import AlreadyExists, InvalidFields, ModelNotFound, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller
from services.registry import files, review, visibility
from services.registry.lifecycle import SEEN
from services.registry.lineage.noting import note
from services.registry.lineage.store import LineageStore
from services.registry.provenance.attested import take
from services.registry.provenance.store import KeyStore
from services.registry.repository import Repository
from services.registry.rows import version_of
from services.registry.steps import VersionNotFound
from services.registry.store import Store

V = registry_pb2
_DECISIONS = 100  # that a review shows of those before


class VersionExists(AlreadyExists, reason="VERSION_EXISTS"): ...


class VersionMethods(registry_pb2_grpc.RegistryServiceServicer):
    """The part of RegistryService that is about versions; `RegistryServicer` adds the rest."""

    _database: Database
    _store: Store
    _clock: Clock
    _visible: Callable[[Connection, str], Any]
    _owned: Callable[[Connection, str], Any]

    def __init__(
        self, control: InternalChannel, wake: Callable[[], None], repository: Repository, undelete: timedelta,
        keys: KeyStore, lineage: LineageStore,
    ) -> None:  # fmt: skip
        self._keys = keys
        self._lineage = lineage
        self._undelete = undelete
        self._billing = billing_pb2_grpc.LeaseServiceStub(control)
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
        for sample in document.samples:
            sample.ClearField("response_json")  # only validation says what it gave
        for name in request.labels:
            document.labels[name].CopyFrom(request.labels[name])
        await files.describe(self._storage, request.files, principal.org_id, document)
        try:
            async with self._database.transaction() as connection:
                if request.HasField("provenance") or request.attestations:
                    keys = await self._keys.trusted_keys(connection, principal.org_id)
                    take(request, keys, principal.handle, document)
                await self._store.add_version(
                    connection, id=version_id, model_id=model["id"], version=request.version,
                    state=V.VERSION_STATE_VALIDATING, framework=request.framework, digest=request.digest,
                    size_bytes=artifact.size_bytes, signature=request.signature.SerializeToString(),
                    document=document.SerializeToString(deterministic=True), release_notes=request.release_notes,
                    now=self._clock.now(),
                )  # fmt: skip
                for file in document.files:
                    await self._store.add_version_file(connection, version_id, file.digest)
                said = document.card_metadata
                await note(connection, self._store, self._lineage, model, request.version, said)
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
        if row is None or not (row["state"] in SEEN or visibility.sees_all(model)):
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
        for version in versions:  # together they would outgrow a message
            for attestation in version.attestations:
                attestation.ClearField("envelope")
            for sample in version.samples:
                sample.ClearField("response_json")
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

    async def GetVersionReview(
        self, request: registry_pb2.GetVersionReviewRequest, context: Context
    ) -> registry_pb2.GetVersionReviewResponse:
        async with self._database.connection() as connection:
            model = await self._visible(connection, request.model)
            if not visibility.sees_all(model):
                raise ModelNotFound(f"you have no model {request.model}")
            row = await self._store.get_version(connection, model["id"], request.version)
            if row is None:
                raise VersionNotFound(f"{request.model} has no version {request.version}")
            last = await self._store.last_published(connection, model["id"], row["id"])
            decided = await self._store.list_decisions(connection, row["id"], _DECISIONS)
        asked = billing_pb2.ResolvePriceRequest(model_id=model["id"], publisher_org_id=model["org_id"])
        priced = await self._billing.ResolvePrice(asked, timeout=5)
        version = version_of(row, request.model)
        base = version_of(last, request.model) if last is not None else None
        shown = registry_pb2.VersionReview(
            version=version, base=base.version if base else "", changes=review.changes(base, version),
            card_diff=review.card_diff(base, version),
            checks=review.checks(base, version, priced.price, described=bool(model["description"])),
            price=priced.price, upcoming_prices=priced.upcoming,
        )  # fmt: skip
        for decision in decided:
            made = shown.decisions.add(approved=decision["approved"], reason=decision["reason"])
            made.created_at.FromDatetime(decision["created_at"])
        return registry_pb2.GetVersionReviewResponse(review=shown)


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
