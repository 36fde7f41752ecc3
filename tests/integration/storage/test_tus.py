"""Uploads over HTTP as tus 1.0 has them, by a client of other people's and by hand."""

import base64
import hashlib
import os
from io import BytesIO
from typing import Any

import httpx
import pytest
from mercat.storage.v1 import storage_pb2 as s
from tusclient import client as tus
from tusclient.exceptions import TusCommunicationError

from services.storage.spool import MAX_CHUNK
from tests.platform import Account, Platform

V = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def owner(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture
def http(platform: Platform, owner: Account) -> Any:
    headers = V | dict(owner.metadata)
    with httpx.Client(base_url=platform.rest, headers=headers, timeout=30) as client:
        yield client


def metadata(**values: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in values.items())


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def begin(http: httpx.Client, size: int, **values: str) -> str:
    answer = http.post("/tus/v1/uploads", headers={"Upload-Length": str(size), "Upload-Metadata": metadata(**values)})
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def patch(http: httpx.Client, where: str, data: bytes, offset: int, **headers: str) -> httpx.Response:
    given = BYTES | {"Upload-Offset": str(offset)} | {k.replace("_", "-"): v for k, v in headers.items()}
    return http.patch(where, content=data, headers=given)


def download(person: Account, name: str) -> bytes:
    return b"".join(
        piece.chunk.data for piece in person.storage.DownloadArtifact(s.DownloadArtifactRequest(digest=name))
    )


def test_a_client_of_others_uploads_and_goes_on(platform: Platform, owner: Account) -> None:
    data = os.urandom(3 * MAX_CHUNK + 4_321)
    client = tus.TusClient(f"{platform.rest}/tus/v1/uploads", headers=dict(owner.metadata))

    def uploader(**options: Any) -> Any:
        return client.uploader(file_stream=BytesIO(data), chunk_size=MAX_CHUNK, **options)

    one = uploader(metadata={"filename": "model.onnx"}, upload_checksum=True)
    one.upload(stop_at=MAX_CHUNK)
    assert one.offset == MAX_CHUNK
    # Another process that only knows the address finds out the rest.
    other = uploader(url=one.url, upload_checksum=True)
    assert other.offset == MAX_CHUNK
    other.upload()
    name = one.url.rpartition("/")[2]
    found = owner.storage.GetUpload(s.GetUploadRequest(upload_id=name)).upload
    assert (found.state, found.digest, found.filename) == (s.Upload.STATE_COMPLETE, digest(data), "model.onnx")
    assert download(owner, digest(data)) == data
    # The same bytes again, told by their digest: nothing of it is stored again, and the client is content.
    again = uploader(metadata={"filename": "again.onnx", "digest": digest(data)})
    again.upload()
    assert again.offset == len(data)
    client.headers.clear()
    with pytest.raises(TusCommunicationError) as caught:
        uploader().upload()
    assert caught.value.status_code == 401


def test_what_the_server_can_is_said(platform: Platform) -> None:
    answer = httpx.options(f"{platform.rest}/tus/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-extension"] == "creation,creation-with-upload,checksum,expiration,termination"
    assert int(answer.headers["tus-max-size"]) == 50 * 1024**3
    assert set(answer.headers["tus-checksum-algorithm"].split(",")) == {"sha256", "sha1", "md5"}


def test_a_page_of_another_origin_may_upload(platform: Platform) -> None:
    asked = {
        "Origin": "https://example.com", "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "upload-offset,tus-resumable,authorization,content-type",
    }  # fmt: skip
    answer = httpx.options(f"{platform.rest}/tus/v1/uploads/upl_x", headers=asked)
    assert answer.status_code == 200
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    plain = httpx.head(f"{platform.rest}/tus/v1/uploads/upl_x", headers=V | {"Origin": "https://example.com"})
    assert "upload-offset" in plain.headers["access-control-expose-headers"]


def test_an_upload_with_its_creation(http: httpx.Client, owner: Account) -> None:
    data = os.urandom(70_000)
    given = BYTES | {"Upload-Length": str(len(data)), "Upload-Metadata": metadata(filename="w.bin")}
    answer = http.post("/tus/v1/uploads", headers=given, content=data)
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(len(data)))
    assert answer.headers["mercat-digest"] == digest(data)
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert download(owner, digest(data)) == data


def test_where_an_upload_is(http: httpx.Client) -> None:
    data = os.urandom(1000)
    where = begin(http, len(data), filename="x.onnx", note="Ä")
    answer = http.head(where)
    assert answer.status_code == 200
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("0", "1000")
    assert answer.headers["upload-metadata"] == metadata(filename="x.onnx", note="Ä")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["upload-expires"].endswith("GMT")
    assert patch(http, where, data[:400], 0).headers["upload-offset"] == "400"
    assert http.head(where).headers["upload-offset"] == "400"
    over = http.post(
        where, headers=BYTES | {"Upload-Offset": "400", "X-HTTP-Method-Override": "PATCH"}, content=data[400:]
    )
    assert (over.status_code, over.headers["upload-offset"], over.headers["mercat-digest"]) == (
        204,
        "1000",
        digest(data),
    )


def test_chunks_that_are_not_what_their_checksum_says_are_not_kept(http: httpx.Client) -> None:
    data = os.urandom(3 * 1024 * 1024)
    where = begin(http, len(data))
    for algorithm in ("sha1", "sha256", "md5"):
        wrong = base64.b64encode(hashlib.new(algorithm, b"other").digest()).decode()
        answer = patch(http, where, data, 0, Upload_Checksum=f"{algorithm} {wrong}")
        assert answer.status_code == 460, answer.text
        assert http.head(where).headers["upload-offset"] == "0"
    right = base64.b64encode(hashlib.sha1(data).digest()).decode()
    for bad in ("crc32 aaaa", "sha1 aaaa", "sha1", "sha1 !!"):
        assert patch(http, where, data, 0, Upload_Checksum=bad).status_code == 400
    assert patch(http, where, data, 0, Upload_Checksum=f"sha1 {right}").status_code == 204


def test_other_bytes_than_announced_make_no_artifact(http: httpx.Client) -> None:
    data = os.urandom(1000)
    where = begin(http, len(data), digest=digest(data))
    assert patch(http, where, bytes(1000), 0).status_code == 460
    assert http.head(where).headers["upload-offset"] == "0"
    assert patch(http, where, data, 0).status_code == 204


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "x"}, 400), ({}, 400), ({"Upload-Length": "-1"}, 400), ({"Upload-Length": "0"}, 400),
        ({"Upload-Length": str(51 * 1024**3)}, 413), ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "filename !!"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": metadata(filename="../x")}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": metadata(digest="md5:1")}, 400),
        ({"Upload-Length": "1", "Tus-Resumable": "0.2.2"}, 412),
    ],
)  # fmt: skip
def test_a_bad_creation_is_refused(http: httpx.Client, headers: dict[str, str], status: int) -> None:
    answer = http.post("/tus/v1/uploads", headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_a_bad_patch_is_refused_and_changes_nothing(http: httpx.Client) -> None:
    where = begin(http, 10)
    assert patch(http, where, b"abc", 3).status_code == 409
    assert http.patch(where, content=b"abc", headers={"Upload-Offset": "0"}).status_code == 415
    assert http.patch(where, content=b"abc", headers=BYTES).status_code == 400
    assert patch(http, where, bytes(11), 0).status_code == 413
    assert http.put(where).status_code == 405
    assert http.head(where).headers["upload-offset"] in ("0", "10")  # nothing past its size is kept


def test_an_upload_is_given_up(http: httpx.Client, owner: Account, platform: Platform) -> None:
    where = begin(http, 10)
    patch(http, where, b"abc", 0)
    name = where.rpartition("/")[2]
    assert (platform.home / "uploads" / name).exists()
    assert name in {u.upload_id for u in owner.storage.ListUploads(s.ListUploadsRequest()).uploads}
    assert http.delete(where).status_code == 204
    assert not (platform.home / "uploads" / name).exists()
    assert http.head(where).status_code == 404
    assert patch(http, where, b"def", 3).status_code == 404
    assert name not in {u.upload_id for u in owner.storage.ListUploads(s.ListUploadsRequest()).uploads}


def test_others_find_nothing(http: httpx.Client, platform: Platform) -> None:
    where = begin(http, 10)
    other = platform.publisher()
    with httpx.Client(base_url=platform.rest, headers=V | dict(other.metadata), timeout=30) as client:
        for address in (where, "/tus/v1/uploads/upl_00000000000000000000000000"):
            assert client.head(address).status_code == 404
            assert patch(client, address, b"x", 0).status_code == 404
            assert client.delete(address).status_code == 404
    assert http.head(where).headers["upload-offset"] == "0"


def test_a_body_that_breaks_off_is_kept_so_far(http: httpx.Client) -> None:
    data = os.urandom(4 * 1024 * 1024)
    where = begin(http, len(data))

    def half() -> Any:
        yield data[: 2 * 1024 * 1024]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        http.patch(where, content=half(), headers=BYTES | {"Upload-Offset": "0"})
    for _ in range(100):
        answer = http.head(where)
        if int(answer.headers["upload-offset"]):
            break
    offset = int(http.head(where).headers["upload-offset"])
    for _ in range(50):
        answer = patch(http, where, data[offset:], offset)
        if answer.status_code == 204:
            break
        offset = int(http.head(where).headers["upload-offset"])
    assert (answer.status_code, answer.headers["mercat-digest"]) == (204, digest(data))
