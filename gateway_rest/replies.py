"""Responses that the shim and the rest of the web edge share."""

from __future__ import annotations

from google.rpc import code_pb2, status_pb2
from starlette.responses import Response

from gateway_rest import errors
from gateway_rest.transcode import dumps

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"


def json_bytes(status: status_pb2.Status, http: int | None = None) -> bytes:
    return dumps(errors.body(status, http)[1])


def error(status: status_pb2.Status, headers: dict[str, str] | None = None, http: int | None = None) -> Response:
    code, shown = errors.body(status, http)
    headers = dict(headers or {})
    if status.code == code_pb2.UNAUTHENTICATED:
        headers.setdefault("www-authenticate", "Bearer")
    return Response(dumps(shown), code, headers, media_type=JSON)


def refused(refusal: errors.Refusal, headers: dict[str, str] | None = None) -> Response:
    return error(refusal.status, {**(headers or {}), **refusal.headers}, refusal.http)
