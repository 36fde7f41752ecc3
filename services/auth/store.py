"""The tables of auth, one typed method per named query."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.common.db import Connection, load_queries
from services.common.names import skeleton

Row = Mapping[str, Any]


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.auth")

    async def add_user(
        self, c: Connection, *, user_id: str, org_id: str, email: str, username: str, password_hash: str, role: int,
        display_name: str, is_verified: bool, now: datetime,
    ) -> None:  # fmt: skip
        """A user and their personal organisation. Raises asyncpg.UniqueViolationError when one is taken, or looks like
        one that is."""
        await self._q.add_user(
            c, id=user_id, email=email, username=username, password_hash=password_hash, role=role,
            display_name=display_name, is_verified=is_verified, now=now,
        )  # fmt: skip
        await self._q.add_organisation(
            c, id=org_id, handle=username, skeleton=skeleton(username), personal_of=user_id, now=now
        )
        await self._q.add_member(c, org_id=org_id, user_id=user_id, role="owner", now=now)

    async def find_user(self, c: Connection, email: str) -> Row | None:
        row: Row | None = await self._q.find_user(c, email=email)
        return row

    async def get_user(self, c: Connection, user_id: str) -> Row | None:
        row: Row | None = await self._q.get_user(c, user_id=user_id)
        return row

    async def update_profile(
        self, c: Connection, user_id: str, display_name: str, revision: int, now: datetime
    ) -> bool:
        """False when the revision is no longer the current one; 0 is any."""
        row = await self._q.update_profile(c, user_id=user_id, display_name=display_name, revision=revision, now=now)
        return row is not None

    async def find_membership(self, c: Connection, user_id: str, handle: str) -> str | None:
        """The organisation of this handle that a user is in; empty for their personal one."""
        org_id: str | None = await self._q.find_membership(c, user_id=user_id, handle=handle)
        return org_id

    async def add_api_key(
        self, c: Connection, *, key_id: str, owner_id: str, org_id: str, created_by: str, key_hash: bytes, prefix: str,
        name: str, scopes: Sequence[str], test: bool, expires_at: datetime | None, call_limit: str | None,
        rules: str | None, now: datetime,
    ) -> Row:  # fmt: skip
        """A key of a user, a service account, or the organisation."""
        row: Row = await self._q.add_api_key(
            c, id=key_id, user_id=owner_id if owner_id.startswith("usr_") else None,
            service_account_id=owner_id if owner_id.startswith("sva_") else None, org_id=org_id, created_by=created_by,
            key_hash=key_hash, prefix=prefix, name=name,
            scopes=json.dumps(sorted(scopes)), test=test, expires_at=expires_at, call_limit=call_limit, rules=rules,
            now=now,
        )  # fmt: skip
        return row

    async def get_api_key(self, c: Connection, key_id: str, org_id: str, owner_id: str, *, shared: bool) -> Row | None:
        """`shared`: also one that is no member's own."""
        row: Row | None = await self._q.get_api_key(c, key_id=key_id, org_id=org_id, owner_id=owner_id, shared=shared)
        return row

    async def lock_api_key(self, c: Connection, key_id: str, org_id: str, owner_id: str, *, shared: bool) -> Row | None:
        """As get_api_key; nobody else changes it until the transaction ends."""
        row: Row | None = await self._q.lock_api_key(c, key_id=key_id, org_id=org_id, owner_id=owner_id, shared=shared)
        return row

    async def lock_secret(self, c: Connection, key_hash: bytes, now: datetime) -> Row | None:
        """The active key that a secret is of, and whether it is the `newest` one."""
        row: Row | None = await self._q.lock_secret(c, key_hash=key_hash, now=now)
        return row

    async def end_api_key(self, c: Connection, key_id: str) -> Row:
        row: Row = await self._q.end_api_key(c, key_id=key_id)
        return row

    async def list_key_owners(self, c: Connection, key_id: str) -> list[Row]:
        """Whom to write to about a key: (id, email, username)."""
        return [r async for r in self._q.list_key_owners(c, key_id=key_id)]

    async def list_owners(self, c: Connection, org_id: str) -> list[Row]:
        """Of an organisation: (id, email, username)."""
        return [r async for r in self._q.list_owners(c, org_id=org_id)]

    async def list_people(self, c: Connection, org_id: str) -> list[Row]:
        """Of an organisation: (id, email, username) and what `standing` reads."""
        return [r async for r in self._q.list_people(c, org_id=org_id)]

    async def add_signing_key(self, c: Connection, **columns: Any) -> Row:
        row: Row = await self._q.add_signing_key(c, **columns)
        return row

    async def list_signing_keys(self, c: Connection, key_id: str, before: str, most: int) -> list[Row]:
        return [r async for r in self._q.list_signing_keys(c, key_id=key_id, before=before, most=most)]

    async def delete_signing_key(self, c: Connection, key_id: str, signing_key_id: str) -> Row | None:
        row: Row | None = await self._q.delete_signing_key(c, key_id=key_id, signing_key_id=signing_key_id)
        return row

    async def signing_keys_of(self, c: Connection, key_ids: Sequence[str]) -> list[Row]:
        """Of several keys."""
        return [r async for r in self._q.signing_keys_of(c, key_ids=key_ids)]

    async def update_api_key(
        self, c: Connection, key_id: str, *, name: str, scopes: Sequence[str], expires_at: datetime | None,
        rules: str | None,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.update_api_key(
            c, key_id=key_id, name=name, scopes=json.dumps(sorted(scopes)), expires_at=expires_at, rules=rules
        )
        return row

    async def rotate_api_key(
        self, c: Connection, key_id: str, *, key_hash: bytes, prefix: str, previous_expires_at: datetime | None
    ) -> Row:
        """Another secret. Without `previous_expires_at` no other is good any more."""
        row: Row = await self._q.rotate_api_key(
            c, key_id=key_id, key_hash=key_hash, prefix=prefix, previous_expires_at=previous_expires_at
        )
        return row

    async def end_overlap(self, c: Connection, key_id: str) -> Row:
        row: Row = await self._q.end_overlap(c, key_id=key_id)
        return row

    async def list_api_keys(
        self, c: Connection, owner_id: str, org_id: str, before: str | None, most: int
    ) -> list[Row]:
        rows = self._q.list_api_keys(c, owner_id=owner_id, org_id=org_id, before=before, most=most)
        return [r async for r in rows]

    async def revoke_api_key(self, c: Connection, key_id: str, owner_id: str, org_id: str) -> Row | None:
        row: Row | None = await self._q.revoke_api_key(c, key_id=key_id, owner_id=owner_id, org_id=org_id)
        return row

    async def resolve_api_keys(self, c: Connection, key_hashes: Sequence[bytes]) -> dict[bytes, Row]:
        """Those that there are, by the hash of the secret that was given."""
        return {r["secret_hash"]: r async for r in self._q.resolve_api_keys(c, key_hashes=key_hashes)}

    async def get_key_principal(self, c: Connection, key_id: str, owner_id: str, org_id: str) -> Row | None:
        """Of a key of the owner and the organisation, where they are given."""
        row: Row | None = await self._q.get_key_principal(c, key_id=key_id, owner_id=owner_id, org_id=org_id)
        return row

    async def get_member_principal(self, c: Connection, user_id: str, org_id: str) -> Row | None:
        """Of a member; without an organisation in their personal one."""
        row: Row | None = await self._q.get_member_principal(c, user_id=user_id, org_id=org_id)
        return row

    async def verified_domains(self, c: Connection, org_id: str) -> list[str]:
        return [r["domain"] async for r in self._q.verified_domains(c, org_id=org_id)]

    async def find_organisation(self, c: Connection, handle: str) -> str | None:
        org_id: str | None = await self._q.find_organisation(c, handle=handle)
        return org_id

    async def list_team_users(self, c: Connection, team_id: str, org_id: str) -> list[str] | None:
        """None when the organisation has no such team."""
        if not await self._q.has_team(c, team_id=team_id, org_id=org_id):
            return None
        return [r["user_id"] async for r in self._q.list_team_users(c, team_id=team_id)]

    async def set_key_limit(
        self, c: Connection, key_id: str, owner_id: str, org_id: str, call_limit: str | None
    ) -> Row | None:
        row: Row | None = await self._q.set_key_limit(
            c, key_id=key_id, owner_id=owner_id, org_id=org_id, call_limit=call_limit
        )
        return row

    async def list_limited_keys(self, c: Connection, owner_id: str, org_id: str) -> list[Row]:
        return [r async for r in self._q.list_limited_keys(c, owner_id=owner_id, org_id=org_id)]

    async def get_account(self, c: Connection, org_id: str) -> Row:
        row: Row = await self._q.get_account(c, org_id=org_id)
        return row

    async def set_account_limit(self, c: Connection, handle: str, tier: int, call_limit: str | None) -> Row | None:
        row: Row | None = await self._q.set_account_limit(c, handle=handle, tier=tier, call_limit=call_limit)
        return row

    async def touch_api_keys(self, c: Connection, used: Mapping[bytes, datetime]) -> None:
        for touch in (self._q.touch_api_keys, self._q.touch_previous_secrets):
            await touch(c, key_hashes=list(used), used=list(used.values()))
