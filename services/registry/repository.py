"""The model repository: the folder from which Triton and the workers on this machine read published models.

    <name>/config.pbtxt         how Triton serves it
    <name>/<number>/model.onnx  one version, or where Triton is to serve what its publisher pushed,
                    model.pt          a TorchScript archive
                    model.savedmodel  the folder of a TensorFlow SavedModel

Files appear whole or not at all, and are never changed but for config.pbtxt."""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path

from mercat.common.v1 import tensor_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.common import call_limits
from services.common.db import Database
from services.common.errors import DataLoss, MercatError, Unavailable
from services.common.rpc.channels import InternalChannel
from services.registry.rows import deprecation_of, text_of, yank_of
from services.registry.settings import RegistrySettings
from services.registry.store import Row, Store
from services.registry.triton_config import DECODER, ONNX, backend, config, decoder_config, family
from services.registry.validation.frameworks.archives import unpack
from services.registry.validation.report import Refused

log = logging.getLogger(__name__)
_RETRY = 5.0  # seconds until what could not be written is tried again
_AGAIN = 600.0  # seconds until the folder is looked through again
_PART = ".part-"  # begins the names of what is being written
_LEFT = 3600.0  # seconds after which nobody is writing it any more


class RepositoryUnavailable(Unavailable, reason="REPOSITORY_UNAVAILABLE"):
    """The folder cannot be written."""


class Repository:
    """Writes published versions, in the name and under the number that `deployment` gives them."""

    def __init__(self, database: Database, store: Store, control: InternalChannel, settings: RegistrySettings) -> None:
        self._database = database
        self._store = store
        self._storage = storage_pb2_grpc.ArtifactServiceStub(control)
        self._settings = settings
        self._folder = settings.repository
        self._describe = lru_cache(4096)(self._describe_anew)

    def deployment(self, model: Row, version: Row) -> registry_pb2.Deployment:
        """All that a worker needs to know of a version."""
        document = registry_pb2.Version.FromString(version["document"])
        served = bool(version["served_digest"])  # what validation made of the artifact
        made = registry_pb2.Deployment(
            model_id=model["id"], version_id=version["id"], model=f"{model['publisher']}/{model['name']}",
            version=version["version"], org_id=model["org_id"], framework=version["framework"],
            digest=version["served_digest" if served else "digest"],
            size_bytes=version["served_size_bytes" if served else "size_bytes"],
            signature=tensor_pb2.Signature.FromString(version["signature"]), settings=document.settings,
            state=version["state"], samples=document.samples, limit=call_limits.read(model["call_limit"]),
            text=text_of(version), visibility=model["visibility"],
        )  # fmt: skip
        if version["deprecated_at"] is not None:
            made.deprecation.CopyFrom(deprecation_of(version))
        if version["yanked_by"]:
            made.yank.CopyFrom(yank_of(version))
        by = backend(version["form"], made.signature, document.settings)
        if made.text.kind == registry_pb2.TEXT_KIND_DECODER:
            by = DECODER
        name, text = self._describe(model["id"], version["signature"], document.settings.SerializeToString(), by)
        made.repository_model, made.repository_config = name, text
        made.repository_version = version["number"]
        if by[1] != ONNX[1]:
            made.repository_file, made.repository_digest = by[1], version["digest"]
        return made

    def _describe_anew(self, model_id: str, signature: bytes, settings: bytes, by: tuple[str, str]) -> tuple[str, str]:
        takes, served = tensor_pb2.Signature.FromString(signature), registry_pb2.InferenceSettings.FromString(settings)
        name = family(model_id, takes, served, by[0])
        if by == DECODER:
            return name, decoder_config(name, served, self._settings)
        return name, config(name, takes, served, self._settings, by)

    async def write(self, deployment: registry_pb2.Deployment) -> None:
        """Puts a version into the folder; does nothing when it is there. Raises RepositoryUnavailable, and Unavailable
        or DataLoss when the artifact cannot be had."""
        request = storage_pb2.FetchArtifactRequest(digest=deployment.repository_digest or deployment.digest)
        pieces = (piece.data async for piece in self._storage.FetchArtifact(request))
        try:
            await write(self._folder, deployment, pieces)
        except OSError as e:
            log.warning("the model repository %s cannot be written: %s", self._folder, e)
            raise RepositoryUnavailable("the model repository cannot be written; tell the operator") from e

    async def keep(self) -> None:
        """Writes every published version that is missing, at the start and when somebody has removed it."""
        await asyncio.to_thread(_sweep, self._folder)
        while True:
            missing = 0
            try:
                async for deployment in self._published():
                    try:
                        await self.write(deployment)
                    except MercatError as e:
                        missing += 1
                        log.warning("%s@%s is not in the repository: %s", deployment.model_id, deployment.version, e)
            except MercatError as e:
                missing += 1
                log.warning("the published versions cannot be read: %s", e)
            await asyncio.sleep(_RETRY if missing else _AGAIN)

    async def _published(self) -> AsyncIterator[registry_pb2.Deployment]:
        after = ""
        while True:
            async with self._database.connection() as connection:
                rows = await self._store.list_callable(connection, after, 100)
            for row in rows:
                model = {**row, "id": row["model_id"]}
                yield self.deployment(model, row)
            if not rows:
                return
            after = rows[-1]["id"]


async def write(folder: Path, deployment: registry_pb2.Deployment, pieces: AsyncIterator[bytes]) -> None:
    """Puts a version into a model repository. Raises DataLoss when `pieces` are not what the digest names, OSError."""
    model = folder / deployment.repository_model
    version = model / str(deployment.repository_version)
    there = version / (deployment.repository_file or "model.onnx")
    if not there.exists() or (not deployment.repository_file and there.stat().st_size != deployment.size_bytes):
        model.mkdir(parents=True, exist_ok=True)
        # A folder that is no number is no version to Triton; once it is one, all is in it.
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=model))
        try:
            await _copy(pieces, part / there.name, deployment.repository_digest or deployment.digest)
            if there.suffix == ".savedmodel":
                await asyncio.to_thread(_unpack, part / there.name)
            _show(part, version)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    text = model / "config.pbtxt"
    if not text.exists() or text.read_text() != deployment.repository_config:
        written = model / f"{_PART}{os.getpid()}"
        written.write_text(deployment.repository_config)
        written.replace(text)


async def _copy(pieces: AsyncIterator[bytes], path: Path, digest: str) -> None:
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        async for data in pieces:
            hasher.update(data)
            file.write(data)
    if f"sha256:{hasher.hexdigest()}" != digest:
        raise DataLoss(f"storage answered other bytes than those of {digest}", reason="ARTIFACT_CORRUPT")


def _unpack(path: Path) -> None:
    """Puts the folder in the place of the archive. Raises DataLoss: validation took the same bytes."""
    archive = path.rename(path.with_suffix(".archive"))
    try:
        unpack(archive, path)
    except Refused as e:
        raise DataLoss(f"a SavedModel cannot be unpacked: {e}", reason="ARTIFACT_CORRUPT") from e
    archive.unlink()


def _show(part: Path, version: Path) -> None:
    """Gives what was written its name."""
    part.chmod(0o755)  # Triton may be another user
    try:
        part.rename(version)
    except OSError:  # there was a file of a wrong size, or another writer came first
        for file in part.iterdir():
            file.replace(version / file.name)


def _sweep(folder: Path) -> None:
    """Removes what writers that were killed left."""
    for part in folder.glob(f"*/{_PART}*"):
        with contextlib.suppress(OSError):
            if part.stat().st_mtime < time.time() - _LEFT:
                shutil.rmtree(part)
