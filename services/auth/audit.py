"""Writes what the other services report of sensitive acts into the audit log."""

import ipaddress
import json
from datetime import UTC

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2

from services.auth.store import Store
from services.common.db import Connection

_store = Store()


async def write(connection: Connection, event: Message) -> None:
    """Adds the row of an AuditRecorded event; one that is there already is left."""
    assert isinstance(event, event_pb2.AuditRecorded)
    try:
        address = str(ipaddress.ip_address(event.ip_address))
    except ValueError:
        address = None
    await _store.add_audit_log(
        connection, id=event.audit_id, user_id=event.user_id or None, org_id=event.org_id or None, action=event.action,
        resource_type=event.resource_type, resource_id=event.resource_id,
        metadata=json.dumps({"request_id": event.request_id}), ip_address=address, user_agent=event.user_agent,
        created_at=event.created_at.ToDatetime(UTC),
    )  # fmt: skip
