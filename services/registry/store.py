"""The tables of the registry, one typed method per named query."""

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
        self._q = load_queries("services.registry")

    async def add_model(self, c: Connection, **columns: Any) -> None:
        """Raises asyncpg.UniqueViolationError when the publisher has a model of that name or one that looks like it."""
        await self._q.add_model(c, skeleton=skeleton(columns["name"]), **columns)

    async def take_address(self, c: Connection, publisher: str, name: str, model_id: str, since: datetime) -> bool:
        """After a model has got this address, in the same transaction: who left it meanwhile has committed by then.
        False when another left it after an instant."""
        taken = await self._q.take_address(c, publisher=publisher, name=name, model_id=model_id, since=since)
        return taken is not None

    async def get_model(self, c: Connection, publisher: str, name: str) -> Row | None:
        """By its address, or one that it had before."""
        row: Row | None = await self._q.get_model(c, publisher=publisher, name=name)
        return row

    async def is_publisher(self, c: Connection, publisher: str) -> bool:
        """Whether everybody may know of a model that has, or had, an address of this publisher's."""
        return bool(await self._q.is_publisher(c, publisher=publisher))

    async def former_addresses(self, c: Connection, model_id: str) -> list[str]:
        """Each as `publisher/name`."""
        return [r["model"] async for r in self._q.former_addresses(c, model_id=model_id)]

    async def list_models(self, c: Connection, org_id: str, viewer: str, before: str | None, most: int) -> list[Row]:
        """All models of an organisation, or when it is empty the published ones that the organisation `viewer` may know
        of; with an empty one those that all may."""
        return [r async for r in self._q.list_models(c, org_id=org_id, viewer=viewer, before=before, most=most)]

    async def update_model(
        self, c: Connection, model_id: str, *, display_name: str | None, summary: str | None, description: str | None,
        card: bytes | None, license_: str | None, tags: Sequence[str] | None, revision: int, now: datetime,
    ) -> bool:  # fmt: skip
        """False when the revision is no longer the current one; 0 is any. None leaves a column as it is."""
        row = await self._q.update_model(
            c, id=model_id, display_name=display_name, summary=summary, description=description, card=card,
            license=license_, tags=tags, revision=revision, now=now,
        )  # fmt: skip
        return row is not None

    async def touch_model(self, c: Connection, model_id: str, now: datetime) -> None:
        """Gives a model a new etag, and makes every other change of its versions or aliases wait for this one."""
        await self._q.touch_model(c, id=model_id, now=now)

    async def set_model_limit(self, c: Connection, model_id: str, call_limit: str | None) -> None:
        await self._q.set_model_limit(c, id=model_id, call_limit=call_limit)

    async def set_visibility(self, c: Connection, model_id: str, visibility: int, now: datetime) -> None:
        """With a new etag, as `touch_model`."""
        await self._q.set_visibility(c, id=model_id, visibility=visibility, now=now)

    async def set_latest(self, c: Connection, model_id: str, version: str, now: datetime) -> None:
        await self._q.set_latest(c, id=model_id, version=version, now=now)

    async def add_version(self, c: Connection, **columns: Any) -> None:
        """Raises asyncpg.UniqueViolationError when the model has that version."""
        await self._q.add_version(c, **columns)

    async def get_version(self, c: Connection, model_id: str, version: str, *, lock: bool = False) -> Row | None:
        query = self._q.lock_version if lock else self._q.get_version
        row: Row | None = await query(c, model_id=model_id, version=version)
        return row

    async def list_versions(
        self, c: Connection, model_id: str, *, all_states: bool, before: str | None, most: int
    ) -> list[Row]:
        found = self._q.list_versions(c, model_id=model_id, all_states=all_states, before=before, most=most)
        return [r async for r in found]

    async def list_reviews(self, c: Connection, after: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_reviews(c, after=after, most=most)]

    async def list_callable(self, c: Connection, after: str, most: int) -> list[Row]:
        """Published and deprecated versions of all models, with their models' publisher, name and org_id."""
        return [r async for r in self._q.list_callable(c, after=after, most=most)]

    async def list_unreviewed(self, c: Connection, model_id: str, most: int) -> list[str]:
        """Versions that others would see or call if the model were not private, though nobody has reviewed them."""
        return [r["version"] async for r in self._q.list_unreviewed(c, model_id=model_id, most=most)]

    async def published_versions(self, c: Connection, model_id: str) -> list[str]:
        return [r["version"] async for r in self._q.published_versions(c, model_id=model_id)]

    async def move_version(self, c: Connection, version_id: str, **columns: Any) -> None:
        await self._q.move_version(c, id=version_id, **columns)

    async def deprecate_version(
        self, c: Connection, version_id: str, sunset_at: datetime | None, successor: str, reason: str
    ) -> None:
        await self._q.deprecate_version(c, id=version_id, sunset_at=sunset_at, successor=successor, reason=reason)

    async def due_sunset(self, c: Connection, now: datetime) -> Row | None:
        """A deprecated version whose sunset has come."""
        row: Row | None = await self._q.due_sunset(c, now=now)
        return row

    async def add_decision(self, c: Connection, **columns: Any) -> None:
        await self._q.add_decision(c, **columns)

    async def list_decisions(self, c: Connection, version_id: str, most: int) -> list[Row]:
        """How its reviews ended, newest first."""
        return [r async for r in self._q.list_decisions(c, version_id=version_id, most=most)]

    async def last_published(self, c: Connection, model_id: str, version_id: str) -> Row | None:
        """The last published version beside one."""
        row: Row | None = await self._q.last_published(c, model_id=model_id, id=version_id)
        return row

    async def add_version_file(self, c: Connection, version_id: str, digest: str) -> None:
        await self._q.add_version_file(c, version_id=version_id, digest=digest)

    async def needed_artifacts(self, c: Connection, digests: Sequence[str], since: datetime) -> list[str]:
        """Those that a version needs, also one that was deleted since an instant."""
        return [r["digest"] async for r in self._q.needed_artifacts(c, digests=digests, since=since)]

    async def model_of_version(self, c: Connection, version_id: str) -> Row | None:
        row: Row | None = await self._q.model_of_version(c, version_id=version_id)
        return row

    async def lock_version(self, c: Connection, version_id: str) -> Row:
        row: Row = await self._q.lock_version_by_id(c, id=version_id)
        return row

    async def add_crash(
        self, c: Connection, crash_id: str, version_id: str, worker_id: str, now: datetime, since: datetime
    ) -> int:
        """Counts a crash, each once; answers how many there were since an instant."""
        await self._q.add_crash(c, id=crash_id, version_id=version_id, worker_id=worker_id, now=now)
        return int(await self._q.count_crashes(c, version_id=version_id, since=since))

    async def forget_crashes(self, c: Connection, version_id: str) -> None:
        await self._q.forget_crashes(c, version_id=version_id)

    async def add_finding(self, c: Connection, version_id: str, finding: str) -> None:
        await self._q.add_finding(c, id=version_id, finding=finding)

    async def set_alias(self, c: Connection, model_id: str, alias: str, version: str) -> None:
        await self._q.set_alias(c, model_id=model_id, alias=alias, version=version)

    async def get_alias(self, c: Connection, model_id: str, alias: str) -> str | None:
        version: str | None = await self._q.get_alias(c, model_id=model_id, alias=alias)
        return version

    async def claim_validation(self, c: Connection, now: datetime, until: datetime) -> Row | None:
        row: Row | None = await self._q.claim_validation(c, now=now, until=until)
        return row

    async def hold_validation(self, c: Connection, version_id: str, until: datetime | None) -> None:
        """Prolongs a claim, or gives it back, so that nobody waits for its end."""
        await self._q.hold_validation(c, id=version_id, until=until)

    async def finish_validation(
        self, c: Connection, version_id: str, *, findings: Sequence[Mapping[str, str]],
        samples: Sequence[str] | None, **columns: Any,
    ) -> None:  # fmt: skip
        """`samples`: the replies to them; None: they were not run, or one failed."""
        replies = None if samples is None else json.dumps(list(samples))
        await self._q.finish_validation(
            c, id=version_id, findings=json.dumps(list(findings)), sample_replies=replies, **columns
        )
