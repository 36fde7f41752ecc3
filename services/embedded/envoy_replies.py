"""How Envoy's own refusals look: the AIP-193 shape for REST, plain text (which becomes `grpc-message`) for gRPC."""

from typing import Any

DOMAIN = "mercat"

# HTTP status: canonical name, reason, what to say (None: what Envoy says).
REFUSALS: dict[int, tuple[str, str, str | None]] = {
    400: ("INVALID_ARGUMENT", "MALFORMED_REQUEST", None),
    401: ("UNAUTHENTICATED", "CREDENTIAL_MISSING", None),
    403: ("PERMISSION_DENIED", "REFUSED", None),
    404: ("NOT_FOUND", "NO_SUCH_PATH", "nothing answers to this method and path; /docs lists what does"),
    405: ("UNIMPLEMENTED", "NO_SUCH_METHOD", None),
    408: ("DEADLINE_EXCEEDED", "REQUEST_TOO_SLOW", "the request did not arrive in time"),
    411: ("INVALID_ARGUMENT", "LENGTH_REQUIRED", None),
    413: ("INVALID_ARGUMENT", "BODY_TOO_LARGE", "the body is larger than 64 MiB"),
    415: ("INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", None),
    426: ("FAILED_PRECONDITION", "UPGRADE_REQUIRED", None),
    429: ("RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS", "too many requests; try again later"),
    431: ("INVALID_ARGUMENT", "HEADERS_TOO_LARGE", "the headers are larger than 32 KiB"),
    500: ("INTERNAL", "INTERNAL", "the request could not be handled"),
    501: ("UNIMPLEMENTED", "UNIMPLEMENTED", None),
    502: ("UNAVAILABLE", "UPSTREAM_FAILED", "the service behind this path failed; try again"),
    503: ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE", "the service behind this path is not available; try again"),
    504: ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT", "the service behind this path did not answer in time"),
}


def local_replies() -> dict[str, Any]:
    """`local_reply_config` of the connection manager."""
    speaks_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    # The transcoder has made REST into gRPC by the time most refusals happen; its caller still speaks REST.
    transcoded = {"name": "x-envoy-original-path", "present_match": True}
    grpc = {
        "filter": {
            "and_filter": {
                "filters": [
                    {"header_filter": {"header": speaks_grpc}},
                    {"header_filter": {"header": {**transcoded, "invert_match": True}}},
                ]
            }
        },
        "body_format_override": {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}},
    }
    by_status = [
        {"filter": _status_is(status), "body_format_override": _body(*refusal)} for status, refusal in REFUSALS.items()
    ]
    return {"mappers": [grpc, *by_status], "body_format": _body("UNKNOWN", "REFUSED", None)}


def _status_is(status: int) -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"mercat.reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _body(name: str, reason: str, message: str | None) -> dict[str, Any]:
    # Where Envoy alone knows what it did not like, its own word for it.
    why = {"why": "%RESPONSE_CODE_DETAILS%"} if message is None else {}
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": DOMAIN, "metadata": why}
    error = {
        "code": "%RESPONSE_CODE%",
        "status": name,
        "message": message or "%LOCAL_REPLY_BODY%",
        "details": [detail],
    }
    return {"json_format": {"error": error}, "content_type": "application/json"}
