"""Artifacts by digest, in a folder or an object store, through obstore."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import LocalStore, from_url

from services.common.errors import FailedPrecondition, NotFound, Unavailable
from services.storage.cache import Cache

_FOLDER, _NAME = "sha256", re.compile("[0-9a-f]{64}")
PIECE = 1024 * 1024  # bytes of one piece of a download
# Of a file that is sent to an object store: S3 takes 10,000 parts at most, and the largest artifact has 50 GiB.
_PART, _PARTS_AT_ONCE = 16 * 1024 * 1024, 4  # bytes; so many are held in memory


class Blobs:
    """Immutable blobs; writing one that is there changes nothing."""

    def __init__(self, store: Any, folder: Path | None = None, cache: Cache | None = None) -> None:
        self._store = store
        self._folder = folder
        self._cache = cache

    @classmethod
    def open(cls, url: str, home: Path, cache_bytes: int = 0) -> "Blobs":
        """`file:///…`, `s3://bucket/…` and whatever else obstore knows; empty: `artifacts` in the home. An object
        store's credentials and endpoint come from its own environment variables (`AWS_…`); of what is read from one,
        up to `cache_bytes` are kept in the home."""
        if not url or url.startswith("file://"):
            folder = Path(url.removeprefix("file://")) if url else home / "artifacts"
            return cls(LocalStore(folder, mkdir=True), folder)
        return cls(from_url(url), cache=Cache(home / "artifact-cache", cache_bytes))

    @staticmethod
    def _key(digest: str) -> str:
        name = digest.removeprefix("sha256:")
        return f"{_FOLDER}/{name[:2]}/{name}"

    async def exists(self, digest: str) -> bool:
        """Raises Unavailable."""
        try:
            await obstore.head_async(self._store, self._key(digest))
        except FileNotFoundError:
            return False
        except OSError as e:
            raise _away() from e
        return True

    async def put(self, digest: str, path: Path) -> None:
        """Stores a file, in parts where it is large; it is there whole or not at all. A folder of the same file system
        gets another name of the file, which must not be changed any more. Raises Unavailable."""
        try:
            if await self.exists(digest):
                return
            if self._folder is not None and await asyncio.to_thread(_linked, path, self._folder / self._key(digest)):
                return
            await obstore.put_async(
                self._store, self._key(digest), path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE
            )
        except OSError as e:
            raise _away() from e

    async def read(self, digest: str, offset: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes from `offset` on, in pieces. Raises NotFound or Unavailable."""
        path = self._cache.find(digest) if self._cache is not None else None
        pieces = _of_file(path, offset, length) if path is not None else self._of_store(digest, offset, length)
        async for piece in pieces:
            yield piece

    async def read_whole(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """All of it, in pieces, as those read it who will ask again. Raises NotFound or Unavailable."""
        pieces = self.read(digest, 0, size)
        if self._cache is not None and self._cache.find(digest) is None:
            pieces = self._cache.keeping(digest, size, pieces)
        async for piece in pieces:
            yield piece

    async def _of_store(self, digest: str, offset: int, length: int) -> AsyncIterator[bytes]:
        at, end = offset, offset + length
        try:
            while at < end:
                until = min(at + PIECE, end)
                yield bytes(await obstore.get_range_async(self._store, self._key(digest), start=at, end=until))
                at = until
        except FileNotFoundError:
            raise NotFound("the artifact's bytes are gone", reason="ARTIFACT_NOT_FOUND") from None
        except OSError as e:
            raise _away() from e

    async def link(self, digest: str, lifetime: timedelta) -> str:
        """An address from which anybody may read an artifact meanwhile. Raises FailedPrecondition where there is no
        object store to give one, and Unavailable."""
        if self._folder is not None:
            raise FailedPrecondition(
                "artifacts lie in a folder here, to which no address leads; use DownloadArtifact",
                reason="DOWNLOAD_URL_UNSUPPORTED",
            )
        try:
            return str(await obstore.sign_async(self._store, "GET", self._key(digest), lifetime))
        except OSError as e:
            raise _away() from e

    async def listed(self, older: timedelta) -> AsyncIterator[list[str]]:
        """Digests of all that is older than that, by what the store says itself. Raises Unavailable."""
        until = datetime.now(UTC) - older
        try:
            async for page in obstore.list(self._store, _FOLDER, chunk_size=1000):
                names = [str(o["path"]).rpartition("/")[2] for o in page if o["last_modified"] < until]
                yield [f"sha256:{name}" for name in names if _NAME.fullmatch(name)]
        except OSError as e:
            raise _away() from e

    async def remove(self, digest: str) -> None:
        """Removes what may be gone already. Raises Unavailable."""
        if self._cache is not None:
            self._cache.forget(digest)
        try:
            await obstore.delete_async(self._store, self._key(digest))
        except FileNotFoundError:
            return
        except OSError as e:
            raise _away() from e


def _away() -> Unavailable:
    return Unavailable("the artifact store is not available", reason="STORAGE_UNAVAILABLE", retry_after=2)


async def _of_file(path: Path, offset: int, length: int) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        left = length
        while left > 0 and (piece := await asyncio.to_thread(file.read, min(PIECE, left))):
            left -= len(piece)
            yield piece


def _linked(path: Path, target: Path) -> bool:
    """Whether a file could be given another name, which outlives a loss of power. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(path)
    except FileExistsError:
        return True
    except OSError:  # another file system, or one without links
        return False
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
