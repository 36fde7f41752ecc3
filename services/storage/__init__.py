"""Bytes: resumable uploads, and artifacts found by their SHA-256 in a folder or an object store.
What the bytes mean, and whether they are fit to be served, is the registry's."""

from mercat.storage.v1 import storage_pb2_grpc

from services.common.personal.tasks import PersonTasks
from services.common.service import Deps, Service
from services.storage.blobs import Blobs
from services.storage.objects import Objects, ObjectServicer
from services.storage.personal import StorageData
from services.storage.service import ArtifactServicer, StorageServicer
from services.storage.spool import Spool
from services.storage.store import Store


async def build(deps: Deps) -> Service:
    settings = deps.settings
    store, blobs, spool = Store(), Blobs.open(settings.storage_url, settings.home), Spool(settings.home / "uploads")
    objects = Objects.open(settings.storage_url, settings.home)
    storage = StorageServicer(deps.database, store, blobs, spool, deps.clock)
    data = StorageData(deps.database, blobs, spool)
    return Service(
        "storage",
        registrations=[
            (storage_pb2_grpc.add_StorageServiceServicer_to_server, storage),
            (
                storage_pb2_grpc.add_ArtifactServiceServicer_to_server,
                ArtifactServicer(deps.database, store, blobs, spool, data, deps.clock),
            ),
            (storage_pb2_grpc.add_ObjectServiceServicer_to_server, ObjectServicer(objects)),
        ],
        tasks=[storage.sweep, *PersonTasks(deps, "storage", data).tasks],
    )
