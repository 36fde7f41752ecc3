"""Who guesses must wait: failed sign-ins are counted by account and by network address, and from some number on each
locks it for twice as long as the one before, an hour at most. An email address without an account is locked as one with
an account is, so that a lock does not say whether there is one."""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.auth.signin.store import SignInStore
from services.common import audit
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import ResourceExhausted
from services.common.rpc.context import maybe_current

FREE = 5  # failures of an account before it is locked


@dataclass(frozen=True)
class Subject:
    """Whom failures are counted of, and how many are free."""

    key: str
    free: int

    def locked(self, until: datetime, now: datetime) -> ResourceExhausted:
        wait = (until - now).total_seconds()
        if self.key.startswith("account:"):
            return ResourceExhausted(
                "too many wrong passwords or codes; wait before the next attempt, or set a new password with"
                " `mercat password forgot`", reason="ACCOUNT_LOCKED", retry_after=wait,
            )  # fmt: skip
        if self.key.startswith("device:"):
            return ResourceExhausted(
                "too many wrong codes of devices; wait before the next attempt", reason="CODE_LOCKED", retry_after=wait
            )
        return ResourceExhausted(
            "too many failed sign-ins from your address; wait before the next attempt", reason="ADDRESS_LOCKED",
            retry_after=wait,
        )  # fmt: skip


def account(email: str) -> Subject:
    return Subject("account:" + hashlib.sha256(email.strip().lower().encode()).hexdigest(), FREE)


def device(user_id: str) -> Subject:
    """Somebody who types codes of devices."""
    return Subject(f"device:{user_id}", FREE)


def network(address: str, free: int) -> Subject | None:
    """Of an IPv6 address its /64, which one subscriber has; None for what is no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ipaddress.ip_network((int(ip), 64), strict=False).network_address
    return Subject(f"address:{ip}", free)


class Lockout:
    """Counts failures and says who must wait."""

    def __init__(
        self, database: Database, store: SignInStore, clock: Clock, address_failures: int, kept: timedelta
    ) -> None:
        """`kept`: how long failures are known, after the last one."""
        self._kept = kept
        self._database = database
        self._store = store
        self._clock = clock
        self._address_failures = address_failures

    def subjects(self, email: str) -> list[Subject]:
        """Of the call under way: the account that is tried, and the caller's network address."""
        return [account(email), *self.addresses()]

    def addresses(self) -> list[Subject]:
        """Of the call under way: the caller's network address, where it is one."""
        call = maybe_current()
        address = network(call.address, self._address_failures) if call is not None else None
        return [address] if address else []

    async def check(self, subjects: Sequence[Subject]) -> None:
        """Raises ResourceExhausted, with a retry hint, while one of them is locked."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            locks = await self._store.list_locks(connection, [s.key for s in subjects], now)
        for subject in subjects:
            if subject.key in locks:
                raise subject.locked(locks[subject.key], now)

    async def fail(self, subjects: Sequence[Subject]) -> None:
        """Counts a failure. Raises ResourceExhausted when one of them was locked meanwhile: of many attempts made at
        once only the free ones are told that they are wrong."""
        audit.nothing()  # this transaction is none of the act that was asked for
        now = self._clock.now()
        async with self._database.transaction() as connection:
            locks = [
                (s, await self._store.count_failure(connection, s.key, s.free, now, now - self._kept)) for s in subjects
            ]
        for subject, until in locks:
            if until is not None:
                raise subject.locked(until, now)

    async def succeed(self, connection: Connection, subjects: Sequence[Subject]) -> None:
        """Forgets the account's failures; the address's stay, since who guesses may have an account of their own.
        Raises ResourceExhausted when it was locked meanwhile."""
        now = self._clock.now()
        for subject in subjects:
            if subject.key.startswith("account:"):
                until = await self._store.forget_failures(connection, subject.key, now)
                if until is not None:
                    raise subject.locked(until, now)

    async def release(self, connection: Connection, email: str) -> None:
        """Ends an account's lock: its owner has proved themselves in another way."""
        await self._store.end_lock(connection, account(email).key)

    async def sweep(self, connection: Connection) -> None:
        now = self._clock.now()
        await self._store.forget(connection, now, now - self._kept)
