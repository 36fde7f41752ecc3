"""What every act within an organisation asks first: may there be members, is there the member, would anybody own it."""

from collections.abc import Iterable

from mercat.auth.v1 import auth_pb2
from mercat.event.v1 import event_pb2

from services.auth.organisations.roles import check_within, held_by, scopes_of
from services.auth.organisations.store import OrganisationStore
from services.auth.scopes import BY_MEMBER_ROLE, OWNER
from services.auth.store import Row
from services.common.db import Connection
from services.common.errors import FailedPrecondition, InvalidFields, NotFound, Violation
from services.common.events import Events, broadcast
from services.common.rpc.principals import FORGET_SUBJECT


async def shared(store: OrganisationStore, c: Connection, org_id: str) -> Row:
    """The organisation, locked. Raises FailedPrecondition for a personal one."""
    row = await store.lock_organisation(c, org_id)
    if row["personal_of"] is not None:
        raise FailedPrecondition(
            "a personal organisation has one member; make another with `mercat org create`",
            reason="PERSONAL_ORGANISATION",
        )
    return row


async def member_of_organisation(store: OrganisationStore, c: Connection, org_id: str, user_id: str) -> Row:
    """Raises NotFound."""
    member = await store.get_member(c, org_id, user_id)
    if member is None:
        raise NotFound(f"there is no member {user_id}; see `mercat org members`", reason="MEMBER_NOT_FOUND")
    return member


async def member_within(store: OrganisationStore, c: Connection, caller: auth_pb2.Principal, user_id: str) -> Row:
    """A member of the caller's organisation with no scope, by their role or a team, that the caller does not hold.
    Raises NotFound, or PermissionDenied."""
    member = await member_of_organisation(store, c, caller.org_id, user_id)
    check_within(held_by(member), caller.scopes)
    return member


async def still_owned(store: OrganisationStore, c: Connection, org_id: str, member: Row) -> None:
    """Raises FailedPrecondition when the organisation, which is locked, has no owner but this member."""
    if member["role"] == OWNER and await store.count_owners(c, org_id) < 2:
        raise FailedPrecondition(
            "an organisation has an owner; make somebody else owner first: `mercat org transfer USER`",
            reason="LAST_OWNER",
        )


async def role_within(store: OrganisationStore, c: Connection, caller: auth_pb2.Principal, role: str) -> Iterable[str]:
    """The scopes of a role that the caller may give. Raises InvalidFields when there is none, and PermissionDenied."""
    own = None if role in BY_MEMBER_ROLE else await store.get_role(c, caller.org_id, role)
    if role not in BY_MEMBER_ROLE and own is None:
        known = ", ".join(BY_MEMBER_ROLE)
        raise InvalidFields(violations=[Violation("role", f"is none of {known}, nor one of the organisation's own")])
    scopes = scopes_of(role, own)
    check_within(scopes, caller.scopes)
    return scopes


async def forget(events: Events, **changed: str) -> None:
    """Makes everybody ask anew who somebody is, sooner than they would by themselves."""
    await broadcast(events, FORGET_SUBJECT, event_pb2.PrincipalChanged(**changed).SerializeToString())
