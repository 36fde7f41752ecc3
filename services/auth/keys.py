"""API keys: `mk_live_` or `mk_test_`, 32 random base62 characters, and 6 of a CRC-32, so that a mistyped or invented
key is refused without asking the database."""

import asyncio
import hashlib
import json
import logging
import secrets
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import auth_pb2, organisation_pb2
from mercat.common.v1 import limits_pb2

from services.auth.scopes import BY_ROLE
from services.auth.store import Row, Store
from services.common import call_limits, key_rules
from services.common.db import Database
from services.common.errors import InvalidFields, MercatError, PermissionDenied, Violation

log = logging.getLogger(__name__)
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 32
_EVERY = 5.0  # seconds between writes of when keys were last used


def generate(*, test: bool) -> str:
    """A new secret with 190 bits of randomness."""
    body = f"mk_{'test' if test else 'live'}_" + "".join(secrets.choice(_BASE62) for _ in range(_RANDOM))
    return body + _checksum(body)


def well_formed(secret: str) -> bool:
    """Whether the text can be a key at all."""
    return (
        secret.startswith(("mk_live_", "mk_test_"))
        and len(secret) == 8 + _RANDOM + 6
        and secrets.compare_digest(_checksum(secret[:-6]).encode(), secret[-6:].encode())
    )


def digest(secret: str) -> bytes:
    """What is stored. A plain hash suffices: the secret has more randomness than anybody can try."""
    return hashlib.sha256(secret.encode()).digest()


def prefix(secret: str) -> str:
    """What a person recognises a key by."""
    return secret[:12]


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, rest = divmod(value, 62)
        digits = _BASE62[rest] + digits
    return digits


def choose(asked: Iterable[str], held: frozenset[str]) -> list[str]:
    """The scopes of a new key: those asked for, or all that may be given.

    Raises:
        InvalidFields: there is no such scope.
        PermissionDenied: one is asked for that may not be given.
    """
    scopes = frozenset(asked) or held
    if unknown := scopes - BY_ROLE[auth_pb2.ROLE_ADMIN]:
        raise InvalidFields(violations=[Violation("scopes", f"there is no scope {min(unknown)}")])
    if missing := scopes - held:
        raise PermissionDenied(f"you do not hold the scope {min(missing)} yourself", reason="SCOPE_MISSING")
    return sorted(scopes)


def limit_of(
    request: auth_pb2.CreateApiKeyRequest | organisation_pb2.CreateOrganisationKeyRequest,
) -> limits_pb2.CallLimit | None:
    return request.limit if request.HasField("limit") else None


def check_signs(rules: auth_pb2.KeyRules, *, signs: bool) -> None:
    """Raises InvalidFields where calls must be signed and there is nothing to sign them with: the key would open
    nothing."""
    if rules.require_signature and not signs:
        problem = "needs a signing key, and this key has none; make one first: `mercat keys signing create KEY`"
        raise InvalidFields(violations=[Violation("rules.require_signature", problem)])


def check_free(principal: auth_pb2.Principal) -> None:
    """Raises PermissionDenied for a key with rules: it may not make keys that have none, nor change its own."""
    if principal.HasField("rules"):
        raise PermissionDenied("a key with rules makes and changes no keys", reason="KEY_RESTRICTED")


def future(timestamp: Timestamp, now: datetime) -> datetime:
    """When a key ends. Raises InvalidFields."""
    try:
        at = timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):  # a year that no calendar here has
        at = now
    if at <= now:
        raise InvalidFields(violations=[Violation("expires_at", "must be in the future, and before the year 10000")])
    return at


def message_of(row: Row) -> auth_pb2.ApiKey:
    """A key as its owner sees it."""
    key = auth_pb2.ApiKey(
        key_id=row["id"], name=row["name"], prefix=row["prefix"], scopes=json.loads(row["scopes"]),
        is_active=row["is_active"], limit=call_limits.read(row["call_limit"]), rules=key_rules.read(row["rules"]),
        owner_id=row["user_id"] or row["service_account_id"] or row["org_id"],
        created_by=row["created_by"] or row["user_id"], test=row["test"], etag=str(row["revision"]),
    )  # fmt: skip
    names = ["created_at", "expires_at", "last_used_at"]
    if row["previous_hash"] is not None:
        names += ["previous_expires_at", "previous_last_used_at"]
    times: dict[str, datetime | None] = {n: row[n] for n in names}
    for name, at in times.items():
        if at is not None:
            getattr(key, name).FromDatetime(at)
    return key


class LastUsed:
    """When secrets of keys were last used, gathered and written now and then."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._used: dict[bytes, datetime] = {}

    def mark(self, key_hash: bytes, at: datetime) -> None:
        self._used[key_hash] = at

    async def flush(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.connection() as connection:
                await self._store.touch_api_keys(connection, used)
        except MercatError as e:
            log.warning("last use of %d keys was not written: %s", len(used), e)

    async def keep(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.flush()
