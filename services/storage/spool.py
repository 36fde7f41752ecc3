"""Uploads under way, a file each. How much of one is held is the length of its file and nothing else."""

import asyncio
import base64
import fcntl
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from services.common.errors import Aborted, DataLoss, InvalidFields, OutOfRange, Unavailable, Violation

MAX_CHUNK = 2 * 1024 * 1024  # bytes
_SYNC_EVERY = 16 * 1024 * 1024  # bytes


class Spool:
    """A folder of partial uploads, named by upload id. Several processes may share it."""

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

    async def append(
        self, upload_id: str, offset: int, size: int, chunks: AsyncIterator[bytes], checksum: str = ""
    ) -> int:
        """Appends chunks from `offset` on; what arrived before a break is kept, unless there is a `checksum`
        (`sha256 <base64>`, likewise sha1 and md5), by which all chunks are kept or none.

        Returns:
            Bytes held, safely on disk.

        Raises:
            Aborted: the offset is not that of the upload, or somebody else is writing it.
            DataLoss: the chunks are not what the checksum says.
            OutOfRange: there is more than `size`; nothing past it is kept.
            Unavailable: the disk is full, or broken.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        expected = _Checksum(checksum) if checksum else None
        with self._claim(upload_id), self.path(upload_id).open("ab", buffering=0) as file:
            _lock(file)
            held = synced = file.tell()
            if offset != held:
                raise Aborted(
                    f"the upload goes on at byte {held}, not {offset}",
                    reason="UPLOAD_OFFSET", metadata={"offset": str(held)},
                )  # fmt: skip
            try:
                async for chunk in chunks:
                    if len(chunk) > MAX_CHUNK:
                        raise InvalidFields(violations=[Violation("chunk.data", f"at most {MAX_CHUNK} bytes")])
                    if held + len(chunk) > size:
                        raise OutOfRange(f"more than the {size} bytes announced", reason="UPLOAD_TOO_LONG")
                    await asyncio.to_thread(_write, file, chunk)
                    held += len(chunk)
                    if expected is not None:
                        expected.hash.update(chunk)
                    if held - synced >= _SYNC_EVERY:
                        await asyncio.to_thread(_write, file, b"", sync=True)
                        synced = held
                if expected is not None:
                    expected.check()
            except BaseException:
                if expected is not None:
                    file.truncate(offset)
                raise
            finally:
                _write(file, b"", sync=True)
        return held

    @contextmanager
    def claim(self, upload_id: str) -> Iterator[None]:
        """Keeps others away from an upload meanwhile, in other processes too once there is something of it. Raises
        Aborted when somebody has it."""
        with self._claim(upload_id):
            try:
                file = self.path(upload_id).open("rb+", buffering=0)
            except FileNotFoundError:
                yield
                return
            with file:
                _lock(file)
                yield

    @contextmanager
    def _claim(self, upload_id: str) -> Iterator[None]:
        if upload_id in self._claimed:
            raise _busy()
        self._claimed.add(upload_id)
        try:
            yield
        finally:
            self._claimed.discard(upload_id)

    async def digest(self, upload_id: str) -> str:
        """`sha256:…` of what is held: read again from the disk, since that is what will be served."""

        def read() -> str:
            with self.path(upload_id).open("rb") as file:
                return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

        return await asyncio.to_thread(read)

    def remove(self, upload_id: str) -> None:
        self.path(upload_id).unlink(missing_ok=True)


class _Checksum:
    """Raises InvalidFields for one that cannot be."""

    def __init__(self, text: str) -> None:
        name, _, value = text.partition(" ")
        self.hash = hashlib.new(name, usedforsecurity=False)
        try:
            self._value = base64.b64decode(value, validate=True)
        except ValueError:
            self._value = b""
        if len(self._value) != self.hash.digest_size:
            problem = f"is no {name} digest in base64"
            raise InvalidFields(violations=[Violation("checksum", problem)])

    def check(self) -> None:
        if not hmac.compare_digest(self._value, self.hash.digest()):
            raise DataLoss("the chunks are not what their checksum says; send them again", reason="CHECKSUM_MISMATCH")


def _busy() -> Aborted:
    return Aborted("another call is at work on this upload", reason="UPLOAD_BUSY", retry_after=1)


def _lock(file: FileIO) -> None:
    """Until it is closed, or its process dies. Raises Aborted when another process has it, or had it and removed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy() from None
    if not os.fstat(file.fileno()).st_nlink:
        raise _busy()
    file.seek(0, os.SEEK_END)


def _write(file: FileIO, data: bytes, *, sync: bool = False) -> None:
    """Raises Unavailable."""
    try:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        if sync:
            os.fsync(file.fileno())
    except OSError as e:
        text = "what is uploaded cannot be kept: the disk is full, or broken"
        raise Unavailable(text, reason="STORAGE_UNAVAILABLE", retry_after=30) from e
