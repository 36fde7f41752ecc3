"""What each role may do; an API key holds some of its owner's scopes."""

from mercat.auth.v1 import auth_pb2

_CONSUMER = {
    "account:write", "keys:read", "keys:write", "inference:call", "usage:read", "billing:read", "billing:write",
    "models:read",
}  # fmt: skip
_PUBLISHER = _CONSUMER | {"models:write"}
BY_ROLE: dict[int, frozenset[str]] = {
    auth_pb2.ROLE_CONSUMER: frozenset(_CONSUMER),
    auth_pb2.ROLE_PUBLISHER: frozenset(_PUBLISHER),
    auth_pb2.ROLE_ADMIN: frozenset(
        _PUBLISHER
        | {
            "models:review",
            "ledger:read",
            "ledger:write",
            "search:write",
            "limits:write",
            "refunds:write",
            "credits:write",
        }
    ),
}
