"""Refused attempts for the audit log: of what the contract calls sensitive, and of keys against their rules.

They are gathered in memory and written some seconds later, by a transaction of their own. Who tries again and again
fills no disk: equal attempts of a minute are two entries at most, the first and how many came after it, and of one
caller, of one organisation and of one process only so many different ones are kept in a minute; a metric counts the
rest."""

import asyncio
import ipaddress
import logging
import time
from collections import Counter as Tally
from dataclasses import dataclass

from mercat.event.v1 import event_pb2

from services.common import audit, outbox
from services.common.db import Database
from services.common.errors import MercatError, PermissionDenied, Unauthenticated
from services.common.metrics import Counter
from services.common.rpc.context import Call

log = logging.getLogger(__name__)
DROPPED = Counter("mercat_audit_denials_dropped", "Refused attempts that are not in the audit log for their number", [])
OF_CALLER, OF_CHAIN, IN_ALL = 5, 30, 300  # different attempts a minute
_MINUTE = 60.0  # seconds
_EVERY = 2.0  # seconds between writes
_LOCKED = ("ACCOUNT_LOCKED", "ADDRESS_LOCKED")
_ASKING = ("CREDENTIAL_MISSING", "STEP_UP_REQUIRED", "SECOND_FACTOR_REQUIRED")  # for something, and refuse nobody


@dataclass
class _Attempt:
    """The first of a minute's equal attempts, and how many came after it."""

    event: event_pb2.AuditRecorded
    denied: dict[str, str]
    more: int = 0


class Denials:
    """Those of one service's calls in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._attempts: dict[tuple[str, ...], _Attempt] = {}
        self._counted: Tally[str] = Tally()
        self._since = time.monotonic()
        self._ready: list[event_pb2.AuditRecorded] = []

    def note(self, call: Call, error: MercatError, *, audited: bool) -> None:
        """Takes a refusal into account. `audited`: the contract calls the method sensitive."""
        refused = isinstance(error, Unauthenticated | PermissionDenied) and error.reason not in _ASKING
        if not (refused or error.reason in _LOCKED) or not (audited or error.reason.startswith(("KEY_", "SIGNATURE_"))):
            return
        self._turn()
        user_id, org_id = call.actor or (call.principal.user_id, call.principal.org_id)
        caller = call.principal.key_id or call.principal.user_id or _subscriber(call.address)
        key = (caller, org_id, user_id, call.address, call.method, error.reason)
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.more += 1
            return
        bounds = (("caller " + caller, OF_CALLER), ("chain " + org_id, OF_CHAIN), ("all", IN_ALL))
        if any(self._counted[what] >= most for what, most in bounds):
            DROPPED.labels().inc()
            return
        self._counted.update(what for what, _ in bounds)
        denied = {"reason": error.reason, "code": error.code.name, "attempts": "1"}
        attempt = self._attempts[key] = _Attempt(audit.event_of(call), denied)
        attempt.event.metadata.update({"denied": denied})
        self._ready.append(attempt.event)

    def _turn(self) -> None:
        """Begins another minute, with what came after the first attempts of the one before."""
        if time.monotonic() - self._since < _MINUTE:
            return
        for attempt in self._attempts.values():
            if attempt.more:
                again = event_pb2.AuditRecorded()
                again.CopyFrom(attempt.event)
                audit.renew(again)
                again.metadata.update({"denied": {**attempt.denied, "attempts": str(attempt.more)}})
                self._ready.append(again)
        self._attempts, self._counted, self._since = {}, Tally(), time.monotonic()

    def take(self) -> list[event_pb2.AuditRecorded]:
        """What is to be written now."""
        self._turn()
        ready, self._ready = self._ready, []
        return ready

    async def flush(self) -> None:
        ready = self.take()
        if not ready:
            return
        try:
            async with self._database.transaction() as connection:
                for event in ready:
                    await outbox.add(connection, event)
        except MercatError as e:
            log.warning("%d refused attempts wait to be written: %s", len(ready), e)
            self._ready = [*ready, *self._ready][: 2 * IN_ALL]

    async def keep(self) -> None:
        """Writes them, for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.flush()


def _subscriber(address: str) -> str:
    """Of an IPv6 address its /64, which one subscriber has."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address) or ip.ipv4_mapped:
        return address
    return str(ipaddress.ip_network((int(ip), 64), strict=False))
