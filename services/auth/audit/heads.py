"""Signs where chains end, into the object store; drops what is old.

A head is signed only over entries that follow from the newest head in the store: a chain that was rewritten in the
database is not signed again, whatever the database says."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from mercat.auth.v1 import audit_pb2
from mercat.storage.v1 import storage_pb2, storage_pb2_grpc

from services.auth.audit.store import AuditStore
from services.auth.audit.writer import Writer
from services.auth.settings import AuthSettings
from services.common.audit_chain import NotGenuine, hash_of, read_head, sign, verify
from services.common.clock import Clock
from services.common.db import Database
from services.common.metrics import Counter
from services.common.rpc.channels import InternalChannel
from services.common.signing import KeyFile

log = logging.getLogger(__name__)
BROKEN = Counter("mercat_audit_broken", "Times that a chain of the audit log could not be signed", [])
SHOWN = 20  # heads that are told; the newest covers all that came before
_BATCH = 5000  # entries that one head is signed over
_HEADS, _FLOORS = "heads", "floors"


class Heads:
    """What was signed of each chain, and the task that signs."""

    def __init__(
        self, database: Database, store: AuditStore, writer: Writer, keys: KeyFile, control: InternalChannel,
        clock: Clock, settings: AuthSettings,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._writer = writer
        self.keys = keys
        self._objects = storage_pb2_grpc.ObjectServiceStub(control)
        self._clock = clock
        self._settings = settings

    async def repeat(self) -> None:
        """Signs and drops, for ever."""
        dropped: datetime | None = None
        while True:
            await asyncio.sleep(self._settings.audit_head_seconds)
            try:
                await self._writer.adopt(self._database)
                await self.sign_all()
                now = self._clock.now()
                if dropped is None or now - dropped >= timedelta(hours=1):
                    await self.drop_old(now)
                    dropped = now
            except Exception as e:
                log.warning("audit log: %s", e)

    async def sign_all(self) -> None:
        """Signs every chain that has grown. A chain that does not hold is logged, and left."""
        async with self._database.connection() as connection:
            chains = await self._store.unsigned_chains(connection)
        for chain in chains:
            while await self._sign(chain) == _BATCH:
                pass

    async def _sign(self, chain: str) -> int:
        """Signs over at most a batch of entries; answers how many there were."""
        heads = await self.of(chain, 1)
        newest = max(heads, key=lambda h: h.sequence, default=audit_pb2.AuditHead(hash=bytes(32)))
        async with self._database.connection() as connection:
            entries = await self._store.entries_from(connection, chain, newest.sequence, _BATCH)
        base = audit_pb2.AuditHead(chain=chain, sequence=newest.sequence, hash=newest.hash, floor=True)
        problems = verify(chain, entries, [base]).problems
        same = [e for e in entries if e.sequence == newest.sequence]
        dropped = any(h.floor and h.sequence == newest.sequence for h in heads)
        if newest.sequence and not dropped and [(e.hash, hash_of(e)) for e in same] != [(newest.hash, newest.hash)]:
            problems = [f"entry {newest.sequence} is not what was signed", *problems]
        if problems:
            BROKEN.labels().inc()
            log.error("the audit chain of %s was tampered with: %s", chain, "; ".join(problems))
            return 0
        if last := next((e for e in reversed(entries) if e.sequence > newest.sequence), None):
            await self._put(audit_pb2.AuditHead(chain=chain, sequence=last.sequence, hash=last.hash))
        async with self._database.connection() as connection:
            await self._store.mark_signed(connection, chain, last.sequence if last else newest.sequence)
        return len(entries)

    async def _put(self, head: audit_pb2.AuditHead) -> None:
        head.signed_at.FromDatetime(self._clock.now())
        # With the hash in its name no head ever takes another's place.
        name = f"{_folder(head.chain, floor=head.floor)}/{head.sequence:020}-{head.hash.hex()[:16]}"

        async def pieces() -> AsyncIterator[storage_pb2.PutObjectRequest]:
            yield storage_pb2.PutObjectRequest(name=name, data=sign(head, self.keys.first).encode())

        await self._objects.PutObject(pieces())

    async def of(self, chain: str, most: int = SHOWN) -> list[audit_pb2.AuditHead]:
        """The newest heads of a chain and its newest floor, by their places. Raises Unavailable."""
        names = [n for floor in (True, False) for n in await self._names(chain, 1 if floor else most, floor=floor)]
        found = await asyncio.gather(*(self._get(name) for name in names))
        return sorted((h for h in found if h is not None and h.chain == chain), key=lambda h: (h.sequence, not h.floor))

    async def _names(self, chain: str, most: int, *, floor: bool) -> list[str]:
        asked = storage_pb2.ListObjectsRequest(folder=_folder(chain, floor=floor), most=most)
        return list((await self._objects.ListObjects(asked)).names)

    async def _get(self, name: str) -> audit_pb2.AuditHead | None:
        pieces = [p.data async for p in self._objects.GetObject(storage_pb2.GetObjectRequest(name=name), timeout=15)]
        try:
            return read_head(b"".join(pieces).decode(), [key.public_jwk() for key in self.keys.keys])
        except (NotGenuine, UnicodeDecodeError) as e:
            log.error("%s in the object store: %s", name, e)
            return None

    async def drop_old(self, now: datetime) -> None:
        """Erases addresses, user agents and metadata of entries past their time, and drops entries past theirs, up to a
        head, whose floor is signed first."""
        if days := self._settings.audit_details_days:
            erased = _BATCH
            while erased == _BATCH:
                async with self._database.transaction() as connection:
                    erased = await self._store.erase_details(connection, now - timedelta(days=days), _BATCH)
        if not (days := self._settings.audit_days):
            return
        async with self._database.connection() as connection:
            old = await self._store.old_entries(connection, now - timedelta(days=days))
        for chain, sequence in old.items():
            names = [n for n in await self._names(chain, 0, floor=False) if _sequence(n) <= sequence]
            head = await self._get(names[-1]) if names else None
            if head is None:
                continue
            await self._put(audit_pb2.AuditHead(chain=chain, sequence=head.sequence, hash=head.hash, floor=True))
            async with self._database.transaction() as connection:
                await self._store.drop_entries(connection, chain, head.sequence)


def _folder(chain: str, *, floor: bool) -> str:
    return f"audit/{chain}/{_FLOORS if floor else _HEADS}"


def _sequence(name: str) -> int:
    return int(name.rpartition("/")[2].partition("-")[0])
