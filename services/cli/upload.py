"""Sends a file, from where a broken upload stopped, and waits for the validation of a version."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from google.api import httpbody_pb2
from mercat.registry.v1 import registry_pb2
from mercat.storage.v1 import storage_pb2

from services.cli import output
from services.cli.client import Client, Unreachable
from services.cli.session import Refusal
from services.cli.telling import step
from services.common.errors import Aborted, MercatError, Unavailable

CHUNK = 1 << 20  # bytes; the platform takes up to 2 MiB
_TRIES = 5
_POLL = 0.2  # seconds
_LARGE = 256 << 20  # bytes; what is smaller is read in less than a second


def digest_of(file: Path, *, quiet: bool = True) -> str:
    """`sha256:…` of a file, never all of it in memory."""
    size = file.stat().st_size
    with file.open("rb") as source, step(f"reading {file.name}", size, quiet=quiet or size < _LARGE) as tell:
        found, done = hashlib.sha256(), 0
        while data := source.read(CHUNK):
            found.update(data)
            done += len(data)
            tell(done)
    return f"sha256:{found.hexdigest()}"


def upload(client: Client, file: Path, digest: str, *, quiet: bool) -> None:
    """Sends a file's bytes unless the platform has them. Raises MercatError, Unreachable, or Refusal when the file
    changes meanwhile."""
    size = file.stat().st_size
    if not size:
        raise Refusal(f"{file} is empty.")
    storage = client.storage
    state = _begun(client, file.name, size, digest)
    if state.state == storage_pb2.Upload.STATE_COMPLETE:
        return
    if state.offset and not quiet:
        output.console(error=True).print(f"going on with {file.name} at {output.size(state.offset)}", markup=False)
    with step(f"uploading {file.name}", size, quiet=quiet) as tell:
        tries = 0
        while state.state != storage_pb2.Upload.STATE_COMPLETE and state.offset < size:
            tell(state.offset)
            before = state.offset
            try:
                state = storage.WriteUpload(_chunks(file, state, tell), timeout=3600).upload
            except (Unavailable, Unreachable, Aborted) as error:  # Aborted: the broken stream is still being ended
                tries += 1
                if tries == _TRIES:
                    raise
                time.sleep(min(0.3 * 2**tries, 5.0))
                state = _where(client, state.upload_id, error)
            else:
                if state.offset <= before:
                    raise Refusal(f"{file} became shorter while it was sent.", "push it again when it is whole")
    if state.state != storage_pb2.Upload.STATE_COMPLETE:
        with step(f"storing {file.name}", quiet=quiet or size < _LARGE):
            storage.CompleteUpload(storage_pb2.CompleteUploadRequest(upload_id=state.upload_id), timeout=3600)


def _begun(client: Client, name: str, size: int, digest: str) -> storage_pb2.Upload:
    """An upload of these bytes that was broken off, by this command or another one; else a new one."""
    request = storage_pb2.ListUploadsRequest(digest=digest)
    begun = [
        upload for upload in client.storage.ListUploads(request).uploads
        if upload.state == storage_pb2.Upload.STATE_OPEN and upload.size_bytes == size
    ]  # fmt: skip
    if begun:
        return max(begun, key=lambda upload: upload.offset)
    asked = storage_pb2.CreateUploadRequest(filename=name, size_bytes=size, digest=digest)
    return client.storage.CreateUpload(asked).upload


def _where(client: Client, upload_id: str, error: Exception) -> storage_pb2.Upload:
    try:
        return client.storage.GetUpload(storage_pb2.GetUploadRequest(upload_id=upload_id)).upload
    except (MercatError, Unreachable):
        raise error from None


def _chunks(
    file: Path, state: storage_pb2.Upload, tell: Callable[[int], None]
) -> Iterator[storage_pb2.WriteUploadRequest]:
    with file.open("rb") as source:
        at = state.offset
        source.seek(at)
        while at < state.size_bytes and (data := source.read(min(CHUNK, state.size_bytes - at))):
            body = httpbody_pb2.HttpBody(content_type="application/octet-stream", data=data)
            yield storage_pb2.WriteUploadRequest(upload_id=state.upload_id, offset=at, chunk=body)
            at += len(data)
            tell(at)


def validated(client: Client, model: str, version: str, seconds: float, *, quiet: bool) -> registry_pb2.Version:
    """The version when its validation has ended, either way. Refusal when it takes longer than `seconds`."""
    until = time.monotonic() + seconds
    request = registry_pb2.GetVersionRequest(model=model, version=version)
    with step(f"validating {model}@{version}", quiet=quiet):
        while True:
            found = client.registry.GetVersion(request).version
            if found.state != registry_pb2.VERSION_STATE_VALIDATING:
                return found
            if time.monotonic() > until:
                raise Refusal(
                    f"{model}@{version} is still being validated after {seconds:g} s.",
                    f"look again with `mercat models show {model}@{version}`",
                )
            time.sleep(_POLL)
