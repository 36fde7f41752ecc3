"""Errors as REST shows them: `{"error": {"code", "message", "status", "details"}}` (google.aip.dev/193)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio

from services.common.errors import STATUS_KEY, DeadlineExceeded, Internal, MercatError, Unavailable, to_status

# Envoy's mapping (Grpc::Utility::grpcToHttpStatus), so that both front doors answer alike.
HTTP_STATUS = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}

# The reason of what is refused before any contract is looked at; Envoy gives the same.
MALFORMED = "MALFORMED_REQUEST"

# json_format finds the types inside `details` in the default pool, which this import fills.
_DETAILS = error_details_pb2.DESCRIPTOR


class Refusal(Exception):
    """A request that is answered without a call. `http` where HTTP has a closer status than the canonical code's."""

    def __init__(self, error: MercatError, http: int | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(error.message)
        self.status = to_status(error)
        self.http = http
        self.headers = headers or {}


def _detail(detail: Any) -> dict[str, Any] | None:
    try:
        shown: dict[str, Any] = json_format.MessageToDict(detail, always_print_fields_with_no_presence=True)
    except (TypeError, DecodeError, json_format.SerializeToJsonError):
        return None  # of a type that is not compiled in, or not what it says it is
    return shown


def body(status: status_pb2.Status, http: int | None = None) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON of an error."""
    code = http or HTTP_STATUS.get(status.code, 500)
    name = code_pb2.Code.Name(status.code) if status.code in HTTP_STATUS else "UNKNOWN"
    details = [shown for detail in status.details if (shown := _detail(detail))]
    error: dict[str, Any] = {"code": code, "message": status.message, "status": name}
    return code, {"error": {**error, "details": details} if details else error}


def pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    """The metadata of a call, which grpc's type stubs do not know to be pairs."""
    return cast("Iterable[tuple[str, str | bytes]]", metadata or ())


def of_call(error: aio.AioRpcError) -> status_pb2.Status:
    """The status a failed call ended with. One without details was made on the way and may speak of addresses and
    sockets, which are nobody's business outside."""
    for key, value in pairs(error.trailing_metadata()):
        if key == STATUS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    code = error.code().value[0]
    if code in (code_pb2.UNAVAILABLE, code_pb2.CANCELLED):
        text = "the service behind this path is not available; try again"
        return to_status(Unavailable(text, reason="UPSTREAM_UNAVAILABLE"))
    if code == code_pb2.DEADLINE_EXCEEDED:
        text = "the service behind this path did not answer in time"
        return to_status(DeadlineExceeded(text, reason="UPSTREAM_TIMEOUT"))
    return to_status(Internal("the request could not be handled", reason="INTERNAL"))
