"""Invitations: a code for an address, which makes who has both a member, once."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.auth.v1 import organisation_pb2, organisation_pb2_grpc

from services.auth.organisations.service import organisation_of
from services.auth.organisations.standing import role_within, shared
from services.auth.organisations.store import OrganisationStore
from services.auth.signin.letters import Letters
from services.auth.store import Row
from services.common import audit, ids, pages
from services.common.db import Connection
from services.common.errors import AlreadyExists, InvalidFields, NotFound, ResourceExhausted, Violation
from services.common.rpc.context import Context, caller
from services.common.service import Deps

LIFETIME, LONGEST = timedelta(days=7), timedelta(days=30)
_OPEN = 500  # invitations of an organisation
_HOUR, _OF_ADDRESS, _OF_ORGANISATION = timedelta(hours=1), 5, 100  # mails


class InvitationServicer(organisation_pb2_grpc.InvitationServiceServicer):
    """Serves `mercat.auth.v1.InvitationService`."""

    def __init__(self, deps: Deps, store: OrganisationStore, letters: Letters) -> None:
        self._letters = letters
        self._database = deps.database
        self._clock = deps.clock
        self._store = store

    async def CreateInvitation(
        self, request: organisation_pb2.CreateInvitationRequest, context: Context
    ) -> organisation_pb2.CreateInvitationResponse:
        principal, now = caller(), self._clock.now()
        expires = _expiry(request.expires_at, now) if request.HasField("expires_at") else now + LIFETIME
        code, invitation_id = "mi_" + secrets.token_urlsafe(32), ids.new("ivt")
        audit.about("invitation", invitation_id)
        async with self._database.transaction() as connection:
            organisation = await shared(self._store, connection, principal.org_id)
            await role_within(self._store, connection, principal, request.role)
            if await self._store.has_member(connection, principal.org_id, request.email):
                raise AlreadyExists(f"{request.email} is a member", reason="ALREADY_A_MEMBER")
            if await self._store.count_invitations(connection, principal.org_id, now) >= _OPEN:
                raise ResourceExhausted(f"{_OPEN} invitations are open", reason="TOO_MANY_INVITATIONS")
            await self._check_mails(connection, principal.org_id, request.email, now)
            row = await self._store.add_invitation(
                connection, id=invitation_id, org_id=principal.org_id, email=request.email, role=request.role,
                code_hash=_hash(code), invited_by=principal.user_id, now=now, expires_at=expires,
            )  # fmt: skip
            inviter = await self._store.get_member(connection, principal.org_id, principal.user_id)
            await self._letters.invitation(connection, organisation, inviter, row, code)
        return organisation_pb2.CreateInvitationResponse(invitation=_invitation(row), code=code)

    async def _check_mails(self, connection: Connection, org_id: str, email: str, now: datetime) -> None:
        """Raises ResourceExhausted, with a retry hint, when an address or an organisation has its share of mail: nobody
        fills others' mailboxes by way of us."""
        for since, most in (
            (await self._store.invited_since(connection, now - _HOUR, email=email), _OF_ADDRESS),
            (await self._store.invited_since(connection, now - _HOUR, org_id=org_id), _OF_ORGANISATION),
        ):
            if len(since) >= most:
                wait = (since[-most] + _HOUR - now).total_seconds()
                raise ResourceExhausted(
                    f"{most} invitations were sent within the hour", reason="MAIL_LIMITED", retry_after=wait
                )

    async def ListInvitations(
        self, request: organisation_pb2.ListInvitationsRequest, context: Context
    ) -> organisation_pb2.ListInvitationsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list_invitations(
                connection, caller().org_id, str(key[0]) if key else "", self._clock.now(), most + 1
            )
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        found = [_invitation(r) for r in rows[:most]]
        return organisation_pb2.ListInvitationsResponse(invitations=found, next_page_token=token)

    async def RevokeInvitation(
        self, request: organisation_pb2.RevokeInvitationRequest, context: Context
    ) -> organisation_pb2.RevokeInvitationResponse:
        audit.about("invitation", request.invitation_id)
        async with self._database.transaction() as connection:
            row = await self._store.revoke_invitation(
                connection, request.invitation_id, caller().org_id, self._clock.now()
            )
            if row is None:
                raise NotFound("there is no such open invitation", reason="INVITATION_NOT_FOUND")
            audit.changed(_invitation(row))
        return organisation_pb2.RevokeInvitationResponse()

    async def AcceptInvitation(
        self, request: organisation_pb2.AcceptInvitationRequest, context: Context
    ) -> organisation_pb2.AcceptInvitationResponse:
        user_id, now = caller().user_id, self._clock.now()
        code_hash = _hash(request.code)
        async with self._database.transaction() as connection:
            # Organisations are locked before their invitations, as where those are made.
            org_id = await self._store.find_invitation(connection, code_hash)
            if org_id is not None:
                await self._store.lock_organisation(connection, org_id)
            row = await self._store.accept_invitation(connection, code_hash, user_id, now)
            if row is None:
                raise NotFound(
                    "no invitation of your address has this code; it may be used, withdrawn or expired",
                    reason="INVITATION_NOT_FOUND",
                )
            audit.about("invitation", row["id"])
            audit.by(user_id, row["org_id"])  # it is that organisation's affair
            await self._store.add_member(connection, row["org_id"], user_id, row["role"], now)
            organisation = await self._store.get_organisation(connection, row["org_id"], user_id)
        return organisation_pb2.AcceptInvitationResponse(organisation=organisation_of(organisation))


def _expiry(timestamp: Timestamp, now: datetime) -> datetime:
    try:
        at = timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        at = now
    if not now < at <= now + LONGEST:
        raise InvalidFields(violations=[Violation("expires_at", f"must be within the next {LONGEST.days} days")])
    return at


def _hash(code: str) -> bytes:
    return hashlib.sha256(code.encode()).digest()


def _invitation(row: Row) -> organisation_pb2.Invitation:
    made = organisation_pb2.Invitation(
        invitation_id=row["id"], email=row["email"], role=row["role"], invited_by=row["invited_by"]
    )
    made.created_at.FromDatetime(row["created_at"])
    made.expires_at.FromDatetime(row["expires_at"])
    return made
