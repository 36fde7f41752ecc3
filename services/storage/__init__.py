"""Bytes: resumable uploads, and artifacts found by their SHA-256 in a folder or an object store.
What the bytes mean, and whether they are fit to be served, is the registry's."""

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2
from mercat.storage.v1 import storage_pb2_grpc

from services.common.db import Connection
from services.common.events import consume
from services.common.service import Deps, Service
from services.storage.blobs import Blobs
from services.storage.objects import Objects, ObjectServicer
from services.storage.service import ArtifactServicer, StorageServicer
from services.storage.spool import Spool
from services.storage.store import Store


async def build(deps: Deps) -> Service:
    settings = deps.settings
    store, blobs, spool = Store(), Blobs.open(settings.storage_url, settings.home), Spool(settings.home / "uploads")
    objects = Objects.open(settings.storage_url, settings.home)
    storage = StorageServicer(deps.database, store, blobs, spool, deps.clock)

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
                ArtifactServicer(deps.database, store, blobs, spool, deps.clock),
            ),
            (storage_pb2_grpc.add_ObjectServiceServicer_to_server, ObjectServicer(objects)),
        ],
        tasks=[storage.sweep, moved],
    )
