"""Serves `mercat.auth.v1.SsoService`. The provider and the DNS are asked outside of every transaction."""

from dataclasses import dataclass

import asyncpg
from mercat.auth.v1 import sso_pb2, sso_pb2_grpc
from mercat.event.v1 import event_pb2
from pydantic import ValidationError

from services.auth.identities.protocol import Relying
from services.auth.organisations.standing import forget, role_within, shared
from services.auth.scopes import OWNER
from services.auth.sso import domains
from services.auth.sso.connecting import SECRET, Connecting, SsoNotFound, provider_of
from services.auth.sso.domains import Resolver
from services.auth.store import Row
from services.common import audit, etags, outbox, pages
from services.common.db import Connection
from services.common.errors import (
    AlreadyExists,
    EtagMismatch,
    FailedPrecondition,
    InvalidFields,
    NotFound,
    ResourceExhausted,
    Violation,
)
from services.common.rpc.context import Context, caller
from services.common.service import Deps

_DOMAINS = 50  # of an organisation
_DEFAULT = "viewer"


@dataclass
class SsoServicer(sso_pb2_grpc.SsoServiceServicer):
    """An organisation's connection, and its domains."""

    deps: Deps
    connecting: Connecting
    relying: Relying
    resolver: Resolver

    async def SetSsoConnection(
        self, request: sso_pb2.SetSsoConnectionRequest, context: Context
    ) -> sso_pb2.SetSsoConnectionResponse:
        principal, revision = caller(), etags.revision(request.etag, "connection")
        audit.about("sso_connection", principal.org_id)
        role = request.default_role or _DEFAULT
        if role == OWNER:
            raise InvalidFields(violations=[Violation("default_role", "makes nobody owner")])
        try:
            provider = provider_of(
                principal.org_id, principal.handle, request.issuer, request.client_id, request.client_secret,
                private=self.connecting.private,
            )  # fmt: skip
        except ValidationError:
            raise InvalidFields(violations=[Violation("issuer", "must be https://…, without a query")]) from None
        await self.relying.check(provider)
        async with self.deps.database.transaction() as connection:
            await shared(self.connecting.organisations, connection, principal.org_id)
            await role_within(self.connecting.organisations, connection, principal, role)
            before = await self.connecting.store.get_connection(connection, principal.org_id)
            if revision and (before is None or before["revision"] != revision):
                raise EtagMismatch("the connection was changed meanwhile; read it again")
            row = await self.connecting.store.put_connection(
                connection, org_id=principal.org_id, issuer=request.issuer, client_id=request.client_id,
                sealed_secret=await self._sealed(connection, request, before), default_role=role,
                required=request.required, now=self.deps.clock.now(),
            )  # fmt: skip
            made = _connection(row)
            audit.changed(_connection(before) if before else None, made)
        await forget(self.deps.events, org_id=principal.org_id)  # sessions may act for it no more, or again
        return sso_pb2.SetSsoConnectionResponse(connection=made)

    async def _sealed(
        self, connection: Connection, request: sso_pb2.SetSsoConnectionRequest, before: Row | None
    ) -> bytes:
        """The secret that was given, or that of the same client: no other provider is told it."""
        if request.client_secret:
            return await self.connecting.keyring.seal(
                connection, caller().org_id, request.client_secret.encode(), SECRET
            )
        same = before is not None and (before["issuer"], before["client_id"]) == (request.issuer, request.client_id)
        return bytes(before["sealed_secret"]) if before is not None and same else b""

    async def GetSsoConnection(
        self, request: sso_pb2.GetSsoConnectionRequest, context: Context
    ) -> sso_pb2.GetSsoConnectionResponse:
        async with self.deps.database.connection() as connection:
            row = await self.connecting.store.get_connection(connection, caller().org_id)
        if row is None:
            raise _none()
        return sso_pb2.GetSsoConnectionResponse(connection=_connection(row))

    async def DeleteSsoConnection(
        self, request: sso_pb2.DeleteSsoConnectionRequest, context: Context
    ) -> sso_pb2.DeleteSsoConnectionResponse:
        org_id = caller().org_id
        audit.about("sso_connection", org_id)
        async with self.deps.database.transaction() as connection:
            await self.connecting.organisations.lock_organisation(connection, org_id)
            row = await self.connecting.store.get_connection(connection, org_id)
            if row is None:
                raise _none()
            if not request.force:
                await self._check_other_ways(connection)
            await self.connecting.store.delete_connection(connection, org_id)
            audit.changed(_connection(row))
        await forget(self.deps.events, org_id=org_id)
        return sso_pb2.DeleteSsoConnectionResponse()

    async def _check_other_ways(self, connection: Connection, domain: str = "") -> None:
        """Raises FailedPrecondition, which names them, while people sign in in no other way."""
        only = await self.connecting.store.only_way_of(connection, caller().org_id, domain)
        if only:
            raise FailedPrecondition(
                f"{', '.join(only)} could not sign in any more until they set a password with `mercat password forgot`;"
                " tell them, and force it", reason="SSO_ONLY_WAY", metadata={"usernames": " ".join(only)},
            )  # fmt: skip

    async def AddSsoDomain(
        self, request: sso_pb2.AddSsoDomainRequest, context: Context
    ) -> sso_pb2.AddSsoDomainResponse:
        org_id, store = caller().org_id, self.connecting.store
        audit.about("sso_domain", caller().org_id)
        async with self.deps.database.transaction() as connection:
            await shared(self.connecting.organisations, connection, org_id)
            known = await store.get_domain(connection, org_id, request.domain)
            if known is None and await store.count_domains(connection, org_id) >= _DOMAINS:
                raise ResourceExhausted(f"an organisation may have {_DOMAINS} domains", reason="TOO_MANY_DOMAINS")
            row = known or await store.add_domain(
                connection, org_id, request.domain, domains.new_token(), self.deps.clock.now()
            )
        return sso_pb2.AddSsoDomainResponse(domain=_domain(row))

    async def ListSsoDomains(
        self, request: sso_pb2.ListSsoDomainsRequest, context: Context
    ) -> sso_pb2.ListSsoDomainsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self.deps.database.connection() as connection:
            after = str(key[0]) if key else ""
            rows = await self.connecting.store.list_domains(connection, caller().org_id, after, most + 1)
        token = pages.encode([rows[most - 1]["domain"]]) if len(rows) > most else ""
        return sso_pb2.ListSsoDomainsResponse(domains=[_domain(r) for r in rows[:most]], next_page_token=token)

    async def VerifySsoDomain(
        self, request: sso_pb2.VerifySsoDomainRequest, context: Context
    ) -> sso_pb2.VerifySsoDomainResponse:
        org_id = caller().org_id
        audit.about("sso_domain", caller().org_id)
        async with self.deps.database.connection() as connection:
            row = await self._domain(connection, request.domain)
        if not await domains.proves(self.resolver, row["domain"], row["token"]):
            name, value = domains.record(row["domain"], row["token"])
            raise FailedPrecondition(
                f"{name} has no TXT record {value} yet; it may take a while until all see it",
                reason="SSO_RECORD_MISSING", metadata={"record_name": name, "record_value": value},
            )  # fmt: skip
        try:
            async with self.deps.database.transaction() as connection:
                await self._domain(connection, request.domain)
                verified = await self.connecting.store.verify_domain(
                    connection, org_id, request.domain, self.deps.clock.now()
                )
                assert verified is not None
                audit.changed(_domain(row), _domain(verified))
                await _told(connection)
        except asyncpg.UniqueViolationError:
            raise AlreadyExists(
                f"another organisation has proved that {request.domain} is its own; it must remove it first",
                reason="SSO_DOMAIN_TAKEN",
            ) from None
        await forget(self.deps.events, org_id=org_id)
        return sso_pb2.VerifySsoDomainResponse(domain=_domain(verified))

    async def RemoveSsoDomain(
        self, request: sso_pb2.RemoveSsoDomainRequest, context: Context
    ) -> sso_pb2.RemoveSsoDomainResponse:
        audit.about("sso_domain", caller().org_id)
        async with self.deps.database.transaction() as connection:
            await self.connecting.organisations.lock_organisation(connection, caller().org_id)
            row = await self._domain(connection, request.domain)
            if row["verified_at"] is not None and not request.force:
                await self._check_other_ways(connection, request.domain)
            await self.connecting.store.remove_domain(connection, caller().org_id, request.domain)
            audit.changed(_domain(row))
            if row["verified_at"] is not None:
                await _told(connection)
        return sso_pb2.RemoveSsoDomainResponse()

    async def _domain(self, connection: Connection, domain: str) -> Row:
        row = await self.connecting.store.get_domain(connection, caller().org_id, domain)
        if row is None:
            raise NotFound("the organisation has no such domain; see `mercat org sso show`",
                           reason="SSO_DOMAIN_NOT_FOUND")  # fmt: skip
        return row


async def _told(connection: Connection) -> None:
    """That the domains of the caller's organisation are others now."""
    event = event_pb2.OrganisationDomainsChanged(org_id=caller().org_id, handle=caller().handle)
    await outbox.add(connection, event)


def _none() -> SsoNotFound:
    return SsoNotFound("the organisation has no single sign-on; set it up with `mercat org sso set`")


def _connection(row: Row) -> sso_pb2.SsoConnection:
    made = sso_pb2.SsoConnection(
        issuer=row["issuer"], client_id=row["client_id"], default_role=row["default_role"], required=row["required"],
        etag=str(row["revision"]),
    )  # fmt: skip
    made.updated_at.FromDatetime(row["updated_at"])
    return made


def _domain(row: Row) -> sso_pb2.SsoDomain:
    name, value = domains.record(row["domain"], row["token"])
    made = sso_pb2.SsoDomain(domain=row["domain"], record_name=name, record_value=value)
    if row["verified_at"] is not None:
        made.verified_at.FromDatetime(row["verified_at"])
    return made
