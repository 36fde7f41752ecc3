"""Artifacts for Mercat's own services, whoever owns them."""

from collections.abc import AsyncIterator

from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import DataLoss, InvalidFields, NotFound, Violation
from services.common.rpc.context import Context
from services.storage.blobs import Blobs
from services.storage.personal import StorageData
from services.storage.shelf import Shelf
from services.storage.spool import Spool
from services.storage.store import Row, Store


class ArtifactNotFound(NotFound, reason="ARTIFACT_NOT_FOUND"): ...


class ArtifactServicer(storage_pb2_grpc.ArtifactServiceServicer):
    """Serves `mercat.storage.v1.ArtifactService` to the other services."""

    def __init__(
        self, database: Database, store: Store, blobs: Blobs, spool: Spool, shelf: Shelf, data: StorageData,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._blobs = blobs
        self._spool = spool
        self._shelf = shelf
        self._data = data
        self._clock = clock

    async def StatArtifact(
        self, request: storage_pb2.StatArtifactRequest, context: Context
    ) -> storage_pb2.StatArtifactResponse:
        async with self._database.transaction() as connection:
            await self._store.use_artifact(connection, request.digest, self._clock.now())
        row = await self._get(request.digest, request.org_id)
        return storage_pb2.StatArtifactResponse(
            digest=row["digest"], size_bytes=row["size_bytes"], filename=row["filename"]
        )

    async def FetchArtifact(
        self, request: storage_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[storage_pb2.FetchArtifactResponse]:
        row = await self._get(request.digest)
        async for piece in self._blobs.read_whole(request.digest, row["size_bytes"]):
            yield storage_pb2.FetchArtifactResponse(data=piece)

    async def DropArtifacts(
        self, request: storage_pb2.DropArtifactsRequest, context: Context
    ) -> storage_pb2.DropArtifactsResponse:
        await self._data.drop(list(request.digests), [])
        return storage_pb2.DropArtifactsResponse()

    async def StoreArtifact(
        self, requests: AsyncIterator[storage_pb2.StoreArtifactRequest], context: Context
    ) -> storage_pb2.StoreArtifactResponse:
        first = await anext(requests, None)
        if first is None or not first.digest:
            raise InvalidFields(violations=[Violation("digest", "is required in the first message")])

        async def chunks() -> AsyncIterator[bytes]:
            yield first.data
            async for request in requests:
                yield request.data

        # By its digest: what a process that died has left is written over by the next that stores the same.
        name = first.digest.replace(":", "-")
        with self._spool.claim(first.digest):
            self._spool.remove(name)
            try:
                held = await self._spool.append(name, 0, first.size_bytes, chunks())
                found = await self._spool.digest(name)
                if (held, found) != (first.size_bytes, first.digest):
                    raise DataLoss(f"{held} bytes that are {found} arrived", reason="ARTIFACT_CORRUPT")
                await self._shelf.put(found, self._spool.path(name), held)
            finally:
                self._spool.remove(name)
        return storage_pb2.StoreArtifactResponse(digest=found, size_bytes=held)

    async def _get(self, digest: str, org_id: str = "") -> Row:
        async with self._database.connection() as connection:
            row = await self._store.get_artifact(connection, digest, org_id)
        if row is None:
            raise ArtifactNotFound("no such artifact is stored")
        return row
