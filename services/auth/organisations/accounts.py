"""Service accounts, and the keys of an organisation that are nobody's own."""

import asyncpg
from mercat.auth.v1 import organisation_pb2, organisation_pb2_grpc

from services.auth import keys
from services.auth.organisations.roles import check_within, scopes_of
from services.auth.organisations.standing import forget, role_within
from services.auth.organisations.store import OrganisationStore
from services.auth.scopes import ADMIN, BY_MEMBER_ROLE
from services.auth.store import Row, Store
from services.common import audit, call_limits, ids, key_rules, pages
from services.common.db import Connection
from services.common.errors import AlreadyExists, NotFound, ResourceExhausted, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps

_ACCOUNTS = 200  # service accounts of an organisation


class ServiceAccountServicer(organisation_pb2_grpc.ServiceAccountServiceServicer):
    """Serves `mercat.auth.v1.ServiceAccountService`."""

    def __init__(self, deps: Deps, store: OrganisationStore, key_store: Store) -> None:
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._keys = key_store

    async def CreateServiceAccount(
        self, request: organisation_pb2.CreateServiceAccountRequest, context: Context
    ) -> organisation_pb2.CreateServiceAccountResponse:
        principal, account_id = caller(), ids.new("sva")
        audit.about("service_account", account_id)
        try:
            async with self._database.transaction() as connection:
                await self._store.lock_organisation(connection, principal.org_id)
                await role_within(self._store, connection, principal, request.role)
                if await self._store.count_service_accounts(connection, principal.org_id) >= _ACCOUNTS:
                    raise ResourceExhausted(
                        f"an organisation may have {_ACCOUNTS} service accounts", reason="TOO_MANY_SERVICE_ACCOUNTS"
                    )
                row = await self._store.add_service_account(
                    connection, id=account_id, org_id=principal.org_id, name=request.name, role=request.role,
                    created_by=principal.user_id, now=self._clock.now(),
                )  # fmt: skip
        except asyncpg.UniqueViolationError:
            problem = Violation("name", "is that of another service account; choose another")
            raise AlreadyExists("this name is taken", reason="SERVICE_ACCOUNT_EXISTS", violations=[problem]) from None
        return organisation_pb2.CreateServiceAccountResponse(service_account=_account(row))

    async def ListServiceAccounts(
        self, request: organisation_pb2.ListServiceAccountsRequest, context: Context
    ) -> organisation_pb2.ListServiceAccountsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_service_accounts(
                connection, caller().org_id, str(key[0]) if key else "", most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        found = [_account(r) for r in rows[:most]]
        return organisation_pb2.ListServiceAccountsResponse(service_accounts=found, next_page_token=token)

    async def DeleteServiceAccount(
        self, request: organisation_pb2.DeleteServiceAccountRequest, context: Context
    ) -> organisation_pb2.DeleteServiceAccountResponse:
        principal = caller()
        audit.about("service_account", request.service_account_id)
        async with self._database.transaction() as connection:
            row = await self._get(connection, request.service_account_id)
            check_within(scopes_of(row["role"], row["role_scopes"]), principal.scopes)
            await self._store.delete_service_account(connection, row["id"], self._clock.now())
            audit.changed(_account(row))
        await forget(self._events, org_id=principal.org_id, user_id=request.service_account_id)
        return organisation_pb2.DeleteServiceAccountResponse()

    async def _get(self, connection: Connection, account_id: str) -> Row:
        row = await self._store.get_service_account(connection, account_id, caller().org_id)
        if row is None:
            raise NotFound(
                "the organisation has no such service account; see `mercat org accounts`",
                reason="SERVICE_ACCOUNT_NOT_FOUND",
            )
        return row

    async def CreateOrganisationKey(
        self, request: organisation_pb2.CreateOrganisationKeyRequest, context: Context
    ) -> organisation_pb2.CreateOrganisationKeyResponse:
        principal, now, key_id = caller(), self._clock.now(), ids.new("key")
        keys.check_free(principal)
        expires = keys.future(request.expires_at, now) if request.HasField("expires_at") else None
        keys.check_signs(request.rules, signs=False)
        limit, rules = call_limits.column(keys.limit_of(request)), key_rules.column(request.rules)
        secret = keys.generate(test=request.test)
        audit.about("api_key", key_id)
        async with self._database.transaction() as connection:
            most = BY_MEMBER_ROLE[ADMIN]
            if request.service_account_id:
                account = await self._get(connection, request.service_account_id)
                most = scopes_of(account["role"], account["role_scopes"])
            scopes = keys.choose(request.scopes, most.intersection(principal.scopes))
            row = await self._keys.add_api_key(
                connection, key_id=key_id, owner_id=request.service_account_id or principal.org_id,
                org_id=principal.org_id, created_by=principal.user_id, key_hash=keys.digest(secret),
                prefix=keys.prefix(secret), name=request.name, scopes=scopes, test=request.test, expires_at=expires,
                call_limit=limit, rules=rules, now=now,
            )  # fmt: skip
            key = keys.message_of(row)
            audit.changed(after=key)
        return organisation_pb2.CreateOrganisationKeyResponse(api_key=key, secret=secret)

    async def ListOrganisationKeys(
        self, request: organisation_pb2.ListOrganisationKeysRequest, context: Context
    ) -> organisation_pb2.ListOrganisationKeysResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_organisation_keys(
                connection, caller().org_id, str(key[0]) if key else "", most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        found = [keys.message_of(r) for r in rows[:most]]
        return organisation_pb2.ListOrganisationKeysResponse(api_keys=found, next_page_token=token)

    async def RevokeOrganisationKey(
        self, request: organisation_pb2.RevokeOrganisationKeyRequest, context: Context
    ) -> organisation_pb2.RevokeOrganisationKeyResponse:
        org_id = caller().org_id
        audit.about("api_key", request.key_id)
        async with self._database.transaction() as connection:
            row = await self._store.revoke_organisation_key(connection, request.key_id, org_id)
            if row is None:
                raise NotFound(
                    "the organisation has no such key; see `mercat org keys list`", reason="API_KEY_NOT_FOUND"
                )
            key = keys.message_of(row)
            audit.changed(after=key)
        await forget(self._events, org_id=org_id, key_id=request.key_id)
        return organisation_pb2.RevokeOrganisationKeyResponse(api_key=key)


def _account(row: Row) -> organisation_pb2.ServiceAccount:
    account = organisation_pb2.ServiceAccount(
        service_account_id=row["id"], name=row["name"], role=row["role"], created_by=row["created_by"]
    )
    account.created_at.FromDatetime(row["created_at"])
    return account
