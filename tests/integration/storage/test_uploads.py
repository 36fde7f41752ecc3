"""Bytes arrive whole, or are missed; nobody reads those of others."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from mercat.storage.v1 import storage_pb2 as s

from services.common.errors import from_rpc_error
from tests.expect import fails, until
from tests.platform import Account, Platform

CHUNK = 256 * 1024


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture(scope="module")
def other(platform: Platform) -> Account:
    return platform.publisher()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def open_upload(person: Account, data: bytes) -> s.Upload:
    request = s.CreateUploadRequest(filename="model.onnx", size_bytes=len(data), digest=digest(data))
    return person.storage.CreateUpload(request).upload  # type: ignore[no-any-return]


def chunks(upload: s.Upload, data: bytes, offset: int = 0) -> Iterator[s.WriteUploadRequest]:
    for at in range(offset, len(data), CHUNK):
        body = httpbody_pb2.HttpBody(data=data[at : at + CHUNK])
        yield s.WriteUploadRequest(upload_id=upload.upload_id if at == offset else "", offset=offset, chunk=body)


def complete(person: Account, upload: s.Upload) -> s.Upload:
    return person.storage.CompleteUpload(s.CompleteUploadRequest(upload_id=upload.upload_id)).upload  # type: ignore[no-any-return]


def held(person: Account, upload: s.Upload) -> int:
    return int(person.storage.GetUpload(s.GetUploadRequest(upload_id=upload.upload_id)).upload.offset)


def stored(person: Account, data: bytes) -> str:
    upload = open_upload(person, data)
    person.storage.WriteUpload(chunks(upload, data))
    return complete(person, upload).digest


def download(person: Account, name: str, offset: int = 0, length: int = 0) -> bytes:
    request = s.DownloadArtifactRequest(digest=name, offset=offset, length=length)
    return b"".join(piece.chunk.data for piece in person.storage.DownloadArtifact(request))


def test_what_is_uploaded_in_chunks_is_downloaded_whole_and_in_ranges(owner: Account) -> None:
    data = os.urandom(2 * 1024 * 1024 + 12_345)
    upload = open_upload(owner, data)
    assert (upload.state, upload.offset) == (s.Upload.STATE_OPEN, 0)
    written = owner.storage.WriteUpload(chunks(upload, data)).upload
    assert written.offset == len(data)
    done = complete(owner, upload)
    assert (done.state, done.offset, done.digest) == (s.Upload.STATE_COMPLETE, len(data), digest(data))
    assert complete(owner, upload) == done
    assert download(owner, done.digest) == data
    for offset, length in ((0, 1), (1, 0), (1024 * 1024 - 1, 2), (len(data) - 1, 0), (len(data), 0), (5, 10**9)):
        assert download(owner, done.digest, offset, length) == data[offset : offset + length if length else None]
    request = s.DownloadArtifactRequest(digest=done.digest, offset=len(data) + 1)
    assert fails(owner.storage.DownloadArtifact, request).reason == "RANGE_INVALID"


def test_a_broken_upload_goes_on_where_it_broke(owner: Account) -> None:
    data = os.urandom(2 * 1024 * 1024)
    upload = open_upload(owner, data)
    broken = threading.Event()

    def some() -> Iterator[s.WriteUploadRequest]:
        for i, chunk in enumerate(chunks(upload, data)):
            if i == 3:
                broken.wait(10)  # the call is cancelled meanwhile
                return
            yield chunk

    call = owner.storage.WriteUpload.future(some())
    until(lambda: held(owner, upload) >= CHUNK)
    call.cancel()
    broken.set()
    # What was on its way may still be written; only then does the other call let go.
    for _ in range(100):
        offset = held(owner, upload)
        try:
            owner.storage.WriteUpload(chunks(upload, data, offset))
            break
        except grpc.RpcError as e:
            if from_rpc_error(e).reason not in ("UPLOAD_BUSY", "UPLOAD_OFFSET"):
                raise
            time.sleep(0.05)
    assert 0 < offset < len(data)
    complete(owner, upload)
    assert download(owner, upload.digest) == data


def test_a_write_elsewhere_than_at_the_end_is_told_where_that_is(owner: Account) -> None:
    data = os.urandom(CHUNK * 2)
    upload = open_upload(owner, data)
    owner.storage.WriteUpload(chunks(upload, data[:CHUNK]))
    for offset in (0, 1, CHUNK + 1, 2**62):
        request = s.WriteUploadRequest(
            upload_id=upload.upload_id, offset=offset, chunk=httpbody_pb2.HttpBody(data=b"x")
        )
        error = fails(owner.storage.WriteUpload, iter([request]))
        assert (error.code, error.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_OFFSET")
        assert error.metadata["offset"] == str(CHUNK)


def test_more_than_announced_is_refused(owner: Account) -> None:
    data = os.urandom(CHUNK)
    upload = open_upload(owner, data)
    error = fails(owner.storage.WriteUpload, chunks(upload, data + b"x"))
    assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "UPLOAD_TOO_LONG")
    assert held(owner, upload) == CHUNK
    complete(owner, upload)


def test_less_than_announced_is_not_complete(owner: Account) -> None:
    data = os.urandom(CHUNK * 2)
    upload = open_upload(owner, data)
    owner.storage.WriteUpload(chunks(upload, data[:CHUNK]))
    error = fails(owner.storage.CompleteUpload, s.CompleteUploadRequest(upload_id=upload.upload_id))
    assert (error.reason, error.metadata["offset"]) == ("UPLOAD_INCOMPLETE", str(CHUNK))


def test_other_bytes_than_announced_are_thrown_away(owner: Account) -> None:
    data = os.urandom(CHUNK)
    upload = open_upload(owner, data)
    owner.storage.WriteUpload(chunks(upload, bytes(CHUNK)))
    error = fails(owner.storage.CompleteUpload, s.CompleteUploadRequest(upload_id=upload.upload_id))
    assert (error.code, error.reason) == (grpc.StatusCode.DATA_LOSS, "UPLOAD_CORRUPT")
    assert held(owner, upload) == 0
    assert fails(owner.storage.DownloadArtifact, s.DownloadArtifactRequest(digest=upload.digest)).reason == (
        "ARTIFACT_NOT_FOUND"
    )
    owner.storage.WriteUpload(chunks(upload, data))
    complete(owner, upload)


def test_completing_at_once_completes_once(owner: Account) -> None:
    data = os.urandom(CHUNK * 8)
    upload = open_upload(owner, data)
    owner.storage.WriteUpload(chunks(upload, data))

    def attempt(_: int) -> str:
        try:
            return s.Upload.State.Name(complete(owner, upload).state)
        except grpc.RpcError as e:
            return from_rpc_error(e).reason

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(attempt, range(8)))
    assert "STATE_COMPLETE" in answers
    assert answers <= {"STATE_COMPLETE", "UPLOAD_BUSY"}


def test_known_bytes_are_not_sent_again(owner: Account, other: Account) -> None:
    data = os.urandom(CHUNK)
    stored(owner, data)
    again = open_upload(owner, data)
    assert (again.state, again.offset) == (s.Upload.STATE_COMPLETE, CHUNK)
    assert complete(owner, again).state == s.Upload.STATE_COMPLETE
    error = fails(owner.storage.WriteUpload, chunks(again, data))
    assert error.reason == "UPLOAD_COMPLETE"
    # Whoever only knows the digest must send the bytes, and learns nothing of who has them.
    assert open_upload(other, data).state == s.Upload.STATE_OPEN
    wrong = s.CreateUploadRequest(filename="m", size_bytes=1, digest=digest(data))
    assert [v.field for v in fails(owner.storage.CreateUpload, wrong).violations] == ["size_bytes"]


def test_others_find_nothing(owner: Account, other: Account) -> None:
    data = os.urandom(CHUNK)
    upload = open_upload(owner, data)
    unknown = "upl_00000000000000000000000000"
    for make in (
        lambda i: fails(other.storage.GetUpload, s.GetUploadRequest(upload_id=i)),
        lambda i: fails(other.storage.CompleteUpload, s.CompleteUploadRequest(upload_id=i)),
        lambda i: fails(other.storage.WriteUpload, chunks(s.Upload(upload_id=i), data)),
    ):
        theirs, nobodys = make(upload.upload_id), make(unknown)
        assert (theirs.code, theirs.reason) == (grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND")
        assert theirs.message == nobodys.message
    assert held(owner, upload) == 0
    name = stored(owner, os.urandom(CHUNK))
    theirs = fails(other.storage.DownloadArtifact, s.DownloadArtifactRequest(digest=name))
    nobodys = fails(other.storage.DownloadArtifact, s.DownloadArtifactRequest(digest=digest(b"nobody has this")))
    assert (theirs.code, theirs.reason, theirs.message) == (nobodys.code, nobodys.reason, nobodys.message)
    assert theirs.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("filename", ""), ("filename", "../x"), ("filename", "a/b"), ("filename", "a\\b"), ("filename", "a\0b"),
        ("size_bytes", 0), ("size_bytes", -1), ("size_bytes", 2**50), ("digest", "sha256:x"), ("digest", "md5:0"),
        ("digest", "sha256:" + "A" * 64),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field(owner: Account, field: str, value: object) -> None:
    fields: dict[str, Any] = {"filename": "m.onnx", "size_bytes": 1, "digest": digest(b"x")} | {field: value}
    error = fails(owner.storage.CreateUpload, s.CreateUploadRequest(**fields))
    assert (error.reason, {v.field for v in error.violations}) == ("INVALID_FIELDS", {field})
