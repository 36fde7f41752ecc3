"""Objects by name, which Mercat's own services keep for a while: no row names them, their service does."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc
from obstore.store import LocalStore, from_url

from services.common.errors import InvalidFields, NotFound, Unavailable, Violation
from services.common.rpc.context import Context
from services.storage.blobs import PIECE

_FOLDER = "objects"


class Objects:
    """A folder, or a prefix of an object store."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str, home: Path) -> "Objects":
        """`url` as for artifacts; empty: `artifacts` in the home. Objects lie beside them, below `objects/`."""
        if not url or url.startswith("file://"):
            folder = Path(url.removeprefix("file://")) if url else home / "artifacts"
            return cls(LocalStore(folder, mkdir=True, automatic_cleanup=True))
        return cls(from_url(url))

    async def put(self, name: str, pieces: AsyncIterator[bytes]) -> None:
        """Stores an object whole or, when `pieces` fails, not at all. Raises Unavailable."""
        try:
            await obstore.put_async(self._store, f"{_FOLDER}/{name}", pieces)
        except OSError as e:
            raise _away() from e

    async def get(self, name: str) -> AsyncIterator[bytes]:
        """An object's bytes in pieces of at most 1 MiB. Raises NotFound or Unavailable."""
        try:
            found = await obstore.get_async(self._store, f"{_FOLDER}/{name}")
            async for piece in found.stream(min_chunk_size=PIECE):
                for at in range(0, len(piece), PIECE):
                    yield bytes(memoryview(piece)[at : at + PIECE])
        except FileNotFoundError:
            raise NotFound("there is no object of this name", reason="OBJECT_NOT_FOUND") from None
        except OSError as e:
            raise _away() from e

    async def names(self, folder: str, most: int) -> list[str]:
        """What is in a folder, by name; of more than `most` the last ones, and all for 0. Raises Unavailable."""
        try:
            pages = [page async for page in obstore.list(self._store, f"{_FOLDER}/{folder}", chunk_size=1000)]
        except OSError as e:
            raise _away() from e
        found = sorted(str(o["path"]).removeprefix(f"{_FOLDER}/") for page in pages for o in page)
        return found[-most:]

    async def delete(self, folder: str) -> None:
        """Removes what is in a folder. Raises Unavailable."""
        try:
            async for found in obstore.list(self._store, f"{_FOLDER}/{folder}", chunk_size=1000):
                try:
                    await obstore.delete_async(self._store, [o["path"] for o in found])
                except FileNotFoundError:  # somebody else removes the same folder
                    continue
        except OSError as e:
            raise _away() from e


def _away() -> Unavailable:
    return Unavailable("the object store is not available", reason="STORAGE_UNAVAILABLE", retry_after=2)


class ObjectServicer(storage_pb2_grpc.ObjectServiceServicer):
    """Serves `mercat.storage.v1.ObjectService` to the other services."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def PutObject(
        self, requests: AsyncIterator[storage_pb2.PutObjectRequest], context: Context
    ) -> storage_pb2.PutObjectResponse:
        first = await anext(requests, None)
        if first is None or not first.name:
            raise InvalidFields(violations=[Violation("name", "is required in the first message")])

        async def pieces() -> AsyncIterator[bytes]:
            yield first.data
            async for request in requests:
                yield request.data

        await self._objects.put(first.name, pieces())
        return storage_pb2.PutObjectResponse()

    async def GetObject(
        self, request: storage_pb2.GetObjectRequest, context: Context
    ) -> AsyncIterator[storage_pb2.GetObjectResponse]:
        async for piece in self._objects.get(request.name):
            yield storage_pb2.GetObjectResponse(data=piece)

    async def ListObjects(
        self, request: storage_pb2.ListObjectsRequest, context: Context
    ) -> storage_pb2.ListObjectsResponse:
        return storage_pb2.ListObjectsResponse(names=await self._objects.names(request.folder, request.most))

    async def DeleteObjects(
        self, request: storage_pb2.DeleteObjectsRequest, context: Context
    ) -> storage_pb2.DeleteObjectsResponse:
        await self._objects.delete(request.folder)
        return storage_pb2.DeleteObjectsResponse()
