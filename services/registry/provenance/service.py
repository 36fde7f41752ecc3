"""Serves `mercat.registry.v1.PublisherKeyService`."""

from mercat.registry.v1 import provenance_pb2 as p
from mercat.registry.v1 import provenance_pb2_grpc

from services.common import attesting, audit, pages
from services.common.errors import AlreadyExists, InvalidFields, NotFound, ResourceExhausted, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps
from services.registry.provenance.store import KeyStore
from services.registry.store import Row

_MOST = 100  # keys of an organisation, revoked ones as well


class PublisherKeyExists(AlreadyExists, reason="PUBLISHER_KEY_EXISTS"): ...


class PublisherKeyNotFound(NotFound, reason="PUBLISHER_KEY_NOT_FOUND"): ...


class PublisherKeysFull(ResourceExhausted, reason="PUBLISHER_KEYS_FULL"): ...


class PublisherKeyServicer(provenance_pb2_grpc.PublisherKeyServiceServicer):
    """Keys are never deleted: whoever verifies must see that one was revoked."""

    def __init__(self, deps: Deps, keys: KeyStore) -> None:
        self._database = deps.database
        self._clock = deps.clock
        self._keys = keys

    async def AddPublisherKey(self, request: p.AddPublisherKeyRequest, context: Context) -> p.AddPublisherKeyResponse:
        try:
            key = attesting.read_public(request.public_key.encode())
        except ValueError as e:
            raise InvalidFields(violations=[Violation("public_key", str(e))]) from None
        principal, fingerprint = caller(), attesting.fingerprint(key)
        audit.about("publisher_key", fingerprint)
        async with self._database.transaction() as connection:
            if await self._keys.count_publisher_keys(connection, principal.org_id) >= _MOST:
                raise PublisherKeysFull(f"an organisation has at most {_MOST} keys")
            row = await self._keys.add_publisher_key(
                connection, org_id=principal.org_id, fingerprint=fingerprint, publisher=principal.handle,
                name=request.name, public_key=attesting.written(key), now=self._clock.now(),
            )  # fmt: skip
        if row is None:
            raise PublisherKeyExists("you have registered this key already")
        return p.AddPublisherKeyResponse(key=_key(row))

    async def ListPublisherKeys(
        self, request: p.ListPublisherKeysRequest, context: Context
    ) -> p.ListPublisherKeysResponse:
        page, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        after = str(page[0]) if page else ""
        async with self._database.connection() as connection:
            rows = await self._keys.list_publisher_keys(connection, request.publisher, after, most + 1)
        token = pages.encode([rows[most - 1]["fingerprint"]]) if len(rows) > most else ""
        return p.ListPublisherKeysResponse(keys=[_key(row) for row in rows[:most]], next_page_token=token)

    async def RevokePublisherKey(
        self, request: p.RevokePublisherKeyRequest, context: Context
    ) -> p.RevokePublisherKeyResponse:
        audit.about("publisher_key", request.fingerprint)
        async with self._database.transaction() as connection:
            row = await self._keys.revoke_publisher_key(
                connection, caller().org_id, request.fingerprint, self._clock.now()
            )
        if row is None:
            raise PublisherKeyNotFound("you have registered no such key")
        return p.RevokePublisherKeyResponse(key=_key(row))


def _key(row: Row) -> p.PublisherKey:
    key = p.PublisherKey(fingerprint=row["fingerprint"], name=row["name"], public_key=row["public_key"])
    key.created_at.FromDatetime(row["created_at"])
    if row["revoked_at"] is not None:
        key.revoked_at.FromDatetime(row["revoked_at"])
    return key
