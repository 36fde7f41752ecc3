"""Uploads under way, a file each. How much of one is held is the length of its file and nothing else."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

from services.common.errors import Aborted, InvalidFields, OutOfRange, Violation

MAX_CHUNK = 2 * 1024 * 1024  # bytes
_SYNC_EVERY = 16 * 1024 * 1024  # bytes


class Spool:
    """A folder of partial uploads, named by upload id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._claimed: set[str] = set()

    def path(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def offset(self, upload_id: str) -> int:
        """Bytes held."""
        try:
            return self.path(upload_id).stat().st_size
        except FileNotFoundError:
            return 0

    async def append(self, upload_id: str, offset: int, size: int, chunks: AsyncIterator[bytes]) -> int:
        """Appends chunks from `offset` on; what arrived before a break is kept.

        Returns:
            Bytes held, safely on disk.

        Raises:
            Aborted: the offset is not that of the upload, or somebody else is writing it.
            OutOfRange: there is more than `size`; nothing past it is kept.
        """
        with self.claim(upload_id):
            held = self.offset(upload_id)
            if offset != held:
                raise Aborted(
                    f"the upload goes on at byte {held}, not {offset}",
                    reason="UPLOAD_OFFSET", metadata={"offset": str(held)},
                )  # fmt: skip
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path(upload_id).open("ab") as file:
                try:
                    synced = held
                    async for chunk in chunks:
                        if len(chunk) > MAX_CHUNK:
                            raise InvalidFields(violations=[Violation("chunk.data", f"at most {MAX_CHUNK} bytes")])
                        if held + len(chunk) > size:
                            raise OutOfRange(f"more than the {size} bytes announced", reason="UPLOAD_TOO_LONG")
                        await asyncio.to_thread(file.write, chunk)
                        held += len(chunk)
                        if held - synced >= _SYNC_EVERY:
                            await asyncio.to_thread(_sync, file)
                            synced = held
                finally:
                    _sync(file)
        return held

    @contextmanager
    def claim(self, upload_id: str) -> Iterator[None]:
        """Keeps others away from an upload meanwhile. Raises Aborted when somebody has it."""
        if upload_id in self._claimed:
            raise Aborted("another call is at work on this upload", reason="UPLOAD_BUSY", retry_after=1)
        self._claimed.add(upload_id)
        try:
            yield
        finally:
            self._claimed.discard(upload_id)

    async def digest(self, upload_id: str) -> str:
        """`sha256:…` of what is held."""

        def read() -> str:
            with self.path(upload_id).open("rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

        return await asyncio.to_thread(read)

    def remove(self, upload_id: str) -> None:
        self.path(upload_id).unlink(missing_ok=True)


def _sync(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
