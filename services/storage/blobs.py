"""Artifacts by digest, in a folder or an object store, through obstore."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import obstore
from obstore.store import LocalStore, from_url

from services.common.errors import NotFound, Unavailable

PIECE = 1024 * 1024  # bytes of one piece of a download


class Blobs:
    """Immutable blobs; writing one that is there changes nothing."""

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str, home: Path) -> "Blobs":
        """`file:///…`, `s3://bucket/…` and whatever else obstore knows; empty: `artifacts` in the home. An object
        store's credentials and endpoint come from its own environment variables (`AWS_…`)."""
        if not url or url.startswith("file://"):
            folder = Path(url.removeprefix("file://")) if url else home / "artifacts"
            return cls(LocalStore(folder, mkdir=True))
        return cls(from_url(url))

    @staticmethod
    def _key(digest: str) -> str:
        name = digest.removeprefix("sha256:")
        return f"sha256/{name[:2]}/{name}"

    async def exists(self, digest: str) -> bool:
        try:
            await obstore.head_async(self._store, self._key(digest))
        except FileNotFoundError:
            return False
        return True

    async def put(self, digest: str, path: Path) -> None:
        """Stores a file, in parts where it is large; it is there whole or not at all. Raises Unavailable."""
        try:
            if not await self.exists(digest):
                await obstore.put_async(self._store, self._key(digest), path)
        except OSError as e:
            raise Unavailable("the artifact store is not available", reason="STORAGE_UNAVAILABLE", retry_after=2) from e

    async def remove(self, digest: str) -> None:
        """Raises Unavailable; one that is not there is gone."""
        try:
            await obstore.delete_async(self._store, self._key(digest))
        except FileNotFoundError:
            return
        except OSError as e:
            raise Unavailable("the artifact store is not available", reason="STORAGE_UNAVAILABLE", retry_after=2) from e

    async def read(self, digest: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from `offset` on, in pieces. Raises NotFound or Unavailable."""
        at, end = offset, offset + length
        try:
            while at < end:
                until = min(at + PIECE, end)
                yield bytes(await obstore.get_range_async(self._store, self._key(digest), start=at, end=until))
                at = until
        except FileNotFoundError:
            raise NotFound("the artifact's bytes are gone", reason="ARTIFACT_NOT_FOUND") from None
        except OSError as e:
            raise Unavailable("the artifact store is not available", reason="STORAGE_UNAVAILABLE", retry_after=2) from e
