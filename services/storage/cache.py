"""Artifacts of an object store that were read lately, in a folder of a bounded size."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

_PART = ".part"
_LEFT = 24 * 3600  # seconds after which a process that wrote a part has died


class Cache:
    """What was not read for longest goes first. `most`: bytes of all files together; 0: none are kept."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._coming = 0  # bytes of what is being written
        for part in folder.glob(f"*{_PART}"):
            if part.stat().st_mtime < time.time() - _LEFT:
                part.unlink(missing_ok=True)

    def find(self, digest: str) -> Path | None:
        """The file of an artifact, which stays readable while it is open; None when it is not here."""
        path = self._path(digest)
        try:
            os.utime(path)
        except OSError:
            return None
        return path

    async def keeping(self, digest: str, size: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Hands the pieces of a whole artifact on, and keeps them when they were that artifact. A disk that is full, or
        broken, keeps nobody from reading."""
        if size > self._most or not await asyncio.to_thread(self._make_room, size):
            async for piece in pieces:
                yield piece
            return
        part = self._folder / f"{secrets.token_hex(8)}{_PART}"
        self._coming += size
        found = hashlib.sha256()
        try:
            writing = part.open("xb")
            try:
                async for piece in pieces:
                    found.update(piece)
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(writing.write, piece)
                    yield piece
            finally:
                with contextlib.suppress(OSError):
                    writing.close()
            if f"sha256:{found.hexdigest()}" == digest and part.stat().st_size == size:
                part.replace(self._path(digest))
        finally:
            self._coming -= size
            part.unlink(missing_ok=True)

    def forget(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")

    def _make_room(self, size: int) -> bool:
        """Removes files until one of this size fits beside those that are being written; answers whether it does."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole = [(path, path.stat()) for path in self._folder.iterdir() if path.suffix != _PART]
        except OSError:
            return False
        held = sum(status.st_size for _, status in whole) + self._coming
        for path, status in sorted(whole, key=lambda file: file[1].st_mtime):
            if held + size <= self._most:
                break
            path.unlink(missing_ok=True)
            held -= status.st_size
        return held + size <= self._most
