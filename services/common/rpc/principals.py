"""Who a credential belongs to, from memory where possible.

An entry is trusted for `TTL` seconds, so that a revoked key stops everywhere in less than five even with no event
getting through; the event makes that milliseconds. Past half of that it is refreshed beside the calls that use it."""

import asyncio
import hashlib
import time
from collections import OrderedDict

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2
from nats.aio.msg import Msg

from services.common.errors import CredentialInvalid, DeadlineExceeded, MercatError, Unavailable
from services.common.events import Events, listen
from services.common.rpc.channels import InternalChannel

TTL = 4.0  # seconds
REFRESH = 2.0
STALE = 30.0
FORGET_SUBJECT = "mercat.forget.principal"
_MOST = 200_000
_LONGEST = 4096  # characters


class Principals:
    """Cache of credential → Principal, bounded, single-flight."""

    def __init__(self, channel: InternalChannel) -> None:
        self._stub = auth_pb2_grpc.PrincipalServiceStub(channel)
        self._entries: OrderedDict[str, tuple[float, auth_pb2.Principal]] = OrderedDict()
        self._flights: dict[str, asyncio.Task[auth_pb2.Principal]] = {}

    async def listen(self, events: Events) -> None:
        """Forgets what PrincipalChanged broadcasts name."""

        async def forget(message: Msg) -> None:
            changed = event_pb2.PrincipalChanged.FromString(message.data)
            for credential, (_, p) in list(self._entries.items()):
                if (changed.key_id and p.key_id == changed.key_id) or (
                    not changed.key_id and p.user_id == changed.user_id
                ):
                    del self._entries[credential]

        await listen(events, FORGET_SUBJECT, forget)

    def cached(self, credential: str) -> auth_pb2.Principal | None:
        """The answer when it is in memory and fresh; the fast path, which never waits."""
        entry = self._entries.get(credential)
        if entry is None:
            return None
        age = time.monotonic() - entry[0]
        if age > TTL:
            return None
        if age > REFRESH:
            self._fly(credential)
        return entry[1]

    async def resolve(self, credential: str) -> auth_pb2.Principal:
        """Raises CredentialInvalid, or Unavailable when auth cannot be asked and has not answered for `STALE` seconds:
        while it is away nobody can revoke a key either."""
        if (principal := self.cached(credential)) is not None:
            return principal
        if len(credential) > _LONGEST:
            raise CredentialInvalid("no credential is this long")
        try:
            return await asyncio.shield(self._fly(credential))
        except (Unavailable, DeadlineExceeded):
            entry = self._entries.get(credential)
            if entry is None or time.monotonic() - entry[0] > STALE:
                raise
            return entry[1]

    def _fly(self, credential: str) -> "asyncio.Task[auth_pb2.Principal]":
        task = self._flights.get(credential)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(credential))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())  # a refresh nobody awaits may fail
            self._flights[credential] = task
        return task

    async def _fetch(self, credential: str) -> auth_pb2.Principal:
        try:
            answer = await self._stub.ResolvePrincipal(
                auth_pb2.ResolvePrincipalRequest(credential=credential), timeout=5
            )
        except MercatError as e:
            if e.code is CredentialInvalid.code:
                self._entries.pop(credential, None)
            raise
        finally:
            self._flights.pop(credential, None)
        principal: auth_pb2.Principal = answer.principal
        self._entries[credential] = (time.monotonic(), principal)
        self._entries.move_to_end(credential)
        if len(self._entries) > _MOST:
            self._entries.popitem(last=False)
        return principal


def fingerprint(credential: str) -> str:
    """What may be logged of a credential: enough to tell two apart."""
    return hashlib.sha256(credential.encode()).hexdigest()[:12]
