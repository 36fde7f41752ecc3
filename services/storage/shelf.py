"""Files become artifacts, and artifacts that nobody needs are removed. Neither gets in the other's way: bytes are
removed while their row is locked, and whoever stores some looks, with the row locked, whether they are still there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import MercatError, Unavailable
from services.storage.blobs import Blobs
from services.storage.store import Store

log = logging.getLogger(__name__)
_MOST = 500  # artifacts that are asked about at a time
_TRIES = 5
_LOOK_FOR_STRAYS = timedelta(days=1)
T = TypeVar("T")


class _RemovedMeanwhile(Exception): ...


class Shelf:
    """`needed` answers which of some digests a version needs."""

    def __init__(
        self, database: Database, store: Store, blobs: Blobs, clock: Clock,
        needed: Callable[[Sequence[str]], Awaitable[set[str]]], every: float, after: timedelta,
    ) -> None:  # fmt: skip
        self._database, self._store, self._blobs, self._clock = database, store, blobs, clock
        self._needed, self._every, self._after = needed, every, after

    async def put(
        self, digest: str, path: Path, size: int, *, org_id: str = "", filename: str = "",
        then: Callable[[Connection], Awaitable[T]] | None = None,
    ) -> T | None:  # fmt: skip
        """Stores a file and says so, together with what `then` does; an organisation owns it, where one is given.
        Raises Unavailable."""
        for _ in range(_TRIES):
            await self._blobs.put(digest, path)
            try:
                async with self._database.transaction() as connection:
                    await self._store.add_artifact(
                        connection, digest=digest, size_bytes=size, org_id=org_id, filename=filename,
                        now=self._clock.now(),
                    )  # fmt: skip
                    if not await self._blobs.exists(digest):
                        raise _RemovedMeanwhile
                    return await then(connection) if then is not None else None
            except _RemovedMeanwhile:
                continue
        raise Unavailable("these bytes are being removed", reason="STORAGE_UNAVAILABLE", retry_after=1)

    async def collect(self) -> None:
        """Removes what nobody needs, for ever."""
        strays = self._clock.now()
        while True:
            await asyncio.sleep(self._every)
            try:
                if self._clock.now() >= strays:
                    await self._condemn_strays()
                    strays = self._clock.now() + _LOOK_FOR_STRAYS
                await self._condemn()
                removed = 0
                while await self._remove_one():
                    removed += 1
                if removed:
                    log.info("removed %d artifacts that nothing needs", removed)
            except MercatError as e:
                log.warning("what nobody needs stays for now: %s", e)

    async def _condemn(self) -> None:
        """Nothing is, unless the registry says that it needs it not."""
        while True:
            before = self._clock.now() - self._after
            async with self._database.connection() as connection:
                unused = await self._store.unused_artifacts(connection, before, _MOST)
            if not unused:
                return
            needed = await self._needed(unused)
            async with self._database.transaction() as connection:
                await self._store.use_artifacts(connection, sorted(needed), self._clock.now())
                rest = sorted(set(unused) - needed)
                # One that somebody began to make a version of since the question was put stays.
                await self._store.condemn_artifacts(connection, rest, before)

    async def _condemn_strays(self) -> None:
        """What a process left that died between storing bytes and saying so."""
        async for digests in self._blobs.listed(self._after):
            async with self._database.transaction() as connection:
                await self._store.condemn_strays(connection, digests, self._clock.now())

    async def _remove_one(self) -> bool:
        async with self._database.transaction() as connection:
            digest = await self._store.next_condemned(connection)
            if digest is None:
                return False
            await self._blobs.remove(digest)
            await self._store.drop_artifact(connection, digest)
            return True
