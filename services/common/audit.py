"""Sensitive acts: an RPC that the contract marks as audited leaves an AuditRecorded event in its own transaction."""

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.event.v1 import event_pb2

from services.common import clock, ids, outbox
from services.common.db import Connection
from services.common.rpc.context import maybe_current


def about(resource_type: str, resource_id: str) -> None:
    """Names what the current call is about, for its audit record."""
    if call := maybe_current():
        call.resource = (resource_type, resource_id)


async def record(connection: Connection) -> None:
    """Adds the audit event of the current call to its transaction, once per call; nothing outside an audited call."""
    call = maybe_current()
    if call is None or not call.audited:
        return
    call.audited = False
    event = event_pb2.AuditRecorded(
        audit_id=ids.new("aud"), user_id=call.principal.user_id, org_id=call.principal.org_id, action=call.method,
        resource_type=call.resource[0], resource_id=call.resource[1], ip_address=call.address,
        user_agent=call.user_agent, request_id=call.request_id,
    )  # fmt: skip
    now = Timestamp()
    now.FromNanoseconds(clock.time_ns())
    event.created_at.CopyFrom(now)
    await outbox.add(connection, event)
