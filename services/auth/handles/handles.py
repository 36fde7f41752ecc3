"""Whether a handle may be taken, and what is kept of those that were given up."""

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

import asyncpg

from services.auth.handles.reserved import is_reserved
from services.auth.handles.store import HandleStore
from services.auth.settings import AuthSettings
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import AlreadyExists, InvalidFields, Violation
from services.common.names import skeleton
from services.common.secrets.keyring import Keyring

_OWNER, _ABOUT = "platform", "handles"  # whose data key seals the key of the hashes
_LOOKS_ALIKE = "organisations_skeleton"  # the index that only one of them gets into
_BATCH = 500


class HandleTooSimilar(AlreadyExists, reason="HANDLE_TOO_SIMILAR"):
    """It looks like a person's or an organisation's."""


class HandleQuarantined(AlreadyExists, reason="HANDLE_QUARANTINED"):
    """Somebody gave it up, and what still names it must not lead to somebody else."""


def too_similar(error: asyncpg.UniqueViolationError, field: str) -> HandleTooSimilar | None:
    """What to say of an insertion that the database refused; None: it was refused for something else."""
    if error.constraint_name != _LOOKS_ALIKE:
        return None
    problem = Violation(field, "looks like one that is taken; choose one that cannot be mistaken for another")
    return HandleTooSimilar("this name looks like one that is taken", violations=[problem])


class Handles:
    """Of a released handle a hash is kept, under a key that lies sealed, so that nobody learns from the table who was
    here. It is of the skeleton: what looks like the handle is not free either."""

    def __init__(self, database: Database, keyring: Keyring, clock: Clock, settings: AuthSettings) -> None:
        self._database = database
        self._store = HandleStore()
        self._keyring = keyring
        self._clock = clock
        self._settings = settings

    def check_allowed(self, handle: str, field: str, *, operator: bool = False) -> None:
        """Raises InvalidFields for one that is reserved. `operator`: who asks runs this platform."""
        if is_reserved(handle) and not operator:
            raise InvalidFields(violations=[Violation(field, "is reserved; choose another")])

    def is_operator(self, email: str) -> bool:
        return self._settings.is_known(email)

    async def check_released(self, c: Connection, handle: str, field: str) -> None:
        """To be called after the handle was taken, in the same transaction: who released it meanwhile has committed by
        then. Raises HandleQuarantined."""
        plain = [_digest(text) for text in (handle, skeleton(handle))]
        key = await self._key(c)
        known = [*plain, *(_keyed(key, digest) for digest in plain)] if key else plain
        if await self._store.is_retired(c, known, self._since()):
            problem = Violation(field, "was given up not long ago, and nobody can take it yet; choose another")
            raise HandleQuarantined("this name is in quarantine", violations=[problem])

    async def release(self, c: Connection, handle: str) -> None:
        """Nobody takes it, or what looks like it, for as long as the setting says."""
        key = await self._key(c, make=True)
        assert key is not None
        await self._store.retire_handle(c, _keyed(key, _digest(skeleton(handle))), self._clock.now())

    async def keep(self) -> int:
        """Puts hashes of an earlier time under the key, and forgets those whose time is over; 0: nothing is left."""
        async with self._database.transaction() as connection:
            if self._settings.released_name_days:
                await self._store.forget_retired(connection, self._since())
            unkeyed = await self._store.list_unkeyed(connection, _BATCH)
            for before in unkeyed:
                key = await self._key(connection, make=True)
                assert key is not None
                await self._store.key_retired(connection, before, _keyed(key, before))
        return len(unkeyed)

    async def _key(self, c: Connection, *, make: bool = False) -> bytes | None:
        sealed = await self._store.get_handle_key(c)
        if sealed is None and make:
            fresh = await self._keyring.seal(c, _OWNER, secrets.token_bytes(32), _ABOUT)
            await self._store.add_handle_key(c, fresh)
            sealed = await self._store.get_handle_key(c)  # another process may have been first
        return await self._keyring.open(c, _OWNER, sealed, _ABOUT) if sealed else None

    def _since(self) -> datetime:
        days = self._settings.released_name_days
        return self._clock.now() - timedelta(days=days) if days else datetime.min.replace(tzinfo=UTC)


def _digest(text: str) -> bytes:
    return hashlib.sha256(b"handle:" + text.encode()).digest()


def _keyed(key: bytes, digest: bytes) -> bytes:
    return hmac.digest(key, digest, "sha256")
