"""What each method of tus does."""

from __future__ import annotations

from google.rpc import error_details_pb2
from grpc import aio
from mercat.storage.v1 import storage_pb2
from starlette.requests import Request
from starlette.responses import Response

from gateway_rest.errors import Refusal, of_call
from gateway_rest.tus.call import Call
from gateway_rest.tus.headers import ALGORITHMS, VERSION, bad, done, metadata, number, state
from services.common.errors import InvalidArgument, OutOfRange

PATH = "/tus/v1/uploads"
MAX_SIZE = 50 * 1024**3  # bytes, as the contract has it
_EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
_CONTENT = "application/offset+octet-stream"


async def options(request: Request) -> Response:
    """What this server can do."""
    told = {
        "tus-version": VERSION, "tus-max-size": str(MAX_SIZE), "tus-extension": _EXTENSIONS,
        "tus-checksum-algorithm": ",".join(ALGORITHMS), "tus-resumable": VERSION,
    }  # fmt: skip
    return Response(status_code=204, headers=told)


async def create(call: Call) -> Response:
    """Opens an upload; of its metadata `filename` is the artifact's, and `digest` (`sha256:…`) what it has to be."""
    headers = call.request.headers
    if "upload-defer-length" in headers:
        raise bad("upload-length", "is needed: the size of an upload has to be known when it begins")
    size = number(headers.get("upload-length", ""), "upload-length")
    if size > MAX_SIZE:
        raise Refusal(OutOfRange(f"at most {MAX_SIZE} bytes", reason="UPLOAD_TOO_LONG"), 413)
    text = headers.get("upload-metadata", "")
    known = metadata(text)
    asked = storage_pb2.CreateUploadRequest(
        filename=known.get("filename") or known.get("name") or "upload", size_bytes=size,
        digest=known.get("digest", ""), metadata=text,
    )  # fmt: skip
    upload = (await call.ask("CreateUpload", asked)).upload
    if headers.get("content-type") == _CONTENT:
        upload = await (_drained(call, upload) if done(upload) else call.write(upload, 0))
    return Response(status_code=201, headers={"location": f"{PATH}/{upload.upload_id}", **state(upload)})


async def head(call: Call) -> Response:
    """Where an upload is. One whose last answer was lost on its way is completed here."""
    upload = await call.get()
    try:
        upload = await call.completed(upload)
    except aio.AioRpcError as error:
        if reason(error) != "UPLOAD_BUSY":  # the call that is at work on it completes it
            raise
    told = {"upload-length": str(upload.size_bytes), "cache-control": "no-store", **state(upload)}
    if upload.metadata:
        told["upload-metadata"] = upload.metadata
    return Response(headers=told)


async def patch(call: Call) -> Response:
    if call.request.headers.get("content-type") != _CONTENT:
        text = f"send the bytes as {_CONTENT}"
        raise Refusal(InvalidArgument(text, reason="UNSUPPORTED_MEDIA_TYPE"), 415)
    offset = number(call.request.headers.get("upload-offset", ""), "upload-offset")
    upload = await call.get()
    if done(upload) and offset == 0:  # clients begin at 0 what they created, also where nothing needs to be sent
        upload = await _drained(call, upload)
    else:
        upload = await call.write(upload, offset)
    return Response(status_code=204, headers=state(upload))


async def delete(call: Call) -> Response:
    await call.ask("DeleteUpload", storage_pb2.DeleteUploadRequest(upload_id=call.upload_id))
    return Response(status_code=204)


async def _drained(call: Call, upload: storage_pb2.Upload) -> storage_pb2.Upload:
    async for _ in call.request.stream():
        pass
    return upload


def reason(error: aio.AioRpcError) -> str:
    """The stable reason of a failed call; empty where it has none."""
    info = error_details_pb2.ErrorInfo()
    for detail in of_call(error).details:
        if detail.Unpack(info):
            return str(info.reason)
    return ""
