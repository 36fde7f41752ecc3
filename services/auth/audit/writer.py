"""Writes what the services report into the audit log, and each entry into its organisation's chain.

Writers of one chain wait for each other's transaction; the calls that are reported have ended by then."""

import ipaddress
import json
import os
from datetime import UTC

from google.protobuf import json_format
from google.protobuf.message import Message
from mercat.event.v1 import event_pb2

from services.auth.audit.store import AuditStore, Row
from services.common.audit_chain import PLATFORM, details_hash, entry_of, hash_of
from services.common.db import Connection, Database

_BATCH = 200


class Writer:
    """Adds entries."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def write(self, connection: Connection, event: Message) -> None:
        """Adds the entry of an AuditRecorded event; one that is there already is left."""
        assert isinstance(event, event_pb2.AuditRecorded)
        try:
            address = str(ipaddress.ip_address(event.ip_address))
        except ValueError:
            address = None
        # It may come after they are erased. A resource is a user where somebody who is not known tried to sign in.
        closed = await self._store.is_closed(connection, event.user_id) or (
            event.resource_type == "user" and await self._store.is_closed(connection, event.resource_id)
        )
        if closed:
            address, event.user_agent = None, ""
            event.metadata.Clear()
        row = await self._store.add_entry(
            connection, id=event.audit_id, user_id=event.user_id or None, org_id=event.org_id or None,
            key_id=event.key_id, action=event.action, resource_type=event.resource_type, resource_id=event.resource_id,
            request_id=event.request_id, metadata=json.dumps(json_format.MessageToDict(event.metadata)),
            ip_address=address, user_agent=event.user_agent, created_at=event.created_at.ToDatetime(UTC),
        )  # fmt: skip
        if row is not None:
            await self._link(connection, row)
            if closed:
                await self._store.strip_entry(connection, event.audit_id)

    async def adopt(self, database: Database) -> None:
        """Puts rows that are in no chain at the end of theirs."""
        while True:
            async with database.transaction() as connection:
                rows = await self._store.loose_entries(connection, _BATCH)
                for row in sorted(rows, key=_chain):  # chains are locked in one order
                    await self._link(connection, row)
            if len(rows) < _BATCH:
                return

    async def _link(self, connection: Connection, row: Row) -> None:
        chain = _chain(row)
        last, previous = await self._store.lock_chain(connection, chain)
        place = {"chain": chain, "sequence": last + 1, "salt": os.urandom(16), "previous_hash": previous}
        entry = entry_of({**row, **place})  # of what the database keeps, so that it says the same for ever
        entry.details_hash = details_hash(entry)
        entry.hash = hash_of(entry)
        await self._store.link_entry(connection, entry)


def _chain(row: Row) -> str:
    return row["org_id"] or PLATFORM
