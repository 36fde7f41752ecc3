"""The tables of organisations, one typed method per named query."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from services.auth.store import Row
from services.common.db import Connection, load_queries
from services.common.names import skeleton


class OrganisationStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth.organisations")

    async def add_organisation(
        self, c: Connection, *, org_id: str, handle: str, display_name: str, owner_id: str, now: datetime
    ) -> None:
        """One with its owner. Raises asyncpg.UniqueViolationError when the handle is taken, or looks like
        one that is."""
        await self._q.add_organisation(
            c, id=org_id, handle=handle, skeleton=skeleton(handle), display_name=display_name, now=now
        )
        await self._q.add_member(c, org_id=org_id, user_id=owner_id, role="owner", now=now)

    async def count_owned(self, c: Connection, user_id: str) -> int:
        """How many a user owns, whose row is locked, beside the personal one."""
        await self._q.lock_user(c, user_id=user_id)
        return int(await self._q.count_owned(c, user_id=user_id))

    async def lock_organisation(self, c: Connection, org_id: str) -> Row:
        row: Row = await self._q.lock_organisation(c, org_id=org_id)
        return row

    async def list_organisations(self, c: Connection, user_id: str, only: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_organisations(c, user_id=user_id, only=only, after=after, most=most)]

    async def get_organisation(self, c: Connection, org_id: str, user_id: str) -> Row:
        """With the user's role there, which may be none."""
        row: Row = await self._q.get_organisation(c, org_id=org_id, user_id=user_id)
        return row

    async def update_organisation(self, c: Connection, org_id: str, display_name: str, revision: int) -> bool:
        """False when the revision is no longer the current one; 0 is any."""
        changed = await self._q.update_organisation(c, org_id=org_id, display_name=display_name, revision=revision)
        return changed is not None

    async def add_member(self, c: Connection, org_id: str, user_id: str, role: str, now: datetime) -> bool:
        """False when they are in it."""
        return await self._q.add_member(c, org_id=org_id, user_id=user_id, role=role, now=now) is not None

    async def list_members(self, c: Connection, org_id: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_members(c, org_id=org_id, after=after, most=most)]

    async def get_member(self, c: Connection, org_id: str, user_id: str) -> Row | None:
        row: Row | None = await self._q.get_member(c, org_id=org_id, user_id=user_id)
        return row

    async def has_member(self, c: Connection, org_id: str, email: str) -> bool:
        return await self._q.find_member(c, org_id=org_id, email=email) is not None

    async def count_owners(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_owners(c, org_id=org_id))

    async def set_member_role(self, c: Connection, org_id: str, user_id: str, role: str) -> None:
        await self._q.set_member_role(c, org_id=org_id, user_id=user_id, role=role)

    async def remove_member(self, c: Connection, org_id: str, user_id: str) -> None:
        """And their own keys of the organisation, for good."""
        await self._q.remove_member(c, org_id=org_id, user_id=user_id)
        await self._q.end_keys_of_member(c, org_id=org_id, user_id=user_id)

    async def get_role(self, c: Connection, org_id: str, name: str) -> str | None:
        """The scopes of a role of the organisation's own, JSON."""
        scopes: str | None = await self._q.get_role(c, org_id=org_id, name=name)
        return scopes

    async def list_roles(self, c: Connection, org_id: str, after: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_roles(c, org_id=org_id, after=after, most=most)]

    async def count_roles(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_roles(c, org_id=org_id))

    async def put_role(self, c: Connection, org_id: str, name: str, scopes: Iterable[str]) -> None:
        await self._q.put_role(c, org_id=org_id, name=name, scopes=json.dumps(sorted(scopes)))

    async def role_in_use(self, c: Connection, org_id: str, name: str, now: datetime) -> bool:
        return bool(await self._q.role_in_use(c, org_id=org_id, name=name, now=now))

    async def delete_role(self, c: Connection, org_id: str, name: str) -> None:
        await self._q.delete_role(c, org_id=org_id, name=name)

    async def count_invitations(self, c: Connection, org_id: str, now: datetime) -> int:
        return int(await self._q.count_invitations(c, org_id=org_id, now=now))

    async def add_invitation(self, c: Connection, *, org_id: str, email: str, now: datetime, **columns: Any) -> Row:
        """In place of the address's open one."""
        await self._q.end_invitations_of(c, org_id=org_id, email=email, now=now)
        row: Row = await self._q.add_invitation(c, org_id=org_id, email=email, now=now, **columns)
        return row

    async def invited_since(
        self, c: Connection, since: datetime, *, org_id: str = "", email: str = ""
    ) -> list[datetime]:
        """When invitations were made, of an organisation or an address, oldest first."""
        rows = self._q.invited_since(c, since=since, org_id=org_id, email=email)
        return [r["created_at"] async for r in rows]

    async def list_invitations(self, c: Connection, org_id: str, before: str, now: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.list_invitations(c, org_id=org_id, before=before, now=now, most=most)]

    async def revoke_invitation(self, c: Connection, invitation_id: str, org_id: str, now: datetime) -> Row | None:
        row: Row | None = await self._q.revoke_invitation(c, invitation_id=invitation_id, org_id=org_id, now=now)
        return row

    async def find_invitation(self, c: Connection, code_hash: bytes) -> str | None:
        """The organisation that a code is of, whatever became of it."""
        org_id: str | None = await self._q.find_invitation(c, code_hash=code_hash)
        return org_id

    async def accept_invitation(self, c: Connection, code_hash: bytes, user_id: str, now: datetime) -> Row | None:
        """The invitation, used up by this; None when there is none that the user may accept."""
        row: Row | None = await self._q.accept_invitation(c, code_hash=code_hash, user_id=user_id, now=now)
        return row

    async def add_service_account(self, c: Connection, **columns: Any) -> Row:
        """Raises asyncpg.UniqueViolationError when the name is taken."""
        row: Row = await self._q.add_service_account(c, **columns)
        return row

    async def count_service_accounts(self, c: Connection, org_id: str) -> int:
        return int(await self._q.count_service_accounts(c, org_id=org_id))

    async def list_service_accounts(self, c: Connection, org_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_service_accounts(c, org_id=org_id, before=before, most=most)]

    async def get_service_account(self, c: Connection, service_account_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_service_account(c, service_account_id=service_account_id, org_id=org_id)
        return row

    async def delete_service_account(self, c: Connection, service_account_id: str, now: datetime) -> None:
        """And its keys."""
        await self._q.delete_service_account(c, service_account_id=service_account_id, now=now)
        await self._q.end_keys_of_service_account(c, service_account_id=service_account_id)

    async def list_organisation_keys(self, c: Connection, org_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_organisation_keys(c, org_id=org_id, before=before, most=most)]

    async def revoke_organisation_key(self, c: Connection, key_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.revoke_organisation_key(c, key_id=key_id, org_id=org_id)
        return row
