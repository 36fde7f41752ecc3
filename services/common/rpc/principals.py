"""Who a credential belongs to, from memory where possible.

An entry is trusted for `TTL` seconds, so that a revoked key stops everywhere in less than five even with no event
getting through; the event makes that milliseconds. Past half of that it is refreshed beside the calls that use it,
together with others."""

import asyncio
import hashlib
import time
from collections import OrderedDict

from mercat.auth.v1 import auth_pb2, auth_pb2_grpc
from mercat.event.v1 import event_pb2
from nats.aio.msg import Msg

from services.common.errors import CredentialInvalid, DeadlineExceeded, MercatError, SsoRequired, Unavailable
from services.common.events import Events, listen
from services.common.rpc.channels import InternalChannel

TTL = 4.0  # seconds
REFRESH = 2.0
STALE = 30.0
_GATHER = 0.1  # seconds that refreshes gather
_TOGETHER = 500  # credentials of one question
FORGET_SUBJECT = "mercat.forget.principal"
_MOST = 200_000
_LONGEST = 4096  # characters


class Principals:
    """Cache of credential → Principal, bounded; a credential is asked for once at a time."""

    def __init__(self, channel: InternalChannel) -> None:
        self._stub = auth_pb2_grpc.PrincipalServiceStub(channel)
        self._entries: OrderedDict[str, tuple[float, auth_pb2.Principal]] = OrderedDict()
        self._flights: dict[str, asyncio.Future[auth_pb2.Principal]] = {}
        self._waiting: list[str] = []  # those of the flights that nobody was asked for yet
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()

    async def listen(self, events: Events) -> None:
        """Forgets what PrincipalChanged broadcasts name."""

        async def heard(message: Msg) -> None:
            self.forget(event_pb2.PrincipalChanged.FromString(message.data))

        await listen(events, FORGET_SUBJECT, heard)

    def forget(self, changed: event_pb2.PrincipalChanged) -> None:
        """Forgets whom all that is given names, in this process."""
        for credential, (_, p) in list(self._entries.items()):
            if all(theirs in ("", own) for theirs, own in (
                (changed.key_id, p.key_id), (changed.user_id, p.user_id), (changed.org_id, p.org_id)
            )):  # fmt: skip
                del self._entries[credential]

    def cached(self, credential: str) -> auth_pb2.Principal | None:
        """The answer when it is in memory and fresh; the fast path, which never waits."""
        entry = self._entries.get(credential)
        if entry is None:
            return None
        age = time.monotonic() - entry[0]
        if age > TTL:
            return None
        if age > REFRESH and credential not in self._flights:
            self._fly(credential)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(_GATHER, self._ask_all)
        return entry[1]

    async def resolve(self, credential: str) -> auth_pb2.Principal:
        """Raises CredentialInvalid, SsoRequired, or Unavailable when auth cannot be asked and has not answered for
        `STALE` seconds: while it is away nobody can revoke a key either."""
        if (principal := self.cached(credential)) is not None:
            return principal
        if len(credential) > _LONGEST:
            raise CredentialInvalid("no credential is this long")
        try:
            flight = self._fly(credential)
            self._ask_all()
            return await asyncio.shield(flight)
        except (Unavailable, DeadlineExceeded):
            entry = self._entries.get(credential)
            if entry is None or time.monotonic() - entry[0] > STALE:
                raise
            return entry[1]

    def _fly(self, credential: str) -> "asyncio.Future[auth_pb2.Principal]":
        flight = self._flights.get(credential)
        if flight is None:
            flight = self._flights[credential] = asyncio.get_running_loop().create_future()
            flight.add_done_callback(lambda f: f.cancelled() or f.exception())  # a refresh nobody awaits may fail
            self._waiting.append(credential)
        return flight

    def _ask_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _TOGETHER):
            task = asyncio.get_running_loop().create_task(self._ask(waiting[at : at + _TOGETHER]))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self, credentials: list[str]) -> None:
        request = auth_pb2.ResolvePrincipalsRequest(credentials=credentials)
        try:
            answers = (await self._stub.ResolvePrincipals(request, timeout=5)).answers
        except MercatError as e:
            for credential in credentials:
                self._flights.pop(credential).set_exception(e)
            return
        except BaseException:  # this process stops
            for credential in credentials:
                self._flights.pop(credential).cancel()
            raise
        for credential, answer in zip(credentials, answers, strict=True):
            flight = self._flights.pop(credential)
            if answer.refusal:
                self._entries.pop(credential, None)
                refusal = SsoRequired(answer.sso_domain) if answer.sso_domain else None
                flight.set_exception(refusal or CredentialInvalid(answer.refusal))
            else:
                self._remember(credential, answer.principal)
                flight.set_result(answer.principal)

    def _remember(self, credential: str, principal: auth_pb2.Principal) -> None:
        self._entries[credential] = (time.monotonic(), principal)
        self._entries.move_to_end(credential)
        if len(self._entries) > _MOST:
            self._entries.popitem(last=False)


def fingerprint(credential: str) -> str:
    """What may be logged of a credential: enough to tell two apart."""
    return hashlib.sha256(credential.encode()).hexdigest()[:12]
