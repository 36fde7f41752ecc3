"""Serves `mercat.auth.v1.OAuthClientService`."""

import json
import secrets

from mercat.auth.v1 import oauth_pb2, oauth_pb2_grpc

from services.auth import keys
from services.auth.oauth.models import digest
from services.auth.oauth.store import OAuthStore
from services.auth.organisations.roles import scopes_of
from services.auth.organisations.standing import forget
from services.auth.organisations.store import OrganisationStore
from services.auth.scopes import PERSONAL
from services.auth.store import Row
from services.common import audit, ids, pages
from services.common.errors import NotFound, ResourceExhausted
from services.common.rpc.context import Context, caller
from services.common.service import Deps

_CLIENTS = 200  # of an organisation


class OAuthClientServicer(oauth_pb2_grpc.OAuthClientServiceServicer):
    """Makes and ends the clients of an organisation."""

    def __init__(self, deps: Deps, store: OAuthStore, organisations: OrganisationStore) -> None:
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._organisations = organisations

    async def CreateOAuthClient(
        self, request: oauth_pb2.CreateOAuthClientRequest, context: Context
    ) -> oauth_pb2.CreateOAuthClientResponse:
        principal, client_id = caller(), ids.new("cli")
        account_id = request.service_account_id
        secret = "mcs_" + secrets.token_urlsafe(32) if account_id else ""
        audit.about("oauth_client", client_id)
        async with self._database.transaction() as connection:
            await self._organisations.lock_organisation(connection, principal.org_id)
            if await self._store.count_clients(connection, principal.org_id) >= _CLIENTS:
                raise ResourceExhausted(
                    f"an organisation may have {_CLIENTS} OAuth clients", reason="TOO_MANY_OAUTH_CLIENTS"
                )
            most = frozenset(principal.scopes) - PERSONAL
            if account_id:
                account = await self._organisations.get_service_account(connection, account_id, principal.org_id)
                if account is None:
                    raise NotFound(
                        "the organisation has no such service account; see `mercat org accounts`",
                        reason="SERVICE_ACCOUNT_NOT_FOUND",
                    )
                most &= scopes_of(account["role"], account["role_scopes"])
            row = await self._store.add_client(
                connection, id=client_id, org_id=principal.org_id, service_account_id=account_id or None,
                name=request.name, secret_hash=digest(secret) if secret else None,
                scopes=keys.choose(request.scopes, most), created_by=principal.user_id, now=self._clock.now(),
            )  # fmt: skip
            client = _message(row)
            audit.changed(after=client)
        return oauth_pb2.CreateOAuthClientResponse(client=client, client_secret=secret)

    async def ListOAuthClients(
        self, request: oauth_pb2.ListOAuthClientsRequest, context: Context
    ) -> oauth_pb2.ListOAuthClientsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_clients(connection, caller().org_id, str(key[0]) if key else "", most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return oauth_pb2.ListOAuthClientsResponse(clients=[_message(r) for r in rows[:most]], next_page_token=token)

    async def DeleteOAuthClient(
        self, request: oauth_pb2.DeleteOAuthClientRequest, context: Context
    ) -> oauth_pb2.DeleteOAuthClientResponse:
        audit.about("oauth_client", request.client_id)
        async with self._database.transaction() as connection:
            row = await self._store.revoke_client(connection, request.client_id, caller().org_id, self._clock.now())
            if row is None:
                raise NotFound(
                    "the organisation has no such OAuth client; see `mercat org clients list`",
                    reason="OAUTH_CLIENT_NOT_FOUND",
                )
            audit.changed(_message(row))
        await forget(self._events, key_id=request.client_id)
        for user_id in row["users"]:
            await forget(self._events, user_id=user_id)
        return oauth_pb2.DeleteOAuthClientResponse()


def _message(row: Row) -> oauth_pb2.OAuthClient:
    client = oauth_pb2.OAuthClient(
        client_id=row["id"], name=row["name"], service_account_id=row["service_account_id"] or "",
        scopes=json.loads(row["scopes"]), created_by=row["created_by"],
    )  # fmt: skip
    client.created_at.FromDatetime(row["created_at"])
    return client
