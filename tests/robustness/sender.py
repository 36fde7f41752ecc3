"""`python -m tests.robustness.sender grpc|http FRONT KEY SEED BYTES`: uploads so many made-up bytes, and goes on
whenever it is broken off. Prints what it sent and the most memory that it held, as JSON."""

import hashlib
import io
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from google.api import httpbody_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc
from tusclient import client as tus

BLOCK = 1024 * 1024  # bytes
_TUS_CHUNK = 64 * BLOCK


class Made(io.RawIOBase):
    """A file of any length that is nowhere: each block differs from the others by its number."""

    def __init__(self, seed: int, size: int) -> None:
        self._base = random.Random(seed).randbytes(BLOCK)
        self._size, self._at = size, 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._at
        size = left if size < 0 else min(size, left)
        found = bytearray()
        while len(found) < size:
            number, start = divmod(self._at, BLOCK)
            piece = (number.to_bytes(8, "big") + self._base[8:])[start : start + size - len(found)]
            found += piece
            self._at += len(piece)
        return bytes(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at


def digest(seed: int, size: int) -> str:
    made, found = Made(seed, size), hashlib.sha256()
    while block := made.read(BLOCK):
        found.update(block)
    return f"sha256:{found.hexdigest()}"


def by_grpc(front: str, key: str, made: Made, size: int, name: str) -> tuple[int, str]:
    """How often it went on, and the digest that the platform tells."""
    metadata = (("authorization", f"Bearer {key}"),)
    storage = storage_pb2_grpc.StorageServiceStub(grpc.insecure_channel(front))
    asked = storage_pb2.CreateUploadRequest(filename="large.bin", size_bytes=size, digest=name)
    upload = storage.CreateUpload(asked, metadata=metadata).upload
    again = 0
    while upload.offset < size:

        def chunks(at: int, upload_id: str) -> Iterator[storage_pb2.WriteUploadRequest]:
            made.seek(at)
            while block := made.read(BLOCK):
                body = httpbody_pb2.HttpBody(data=block)
                yield storage_pb2.WriteUploadRequest(upload_id=upload_id, offset=at, chunk=body)

        try:
            upload = storage.WriteUpload(chunks(upload.offset, upload.upload_id), metadata=metadata).upload
        except grpc.RpcError:
            again += 1
            upload = _until_back(storage, metadata, upload.upload_id)
    done = storage_pb2.CompleteUploadRequest(upload_id=upload.upload_id)
    return again, storage.CompleteUpload(done, metadata=metadata, timeout=1800).upload.digest


def _until_back(
    storage: storage_pb2_grpc.StorageServiceStub, metadata: tuple[tuple[str, str], ...], upload_id: str
) -> storage_pb2.Upload:
    for _ in range(120):
        time.sleep(0.5)
        try:
            request = storage_pb2.GetUploadRequest(upload_id=upload_id)
            return storage.GetUpload(request, metadata=metadata, timeout=5).upload
        except grpc.RpcError:
            continue
    raise TimeoutError("the platform does not come back")


def by_http(front: str, key: str, made: Made, size: int, name: str) -> tuple[int, str]:
    """As `by_grpc`; of the digest it says nothing before."""
    client = tus.TusClient(f"http://{front}/tus/v1/uploads", headers={"Authorization": f"Bearer {key}"})
    sent = _Counted(
        file_stream=made, client=client, chunk_size=_TUS_CHUNK, metadata={"filename": "large.bin"}, retries=120,
        retry_delay=1,
    )  # fmt: skip
    sent.upload()
    assert sent.offset == size
    return sent.again, str(sent.request.response_headers["mercat-digest"])


class _Counted(tus.Uploader):
    """Counts how often it asks where to go on."""

    again = 0

    def _retry_or_cry(self, error: Exception) -> None:
        self.again += 1
        super()._retry_or_cry(error)


def peak(pid: int | str = "self") -> int:
    """The most that a process held in memory so far, bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def main() -> None:
    way, front, key, seed, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    name = digest(seed, size)
    began = time.monotonic()
    again, told = {"grpc": by_grpc, "http": by_http}[way](front, key, Made(seed, size), size, name)
    seconds = time.monotonic() - began
    print(json.dumps({"sent": name, "told": told, "again": again, "seconds": seconds, "peak": peak()}))


if __name__ == "__main__":
    main()
