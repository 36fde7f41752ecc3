"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
from pydantic import ValidationError
from starlette.responses import Response

from gateway_rest import errors, replies
from gateway_rest.transcode import dumps
from services.common.errors import MercatError

# Reasons that OpenAI has a code of its own for; the others are their own code, in small letters.
_CODES = {
    "MODEL_NOT_FOUND": "model_not_found",
    "VERSION_NOT_FOUND": "model_not_found",
    "ALIAS_NOT_FOUND": "model_not_found",
    "PROMPT_TOO_LONG": "context_length_exceeded",
    "INSUFFICIENT_CREDIT": "insufficient_quota",
    "BUDGET_EXCEEDED": "insufficient_quota",
    "RATE_LIMITED": "rate_limit_exceeded",
    "QUOTA_EXCEEDED": "rate_limit_exceeded",
    "CONCURRENCY_LIMITED": "rate_limit_exceeded",
    "QUEUE_FULL": "rate_limit_exceeded",
    "CREDENTIAL_MISSING": "invalid_api_key",
    "CREDENTIAL_INVALID": "invalid_api_key",
    "INVALID_FIELDS": "invalid_value",
}
# What a reason is about where it comes without a field.
_ABOUT = {
    "PROMPT_TOO_LONG": "prompt",
    "BAD_PROMPT": "prompt",
    "BAD_FORMAT": "json_schema",
    "NO_CHAT_TEMPLATE": "model",
    "MODEL_NOT_FOUND": "model",
    "VERSION_NOT_FOUND": "model",
    "ALIAS_NOT_FOUND": "model",
}


class Invalid(Exception):
    """A request that is refused before any call is made; `param` is the field."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", http: int = 400) -> None:
        super().__init__(message)
        self.message, self.param, self.code, self.http = message, param, code, http


def body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refused(invalid: Invalid) -> Response:
    shown = body(invalid.message, "invalid_request_error", invalid.param, invalid.code)
    return Response(dumps(shown), invalid.http, media_type=replies.JSON)


def unreadable(error: ValidationError) -> Invalid:
    """The first thing that pydantic did not like."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".") or None
    if first["type"] == "missing":
        return Invalid(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    kind = "type" if first["type"].endswith("_type") else "value"
    return Invalid(f"Invalid {kind} for '{param}': {first['msg']}.", param, f"invalid_{kind}")


def shown(
    error: MercatError, params: Mapping[str, str], http: int | None = None
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """HTTP status, headers and body of an error of the platform. `params`: fields of the contract by the dialect's
    names, where those are others."""
    status = http or errors.HTTP_STATUS.get(error.code.value[0], 500)
    code = _CODES.get(error.reason, error.reason.lower())
    about = _ABOUT.get(error.reason, "")
    param = params.get(about, about) or None
    message = error.message
    if error.violations:
        fields = [_param(violation.field, params) for violation in error.violations]
        param = fields[0]
        told = zip(fields, error.violations, strict=True)
        message = "; ".join(f"Invalid value for '{name}': {violation.description}" for name, violation in told)
    if param == "model" and status == 400 and error.violations:
        # A name that no model can have, such as another provider's.
        status, code = 404, "model_not_found"
    headers: dict[str, str] = {}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    elif code == "insufficient_quota":
        kind, headers["x-should-retry"] = code, "false"
    elif status == 429:
        kind = "requests"
    if error.retry_after is not None or status == 503:
        headers["retry-after"] = str(max(1, round(error.retry_after or 1)))
    return status, headers, body(message, kind, param, code)


def _param(field: str, params: Mapping[str, str]) -> str:
    head, rest = re.fullmatch(r"([^.\[]*)(.*)", field.removeprefix("sampling."), re.DOTALL).groups()  # type: ignore[union-attr]
    return params.get(head, head) + rest
