"""Organisations and their members."""

from collections.abc import Iterable

import asyncpg
from mercat.auth.v1 import auth_pb2, organisation_pb2, organisation_pb2_grpc
from mercat.event.v1 import event_pb2

from services.auth.handles.handles import Handles, too_similar
from services.auth.organisations.roles import check_within, is_person, scopes_of
from services.auth.organisations.standing import forget, member_within, role_within, shared, still_owned
from services.auth.organisations.store import OrganisationStore
from services.auth.scopes import ADMIN, BY_MEMBER_ROLE, OWNER
from services.auth.store import Row
from services.common import audit, etags, ids, outbox, pages
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

_OWNED = 50  # organisations a user may own
_ROLES = 50  # that an organisation may have of its own


class OrganisationServicer(organisation_pb2_grpc.OrganisationServiceServicer):
    """Serves `mercat.auth.v1.OrganisationService`."""

    def __init__(self, deps: Deps, store: OrganisationStore, handles: Handles) -> None:
        self._database = deps.database
        self._events = deps.events
        self._clock = deps.clock
        self._store = store
        self._handles = handles

    async def CreateOrganisation(
        self, request: organisation_pb2.CreateOrganisationRequest, context: Context
    ) -> organisation_pb2.CreateOrganisationResponse:
        operator = caller().role == auth_pb2.ROLE_ADMIN
        self._handles.check_allowed(request.handle, "handle", operator=operator)
        user_id, org_id, now = caller().user_id, ids.new("org"), self._clock.now()
        audit.about("organisation", org_id)
        try:
            async with self._database.transaction() as connection:
                if await self._store.count_owned(connection, user_id) >= _OWNED:
                    raise ResourceExhausted(f"you own {_OWNED} organisations", reason="TOO_MANY_ORGANISATIONS")
                await self._store.add_organisation(
                    connection, org_id=org_id, handle=request.handle, display_name=request.display_name,
                    owner_id=user_id, now=now,
                )  # fmt: skip
                await self._handles.check_released(connection, request.handle, "handle")
                event = event_pb2.OrganisationCreated(org_id=org_id, handle=request.handle, user_id=user_id)
                await outbox.add(connection, event)
                row = await self._store.get_organisation(connection, org_id, user_id)
        except asyncpg.UniqueViolationError as e:
            raise too_similar(e, "handle") or _taken() from None
        return organisation_pb2.CreateOrganisationResponse(organisation=organisation_of(row))

    async def ListOrganisations(
        self, request: organisation_pb2.ListOrganisationsRequest, context: Context
    ) -> organisation_pb2.ListOrganisationsResponse:
        principal = caller()
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        only, after = principal.org_id if principal.key_id else "", str(key[0]) if key else ""
        async with self._database.connection() as connection:
            if is_person(principal.user_id):
                rows = await self._store.list_organisations(connection, principal.user_id, only, after, most + 1)
            else:
                rows = [await self._store.get_organisation(connection, principal.org_id, principal.user_id)]
        token = pages.encode([rows[most - 1]["handle"]]) if len(rows) > most else ""
        found = [organisation_of(r, principal) for r in rows[:most]]
        return organisation_pb2.ListOrganisationsResponse(organisations=found, next_page_token=token)

    async def GetOrganisation(
        self, request: organisation_pb2.GetOrganisationRequest, context: Context
    ) -> organisation_pb2.GetOrganisationResponse:
        principal = caller()
        async with self._database.connection() as connection:
            row = await self._store.get_organisation(connection, principal.org_id, principal.user_id)
        return organisation_pb2.GetOrganisationResponse(organisation=organisation_of(row, principal))

    async def UpdateOrganisation(
        self, request: organisation_pb2.UpdateOrganisationRequest, context: Context
    ) -> organisation_pb2.UpdateOrganisationResponse:
        principal, revision = caller(), etags.revision(request.etag, "organisation")
        audit.about("organisation", principal.org_id)
        async with self._database.transaction() as connection:
            before = organisation_of(await self._store.lock_organisation(connection, principal.org_id))
            if not await self._store.update_organisation(connection, principal.org_id, request.display_name, revision):
                raise EtagMismatch("the organisation was changed meanwhile; read it again")
            row = await self._store.get_organisation(connection, principal.org_id, principal.user_id)
            audit.changed(before, organisation_of(row))
        return organisation_pb2.UpdateOrganisationResponse(organisation=organisation_of(row, principal))

    async def ListMembers(
        self, request: organisation_pb2.ListMembersRequest, context: Context
    ) -> organisation_pb2.ListMembersResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_members(connection, caller().org_id, str(key[0]) if key else "", most + 1)
        members = [member_of(r) for r in rows[:most]]
        token = pages.encode([members[-1].user_id]) if len(rows) > most else ""
        return organisation_pb2.ListMembersResponse(members=members, next_page_token=token)

    async def SetMemberRole(
        self, request: organisation_pb2.SetMemberRoleRequest, context: Context
    ) -> organisation_pb2.SetMemberRoleResponse:
        principal = caller()
        audit.about("member", request.user_id)
        async with self._database.transaction() as connection:
            await shared(self._store, connection, principal.org_id)
            before = await member_within(self._store, connection, principal, request.user_id)
            await role_within(self._store, connection, principal, request.role)
            if request.role != OWNER:
                await still_owned(self._store, connection, principal.org_id, before)
            member = await self._give(connection, principal.org_id, before, request.role)
        await forget(self._events, org_id=principal.org_id, user_id=request.user_id)
        return organisation_pb2.SetMemberRoleResponse(member=member)

    async def _give(self, connection: Connection, org_id: str, before: Row, role: str) -> organisation_pb2.Member:
        await self._store.set_member_role(connection, org_id, before["user_id"], role)
        member = member_of({**before, "role": role})
        audit.changed(member_of(before), member)
        return member

    async def RemoveMember(
        self, request: organisation_pb2.RemoveMemberRequest, context: Context
    ) -> organisation_pb2.RemoveMemberResponse:
        await self._remove(caller(), request.user_id)
        return organisation_pb2.RemoveMemberResponse()

    async def LeaveOrganisation(
        self, request: organisation_pb2.LeaveOrganisationRequest, context: Context
    ) -> organisation_pb2.LeaveOrganisationResponse:
        principal = caller()
        everything = auth_pb2.Principal(org_id=principal.org_id, scopes=BY_MEMBER_ROLE[OWNER])  # of what is theirs
        await self._remove(everything, principal.user_id)
        return organisation_pb2.LeaveOrganisationResponse()

    async def _remove(self, by: auth_pb2.Principal, user_id: str) -> None:
        audit.about("member", user_id)
        async with self._database.transaction() as connection:
            await shared(self._store, connection, by.org_id)
            member = await member_within(self._store, connection, by, user_id)
            await still_owned(self._store, connection, by.org_id, member)
            await self._store.remove_member(connection, by.org_id, user_id)
            audit.changed(member_of(member))
        # Quicker than the few seconds that others trust what they know; those hold without any event.
        await forget(self._events, org_id=by.org_id, user_id=user_id)

    async def TransferOwnership(
        self, request: organisation_pb2.TransferOwnershipRequest, context: Context
    ) -> organisation_pb2.TransferOwnershipResponse:
        principal = caller()
        audit.about("member", request.user_id)
        if request.user_id == principal.user_id:
            raise InvalidFields(violations=[Violation("user_id", "is your own")])
        async with self._database.transaction() as connection:
            await shared(self._store, connection, principal.org_id)
            before = await member_within(self._store, connection, principal, request.user_id)
            own = await self._store.get_member(connection, principal.org_id, principal.user_id)
            if own is None or own["role"] != OWNER:  # a service account, or no owner since a moment
                raise FailedPrecondition("only an owner transfers ownership", reason="NOT_AN_OWNER")
            await self._store.set_member_role(connection, principal.org_id, principal.user_id, ADMIN)
            member = await self._give(connection, principal.org_id, before, OWNER)
        for user_id in (request.user_id, principal.user_id):
            await forget(self._events, org_id=principal.org_id, user_id=user_id)
        return organisation_pb2.TransferOwnershipResponse(member=member)

    async def ListRoles(
        self, request: organisation_pb2.ListRolesRequest, context: Context
    ) -> organisation_pb2.ListRolesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_roles(connection, caller().org_id, str(key[0]) if key else "", most + 1)
        built_in = [] if key else [_role(name, scopes, built_in=True) for name, scopes in BY_MEMBER_ROLE.items()]
        token = pages.encode([rows[most - 1]["name"]]) if len(rows) > most else ""
        own = [_role(r["name"], scopes_of(r["name"], r["scopes"])) for r in rows[:most]]
        return organisation_pb2.ListRolesResponse(roles=[*built_in, *own], next_page_token=token)

    async def SetRole(
        self, request: organisation_pb2.SetRoleRequest, context: Context
    ) -> organisation_pb2.SetRoleResponse:
        principal = caller()
        audit.about("role", caller().org_id)
        if request.name in BY_MEMBER_ROLE:
            raise InvalidFields(violations=[Violation("name", "is a role that every organisation has, as it is")])
        if unknown := set(request.scopes) - BY_MEMBER_ROLE[OWNER]:
            raise InvalidFields(violations=[Violation("scopes", f"no role has a scope {min(unknown)}")])
        async with self._database.transaction() as connection:
            await shared(self._store, connection, principal.org_id)
            before = await self._store.get_role(connection, principal.org_id, request.name)
            check_within({*request.scopes, *scopes_of(request.name, before)}, principal.scopes)
            if before is None and await self._store.count_roles(connection, principal.org_id) >= _ROLES:
                raise ResourceExhausted(f"an organisation may have {_ROLES} roles of its own", reason="TOO_MANY_ROLES")
            await self._store.put_role(connection, principal.org_id, request.name, set(request.scopes))
            role = _role(request.name, request.scopes)
            audit.changed(_role(request.name, scopes_of(request.name, before)) if before else None, role)
        await forget(self._events, org_id=principal.org_id)
        return organisation_pb2.SetRoleResponse(role=role)

    async def DeleteRole(
        self, request: organisation_pb2.DeleteRoleRequest, context: Context
    ) -> organisation_pb2.DeleteRoleResponse:
        principal = caller()
        audit.about("role", caller().org_id)
        async with self._database.transaction() as connection:
            await self._store.lock_organisation(connection, principal.org_id)
            before = await self._store.get_role(connection, principal.org_id, request.name)
            if before is None:
                raise NotFound("the organisation has no such role of its own", reason="ROLE_NOT_FOUND")
            check_within(scopes_of(request.name, before), principal.scopes)
            if await self._store.role_in_use(connection, principal.org_id, request.name, self._clock.now()):
                raise FailedPrecondition(
                    "somebody, a team or single sign-on has this role, or an invitation", reason="ROLE_IN_USE"
                )
            await self._store.delete_role(connection, principal.org_id, request.name)
            audit.changed(_role(request.name, scopes_of(request.name, before)))
        return organisation_pb2.DeleteRoleResponse()


def _taken() -> AlreadyExists:
    problem = Violation("handle", "is a person's or an organisation's; choose another")
    return AlreadyExists("this handle is taken", reason="HANDLE_TAKEN", violations=[problem])


def _role(name: str, scopes: Iterable[str], *, built_in: bool = False) -> organisation_pb2.OrganisationRole:
    return organisation_pb2.OrganisationRole(name=name, scopes=sorted(set(scopes)), built_in=built_in)


def organisation_of(row: Row, principal: auth_pb2.Principal | None = None) -> organisation_pb2.Organisation:
    """An organisation; with the scopes of who asks where it is their current one."""
    made = organisation_pb2.Organisation(
        org_id=row["id"], handle=row["handle"], display_name=row["display_name"],
        personal=row["personal_of"] is not None, member_role=row.get("member_role") or "", etag=str(row["revision"]),
    )  # fmt: skip
    if principal is not None and principal.org_id == made.org_id:
        made.scopes.extend(sorted(principal.scopes))
    made.created_at.FromDatetime(row["created_at"])
    return made


def member_of(row: Row) -> organisation_pb2.Member:
    member = organisation_pb2.Member(
        user_id=row["user_id"], username=row["username"], email=row["email"], display_name=row["display_name"],
        role=row["role"],
    )  # fmt: skip
    member.joined_at.FromDatetime(row["created_at"])
    return member
