"""Uploads and downloads.

An upload's bytes are spooled to disk, checked, copied to the store and only then named by a row; a process that dies
between any two of these leaves something that the same call, made again, completes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

from google.api import httpbody_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common import audit, ids
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidFields,
    MercatError,
    NotFound,
    OutOfRange,
    Violation,
)
from services.common.rpc.context import Context, caller
from services.storage.blobs import Blobs
from services.storage.personal import StorageData
from services.storage.spool import Spool
from services.storage.store import Row, Store

log = logging.getLogger(__name__)
_LIFETIME = timedelta(hours=24)
_BINARY = "application/octet-stream"


class UploadNotFound(NotFound, reason="UPLOAD_NOT_FOUND"): ...


class ArtifactNotFound(NotFound, reason="ARTIFACT_NOT_FOUND"): ...


class StorageServicer(storage_pb2_grpc.StorageServiceServicer):
    """Serves `mercat.storage.v1.StorageService`."""

    def __init__(self, database: Database, store: Store, blobs: Blobs, spool: Spool, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._blobs = blobs
        self._spool = spool
        self._clock = clock

    async def CreateUpload(
        self, request: storage_pb2.CreateUploadRequest, context: Context
    ) -> storage_pb2.CreateUploadResponse:
        org_id, now = caller().org_id, self._clock.now()
        async with self._database.transaction() as connection:
            known = await self._store.get_artifact(connection, request.digest, org_id)
            if known is not None and known["size_bytes"] != request.size_bytes:
                problem = Violation("size_bytes", f"your artifact of this digest has {known['size_bytes']} bytes")
                raise InvalidFields(violations=[problem])
            row = await self._store.add_upload(
                connection, upload_id=ids.new("upl"), org_id=org_id, filename=request.filename,
                size_bytes=request.size_bytes, digest=request.digest, complete=known is not None, now=now,
                expires_at=now + _LIFETIME,
            )  # fmt: skip
        return storage_pb2.CreateUploadResponse(upload=self._upload(row))

    async def WriteUpload(
        self, requests: AsyncIterator[storage_pb2.WriteUploadRequest], context: Context
    ) -> storage_pb2.WriteUploadResponse:
        first = await anext(requests, None)
        if first is None or not first.upload_id:
            raise InvalidFields(violations=[Violation("upload_id", "is required in the first message")])
        row = await self._own(first.upload_id)
        if row["complete"]:
            raise FailedPrecondition("this upload is complete already", reason="UPLOAD_COMPLETE")

        async def chunks() -> AsyncIterator[bytes]:
            yield first.chunk.data
            async for request in requests:
                yield request.chunk.data

        await self._spool.append(row["id"], first.offset, row["size_bytes"], chunks())
        return storage_pb2.WriteUploadResponse(upload=self._upload(row))

    async def GetUpload(self, request: storage_pb2.GetUploadRequest, context: Context) -> storage_pb2.GetUploadResponse:
        return storage_pb2.GetUploadResponse(upload=self._upload(await self._own(request.upload_id)))

    async def CompleteUpload(
        self, request: storage_pb2.CompleteUploadRequest, context: Context
    ) -> storage_pb2.CompleteUploadResponse:
        audit.about("upload", request.upload_id)
        with self._spool.claim(request.upload_id):
            row = await self._own(request.upload_id)
            if not row["complete"]:
                row = await self._complete(row)
        return storage_pb2.CompleteUploadResponse(upload=self._upload(row))

    async def _complete(self, row: Row) -> Row:
        held = self._spool.offset(row["id"])
        if held < row["size_bytes"]:
            raise FailedPrecondition(
                f"{held} of {row['size_bytes']} bytes have arrived; send the rest first",
                reason="UPLOAD_INCOMPLETE", metadata={"offset": str(held)},
            )  # fmt: skip
        found = await self._spool.digest(row["id"])
        if found != row["digest"]:
            self._spool.remove(row["id"])
            raise DataLoss(
                f"the bytes that arrived are {found}, not {row['digest']}; send them again from the start",
                reason="UPLOAD_CORRUPT",
            )
        await self._blobs.put(row["digest"], self._spool.path(row["id"]))
        async with self._database.transaction() as connection:
            await self._store.add_artifact(
                connection, digest=row["digest"], size_bytes=row["size_bytes"], org_id=row["org_id"],
                filename=row["filename"], now=self._clock.now(),
            )  # fmt: skip
            row = await self._store.complete_upload(connection, row["id"])
        self._spool.remove(row["id"])
        return row

    async def DownloadArtifact(
        self, request: storage_pb2.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[storage_pb2.DownloadArtifactResponse]:
        async with self._database.connection() as connection:
            row = await self._store.get_artifact(connection, request.digest, caller().org_id)
        if row is None:
            raise ArtifactNotFound("your organisation has stored no such artifact")
        size: int = row["size_bytes"]
        if request.offset > size:
            raise OutOfRange(f"the artifact has {size} bytes", reason="RANGE_INVALID", metadata={"size": str(size)})
        length = min(request.length or size, size - request.offset)
        async for piece in self._blobs.read(request.digest, request.offset, length):
            yield storage_pb2.DownloadArtifactResponse(chunk=httpbody_pb2.HttpBody(content_type=_BINARY, data=piece))

    async def _own(self, upload_id: str) -> Row:
        async with self._database.connection() as connection:
            row = await self._store.get_upload(connection, upload_id, caller().org_id)
        if row is None:
            raise UploadNotFound("you have no such upload; it may have expired")
        return row

    def _upload(self, row: Row) -> storage_pb2.Upload:
        complete = row["complete"]
        upload = storage_pb2.Upload(
            upload_id=row["id"], size_bytes=row["size_bytes"], digest=row["digest"], filename=row["filename"],
            state=storage_pb2.Upload.STATE_COMPLETE if complete else storage_pb2.Upload.STATE_OPEN,
            offset=row["size_bytes"] if complete else self._spool.offset(row["id"]),
        )  # fmt: skip
        upload.created_at.FromDatetime(row["created_at"])
        upload.expires_at.FromDatetime(row["expires_at"])
        return upload

    async def sweep(self) -> None:
        """Forgets expired uploads and their bytes, every ten minutes."""
        while True:
            try:
                async with self._database.transaction() as connection:
                    expired = await self._store.take_expired(connection, self._clock.now(), 1000)
                for upload_id in expired:
                    self._spool.remove(upload_id)
            except MercatError as e:
                log.warning("expired uploads stay for now: %s", e)
            await asyncio.sleep(600)


class ArtifactServicer(storage_pb2_grpc.ArtifactServiceServicer):
    """Serves `mercat.storage.v1.ArtifactService` to the other services."""

    def __init__(
        self, database: Database, store: Store, blobs: Blobs, spool: Spool, data: StorageData, clock: Clock
    ) -> None:
        self._data = data
        self._database = database
        self._store = store
        self._blobs = blobs
        self._spool = spool
        self._clock = clock

    async def StatArtifact(
        self, request: storage_pb2.StatArtifactRequest, context: Context
    ) -> storage_pb2.StatArtifactResponse:
        row = await self._get(request.digest, request.org_id)
        return storage_pb2.StatArtifactResponse(
            digest=row["digest"], size_bytes=row["size_bytes"], filename=row["filename"]
        )

    async def FetchArtifact(
        self, request: storage_pb2.FetchArtifactRequest, context: Context
    ) -> AsyncIterator[storage_pb2.FetchArtifactResponse]:
        row = await self._get(request.digest)
        async for piece in self._blobs.read(request.digest, 0, row["size_bytes"]):
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
                await self._blobs.put(found, self._spool.path(name))
            finally:
                self._spool.remove(name)
        async with self._database.transaction() as connection:
            await self._store.add_artifact(
                connection, digest=found, size_bytes=held, org_id="", filename="", now=self._clock.now()
            )
        return storage_pb2.StoreArtifactResponse(digest=found, size_bytes=held)

    async def _get(self, digest: str, org_id: str = "") -> Row:
        async with self._database.connection() as connection:
            row = await self._store.get_artifact(connection, digest, org_id)
        if row is None:
            raise ArtifactNotFound("no such artifact is stored")
        return row
