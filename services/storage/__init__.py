"""Bytes: resumable uploads, and artifacts found by their SHA-256 in a folder or an object store.
What the bytes mean, and whether they are fit to be served, is the registry's."""

from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2, registry_pb2_grpc
from mercat.storage.v1 import storage_pb2_grpc

from services.common.db import Connection
from services.common.events import consume
from services.common.personal.tasks import PersonTasks
from services.common.service import Deps, Service
from services.storage.artifacts import ArtifactServicer
from services.storage.blobs import Blobs
from services.storage.objects import Objects, ObjectServicer
from services.storage.personal import StorageData
from services.storage.service import StorageServicer
from services.storage.settings import StorageSettings
from services.storage.shelf import Shelf
from services.storage.spool import Spool
from services.storage.store import Store


async def build(deps: Deps) -> Service:
    settings = deps.settings
    assert isinstance(settings, StorageSettings)
    store, spool = Store(), Spool(settings.home / "uploads")
    blobs = Blobs.open(settings.storage_url, settings.home, settings.storage_cache_mb << 20)
    objects = Objects.open(settings.storage_url, settings.home)
    deployments = registry_pb2_grpc.DeploymentServiceStub(deps.control)

    async def needed(digests: Sequence[str]) -> set[str]:
        request = registry_pb2.ListNeededArtifactsRequest(digests=digests)
        return set((await deployments.ListNeededArtifacts(request)).digests)

    every, after = settings.storage_collect, timedelta(seconds=settings.storage_collect_after)
    shelf = Shelf(deps.database, store, blobs, deps.clock, needed, every, after)
    storage = StorageServicer(deps.database, store, blobs, spool, shelf, deps.clock)

    data = StorageData(deps.database, blobs, spool)

    async def share(connection: Connection, event: Message) -> None:
        assert isinstance(event, event_pb2.ModelMoved)
        await store.share_artifacts(connection, event.digests, event.to_org_id)

    async def moved() -> None:
        await consume(deps.events, deps.database, "moved-artifacts", [event_pb2.ModelMoved], share)

    return Service(
        "storage",
        registrations=[
            (storage_pb2_grpc.add_StorageServiceServicer_to_server, storage),
            (
                storage_pb2_grpc.add_ArtifactServiceServicer_to_server,
                ArtifactServicer(deps.database, store, blobs, spool, shelf, data, deps.clock),
            ),
            (storage_pb2_grpc.add_ObjectServiceServicer_to_server, ObjectServicer(objects)),
        ],
        tasks=[storage.sweep, shelf.collect, moved, *PersonTasks(deps, "storage", data).tasks],
    )
