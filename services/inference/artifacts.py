"""Model files on this machine's disk: in the model repository where this machine sees it, else fetched once, found by
digest, and the least recently used removed first."""

import asyncio
import hashlib
import os
from pathlib import Path

from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common.errors import DataLoss
from services.common.rpc.channels import InternalChannel


class Artifacts:
    """`folder`: `cache/models` of the home, shared by the workers of one machine. `repository`: the registry's."""

    def __init__(self, channel: InternalChannel, folder: Path, most_bytes: int, repository: Path) -> None:
        self._stub = storage_pb2_grpc.ArtifactServiceStub(channel)
        self._folder = folder
        self._most_bytes = most_bytes
        self._repository = repository
        self._checked: dict[tuple[int, int, int], str] = {}  # digests by the inode, time and size of a file

    async def find(self, deployment: registry_pb2.Deployment) -> Path:
        """The path of a version's file. Raises as `fetch`."""
        if deployment.repository_model:
            number = str(deployment.repository_version)
            path = self._repository / deployment.repository_model / number / "model.onnx"
            if await asyncio.to_thread(self._digest, path) == deployment.digest:
                return path
        return await self.fetch(deployment.digest)

    def _digest(self, path: Path) -> str:
        """Of a file, which is read once; empty when there is none."""
        try:
            with path.open("rb") as file:
                stat = os.fstat(file.fileno())
                key = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if key not in self._checked:
                    self._checked[key] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                return self._checked[key]
        except OSError:
            return ""

    async def fetch(self, digest: str) -> Path:
        """The path of an artifact's file. Raises DataLoss when the bytes are not the digest's."""
        path = self._folder / digest.replace(":", "-")
        if path.exists():
            os.utime(path)
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._make_room)
        # A name of its own: another worker may be fetching the same artifact.
        part = path.with_suffix(f".{os.getpid()}.part")
        hasher = hashlib.sha256()
        try:
            with part.open("wb") as file:
                async for piece in self._stub.FetchArtifact(storage_pb2.FetchArtifactRequest(digest=digest)):
                    hasher.update(piece.data)
                    file.write(piece.data)
            if f"sha256:{hasher.hexdigest()}" != digest:
                raise DataLoss(f"storage answered other bytes than those of {digest}", reason="ARTIFACT_CORRUPT")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _make_room(self) -> None:
        files = sorted((p for p in self._folder.iterdir() if p.is_file()), key=lambda p: p.stat().st_mtime)
        total = sum(p.stat().st_size for p in files)
        for p in files:
            if total <= self._most_bytes:
                return
            total -= p.stat().st_size
            p.unlink(missing_ok=True)  # a loaded session keeps its own copy of the graph
