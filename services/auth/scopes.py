"""What each role may do; an API key holds some of its owner's scopes."""

from mercat.auth.v1 import auth_pb2

# What a person may do with their own account, whatever they are in an organisation; programs have none.
PERSONAL = frozenset({"account:write"})

# Roles in an organisation. An admin may do all but what only owners may.
_VIEWER = {"keys:read", "members:read", "models:read", "usage:read"}
_BILLING = _VIEWER | {"billing:read", "billing:write"}
_DEVELOPER = _VIEWER | {"inference:call", "keys:write", "models:write", "webhooks:read", "webhooks:write"}
_ADMIN = _BILLING | _DEVELOPER | {"audit:read", "keys:share", "members:write", "organisation:write"}
OWNER, ADMIN = "owner", "admin"
BY_MEMBER_ROLE: dict[str, frozenset[str]] = {
    OWNER: frozenset(_ADMIN | {"organisation:own"}),
    ADMIN: frozenset(_ADMIN),
    "billing": frozenset(_BILLING),
    "developer": frozenset(_DEVELOPER),
    "viewer": frozenset(_VIEWER),
}

# Roles on the platform: what somebody may do in their personal organisation.
_PUBLISHER = BY_MEMBER_ROLE[OWNER] | PERSONAL
_PLATFORM = {
    "credits:write", "ledger:read", "ledger:write", "limits:write", "models:review", "platform:audit", "refunds:write",
    "search:write",
}  # fmt: skip
BY_ROLE: dict[int, frozenset[str]] = {
    auth_pb2.ROLE_CONSUMER: _PUBLISHER - {"models:write"},
    auth_pb2.ROLE_PUBLISHER: _PUBLISHER,
    auth_pb2.ROLE_ADMIN: _PUBLISHER | _PLATFORM,
}
