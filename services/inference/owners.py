"""Who a job's calls are made as: whoever made the job, as they are now."""

import asyncio

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc

from services.common.errors import PermissionDenied
from services.common.rpc.channels import InternalChannel

_FRESH = 2.0  # seconds
_SCOPE = "inference:call"


class Owners:
    """Asks auth, and remembers for a moment."""

    def __init__(self, channel: InternalChannel) -> None:
        self._stub = auth_pb2_grpc.PrincipalServiceStub(channel)
        self._known: dict[tuple[str, str, str], tuple[float, auth_pb2.Principal]] = {}

    async def get(self, user_id: str, key_id: str, org_id: str) -> auth_pb2.Principal:
        """Raises CredentialInvalid when the key is revoked or expired, or the account closed or out of the
        organisation; PermissionDenied when it may not call models any more, Unavailable when auth cannot be asked."""
        now, who = asyncio.get_running_loop().time(), (user_id, key_id, org_id)
        known = self._known.get(who)
        if known is not None and now - known[0] < _FRESH:
            return known[1]
        self._known = {who: entry for who, entry in self._known.items() if now - entry[0] < _FRESH}
        asked = auth_pb2.GetPrincipalRequest(user_id=user_id, key_id=key_id, org_id=org_id)
        principal: auth_pb2.Principal = (await self._stub.GetPrincipal(asked, timeout=5)).principal
        if _SCOPE not in principal.scopes:
            raise PermissionDenied(f"whoever made this job lacks the scope {_SCOPE} now", reason="SCOPE_MISSING")
        self._known[who] = (now, principal)
        return principal
