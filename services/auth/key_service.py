"""What becomes of API keys after they were made: other rules, another end, another secret, a secret that leaked."""

from datetime import datetime, timedelta

from mercat.auth.v1 import keys_pb2, keys_pb2_grpc

from services.auth import keys, signing_keys
from services.auth.organisations.roles import check_within
from services.auth.organisations.standing import forget
from services.auth.signin.letters import Letters
from services.auth.signing_keys import SigningKeys
from services.auth.store import Row, Store
from services.common import audit, etags, key_rules, pages
from services.common.db import Connection
from services.common.errors import EtagMismatch, FailedPrecondition, InvalidFields, NotFound, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps

OVERLAP, LONGEST = timedelta(hours=24), timedelta(days=30)
_SHARE = "keys:share"


class ApiKeyServicer(keys_pb2_grpc.ApiKeyServiceServicer):
    """Serves `mercat.auth.v1.ApiKeyService`."""

    def __init__(self, deps: Deps, store: Store, letters: Letters, signs: SigningKeys) -> None:
        self._letters = letters
        self._signing_keys = signs
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store

    async def GetApiKey(self, request: keys_pb2.GetApiKeyRequest, context: Context) -> keys_pb2.GetApiKeyResponse:
        principal = caller()
        async with self._database.connection() as connection:
            row = await self._store.get_api_key(
                connection, request.key_id, principal.org_id, principal.user_id, shared=_SHARE in principal.scopes
            )
        return keys_pb2.GetApiKeyResponse(api_key=keys.message_of(_found(row)))

    async def UpdateApiKey(
        self, request: keys_pb2.UpdateApiKeyRequest, context: Context
    ) -> keys_pb2.UpdateApiKeyResponse:
        revision, now = etags.revision(request.etag, "key"), self._clock.now()
        if request.never_expires and request.HasField("expires_at"):
            raise InvalidFields(violations=[Violation("never_expires", "contradicts expires_at")])
        rules = key_rules.column(request.rules)
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.key_id)
            if revision not in (0, row["revision"]):
                raise EtagMismatch("the key was changed meanwhile; read it again")
            before = keys.message_of(row)
            if request.rules.require_signature:
                signs = await self._store.list_signing_keys(connection, row["id"], "", 1)
                keys.check_signs(request.rules, signs=bool(signs))
            scopes = keys.choose(request.scopes, frozenset(caller().scopes)) if request.scopes else before.scopes
            expires = keys.future(request.expires_at, now) if request.HasField("expires_at") else row["expires_at"]
            row = await self._store.update_api_key(
                connection, row["id"], name=request.name if request.HasField("name") else row["name"], scopes=scopes,
                expires_at=None if request.never_expires else expires,
                rules=rules if request.HasField("rules") else row["rules"],
            )  # fmt: skip
            key = keys.message_of(row)
            audit.changed(before, key)
        await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.UpdateApiKeyResponse(api_key=key)

    async def RotateApiKey(
        self, request: keys_pb2.RotateApiKeyRequest, context: Context
    ) -> keys_pb2.RotateApiKeyResponse:
        now, overlap = self._clock.now(), _overlap(request)
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.key_id)
            before = keys.message_of(row)
            if not row["is_active"] or (row["expires_at"] is not None and row["expires_at"] <= now):
                raise FailedPrecondition("this key is revoked or expired; make another", reason="KEY_ENDED")
            if overlap and _overlaps(row, now):
                raise FailedPrecondition(
                    "the secret before is good until the last rotation's overlap ends; end that first, with"
                    " `mercat keys finish`, or rotate without an overlap", reason="ROTATION_UNDER_WAY",
                )  # fmt: skip
            secret = keys.generate(test=row["test"])
            row = await self._store.rotate_api_key(
                connection, row["id"], key_hash=keys.digest(secret), prefix=keys.prefix(secret),
                previous_expires_at=now + overlap if overlap else None,
            )  # fmt: skip
            key = keys.message_of(row)
            audit.changed(before, key)
        await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.RotateApiKeyResponse(api_key=key, secret=secret)

    async def EndApiKeyOverlap(
        self, request: keys_pb2.EndApiKeyOverlapRequest, context: Context
    ) -> keys_pb2.EndApiKeyOverlapResponse:
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.key_id)
            before = keys.message_of(row)
            if not _overlaps(row, self._clock.now()):
                raise FailedPrecondition("only the newest secret of this key is good", reason="NO_ROTATION_UNDER_WAY")
            row = await self._store.end_overlap(connection, row["id"])
            key = keys.message_of(row)
            audit.changed(before, key)
        await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.EndApiKeyOverlapResponse(api_key=key)

    async def CreateSigningKey(
        self, request: keys_pb2.CreateSigningKeyRequest, context: Context
    ) -> keys_pb2.CreateSigningKeyResponse:
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.key_id)
            made, secret = await self._signing_keys.add(
                connection, row, request.algorithm, request.public_key, self._clock.now()
            )
            audit.changed(after=made)
        await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.CreateSigningKeyResponse(signing_key=made, secret=secret)

    async def ListSigningKeys(
        self, request: keys_pb2.ListSigningKeysRequest, context: Context
    ) -> keys_pb2.ListSigningKeysResponse:
        principal = caller()
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            row = _found(
                await self._store.get_api_key(
                    connection, request.key_id, principal.org_id, principal.user_id, shared=_SHARE in principal.scopes
                )
            )
            rows = await self._store.list_signing_keys(connection, row["id"], str(key[0]) if key else "", most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        found = [signing_keys.message_of(r) for r in rows[:most]]
        return keys_pb2.ListSigningKeysResponse(signing_keys=found, next_page_token=token)

    async def DeleteSigningKey(
        self, request: keys_pb2.DeleteSigningKeyRequest, context: Context
    ) -> keys_pb2.DeleteSigningKeyResponse:
        async with self._database.transaction() as connection:
            row = await self._lock(connection, request.key_id)
            audit.changed(before=await self._signing_keys.delete(connection, row["id"], request.signing_key_id))
        await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.DeleteSigningKeyResponse()

    async def RevokeLeakedKey(
        self, request: keys_pb2.RevokeLeakedKeyRequest, context: Context
    ) -> keys_pb2.RevokeLeakedKeyResponse:
        secret, now = request.secret.strip(), self._clock.now()
        key_hash = keys.digest(secret)
        async with self._database.transaction() as connection:
            row = await self._store.lock_secret(connection, key_hash, now) if keys.well_formed(secret) else None
            if row is None:
                audit.nothing()  # or whoever likes fills the log
            else:
                before = keys.message_of(row)
                audit.about("api_key", row["id"])
                audit.by("", row["org_id"])  # who found it is nobody, but it is that organisation's affair
                end = self._store.end_api_key if row["newest"] else self._store.end_overlap
                audit.changed(before, keys.message_of(await end(connection, row["id"])))
                for owner in await self._store.list_key_owners(connection, row["id"]):
                    await self._letters.key_leaked(connection, owner, row, whole=row["newest"])
        if row is not None:
            await forget(self._events, org_id=row["org_id"], key_id=row["id"])
        return keys_pb2.RevokeLeakedKeyResponse()

    async def _lock(self, connection: Connection, key_id: str) -> Row:
        """A key that the caller may change. Raises NotFound, PermissionDenied."""
        audit.about("api_key", key_id)
        principal = caller()
        row = _found(
            await self._store.lock_api_key(
                connection, key_id, principal.org_id, principal.user_id, shared=_SHARE in principal.scopes
            )
        )
        keys.check_free(principal)
        check_within(keys.message_of(row).scopes, principal.scopes)
        return row


def _found(row: Row | None) -> Row:
    if row is None:
        raise NotFound("you have no such key; see `mercat keys list`", reason="API_KEY_NOT_FOUND")
    return row


def _overlaps(row: Row, now: datetime) -> bool:
    return row["previous_hash"] is not None and row["previous_expires_at"] > now


def _overlap(request: keys_pb2.RotateApiKeyRequest) -> timedelta:
    """Raises InvalidFields."""
    if not request.HasField("overlap"):
        return OVERLAP
    try:
        overlap = request.overlap.ToTimedelta()
    except (ValueError, OverflowError):
        overlap = LONGEST * 2
    if not timedelta(0) <= overlap <= LONGEST:
        raise InvalidFields(violations=[Violation("overlap", f"must be between 0 and {LONGEST.days} days")])
    return overlap
